"""What callbacks share that play episodes while a run trains: when they are due, seeds, and a watch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer

from a3c.envs.random_states import derived_seed
from a3c.envs.watchdog import StepWatch
from a3c.training.seams import data_of


class EveryEnvSteps:
    """Counts env steps from one time to the next; an interrupted run ends without another one.

    Args:
        env_steps: from one time to the next, ≥ 1; None for never.
    """

    def __init__(self, env_steps: int | None) -> None:
        self._every = env_steps
        self._next = 0

    def begin(self, trainer: Trainer) -> None:
        """Begin with the env steps that a resumed run has used."""
        if self._every is not None:
            self._next = (data_of(trainer).progress.env_steps // self._every + 1) * self._every

    def is_due(self, trainer: Trainer) -> bool:
        """Return whether it is time after the update at hand; then the next time is set."""
        if self._every is None:
            return False
        if data_of(trainer).progress.env_steps < self._next and not trainer.should_stop:
            return False
        self.begin(trainer)
        return not trainer.interrupted


@contextmanager
def watched(trainer: Trainer, what: str) -> Iterator[Callable[[], bool]]:
    """Watch an environment in this process; yields what is to be asked at every step: whether to stop.

    Raises:
        HangError: nothing was asked for as long as a worker may be silent.
    """
    with StepWatch(data_of(trainer).mode.supervision.timeout or math.inf, what) as watch:

        def should_stop() -> bool:
            watch.beat()
            return trainer.interrupted

        yield should_stop


def seed_of(run_seed: int, purpose: str, number: int) -> int:
    """Return a seed that no worker, and no other evaluation of the run, uses."""
    return derived_seed(run_seed, *purpose.encode(), number)
