"""An optimizer whose statistics lie in shared memory, so that workers step and the parent saves.

Statistics of RMSprop shared by all workers are the paper's Shared RMSProp: Mnih et al. (2016),
arXiv:1602.01783, section 4.
"""

from __future__ import annotations

import copy
import pickle
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adam, Adamax, AdamW, Optimizer, RAdam, RMSprop

from a3c.rollouts.memory import Field, SharedBlock

STEP = "step"  # torch's key for the number of steps made, in the optimizers that count them
SHAREABLE = (Adadelta, Adam, Adamax, AdamW, RAdam, RMSprop, SGD)  # their statistics all begin at 0


class SharedOptimizer:
    """One optimizer, with its statistics in shared memory; it pickles to workers by handle.

    Args:
        optimizer: the parent's; its statistics are moved, those it has (of a checkpoint) are kept.

    Raises:
        ValueError: the optimizer is none of `SHAREABLE`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        check_shareable(optimizer)
        _begin_statistics(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        states = [optimizer.state[parameter] for parameter in parameters]
        names = {
            (index, key): Field(f"{index}.{key}", value.shape, value.dtype)
            for index, state in enumerate(states)
            for key, value in state.items()
            if isinstance(value, Tensor)
        }
        self._block = SharedBlock(list(names.values()))
        for (index, key), field in names.items():
            self._block.views[field.name].copy_(states[index][key])
            states[index][key] = self._block.views[field.name]
        self._skeleton = self._without_tensors(optimizer)

    @staticmethod
    def _without_tensors(optimizer: Optimizer) -> bytes:
        """Pickles the optimizer with its parameters replaced by their indices, and no statistics."""
        skeleton = copy.copy(optimizer)
        indices = iter(range(sum(len(group["params"]) for group in optimizer.param_groups)))
        skeleton.param_groups = [
            {**group, "params": [next(indices) for _ in group["params"]]} for group in optimizer.param_groups
        ]
        plain = [
            {key: value for key, value in optimizer.state[parameter].items() if not isinstance(value, Tensor)}
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        skeleton.state = defaultdict(dict, enumerate(plain))  # type: ignore[arg-type]
        return pickle.dumps(skeleton)

    def attach(self, parameters: Sequence[Tensor]) -> Optimizer:
        """Gives an optimizer over other parameters, on the shared statistics.

        Args:
            parameters: of the shapes of the parent's, in their order.
        """
        optimizer: Optimizer = pickle.loads(self._skeleton)
        for group in optimizer.param_groups:
            group["params"] = [parameters[index] for index in group["params"]]
        plain: dict[Any, dict[str, Any]] = dict(optimizer.state)
        optimizer.state = defaultdict(dict, {parameters[index]: dict(state) for index, state in plain.items()})
        for name, view in self._block.views.items():
            index, _, key = name.partition(".")
            optimizer.state[parameters[int(index)]][key] = view
        return optimizer


def check_shareable(optimizer: Optimizer) -> None:
    """Refuses an optimizer whose statistics cannot be set up before its first step.

    Raises:
        ValueError: it is none of `SHAREABLE`.
    """
    if not isinstance(optimizer, SHAREABLE):
        names = ", ".join(cls.__name__ for cls in SHAREABLE)
        raise ValueError(
            f"optimizer: got {type(optimizer).__name__}, must be one whose statistics workers can share: {names}"
        )


def step_counts(optimizer: Optimizer) -> list[Tensor]:
    """Gives the optimizer's numbers of steps made, a scalar tensor a parameter; empty if it counts none."""
    counts = [state.get(STEP) for state in optimizer.state.values()]
    return [count for count in counts if isinstance(count, Tensor)]


def detach_step_counts(optimizer: Optimizer) -> list[Tensor]:
    """Gives the optimizer counts of its own instead of shared ones, and gives them.

    Increments of one number by many processes without a lock get lost.
    """
    for state in optimizer.state.values():
        if isinstance(state.get(STEP), Tensor):
            state[STEP] = state[STEP].clone()
    return step_counts(optimizer)


@torch.no_grad()
def _begin_statistics(optimizer: Optimizer) -> None:
    """Lets an optimizer that has made no step yet allocate its statistics, all 0."""
    if any(optimizer.state.values()):
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [parameter.clone() for parameter in parameters]
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for parameter, value in zip(parameters, before, strict=True):
        parameter.grad = None
        parameter.copy_(value)
        for statistic in optimizer.state[parameter].values():
            if isinstance(statistic, Tensor):
                statistic.zero_()
