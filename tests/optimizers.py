"""Optimizers that workers import."""

import os
import signal
import time
from pathlib import Path

import torch


class DyingAdam(torch.optim.Adam):
    """Kills its process in the middle of a chosen step, when half of the parameters are stepped.

    With `once`, the path of a file, the first process that comes so far creates it and dies alone.
    """

    def __init__(self, params, lr=1e-3, at_step=5, once=None):
        super().__init__(params, lr=lr)
        self.defaults.update(at_step=at_step, once=once)
        for group in self.param_groups:
            group.update(at_step=at_step, once=once)

    @torch.no_grad()
    def step(self, closure=None):
        (group,) = self.param_groups
        counts = [state["step"].item() for state in self.state.values() if "step" in state]
        if counts and max(counts) + 1 >= group["at_step"] and _is_first(group["once"]):
            for parameter in group["params"][: len(group["params"]) // 2]:
                parameter.add_(0.001)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(closure)


class SlowCount(torch.optim.SGD):
    """Adds 1 to every parameter, one tensor after another, and slowly: half a step is easy to see."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(1)
                time.sleep(0.002)


def _is_first(once):
    if once is None:
        return True
    try:
        Path(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
