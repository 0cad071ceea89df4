"""Schedules of the learning rate and of the entropy coefficient, over env steps.

A schedule depends on nothing but the env steps used so far. So every process works it out for
itself, in every update mode, and a resumed run needs no state of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

Curve = Callable[[int], float]  # from env steps to the value in force
SchedulerCallable = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]
MOMENTUM = 0.9  # of the optimizer on which a torch scheduler is played through


class Schedule(ABC):
    """How a value that begins as the flag says changes with the env steps used."""

    @abstractmethod
    def curve(self, initial: float, max_env_steps: int | None) -> Curve:
        """Return the value as a function of env steps; it pickles.

        Args:
            initial: the value at the start.
            max_env_steps: the run's budget, or None if it has none in env steps.

        Raises:
            ValueError: the schedule needs a budget in env steps, or cannot be used at all.
        """


class Constant(Schedule):
    """Stays as it is."""

    def curve(self, initial: float, max_env_steps: int | None) -> Curve:
        return _Line(initial, initial, 1)


class Linear(Schedule):
    """Goes in a straight line to a fraction of itself, and stays there.

    Mnih et al. (2016), arXiv:1602.01783, section 8: the learning rate is annealed to 0 over training.

    Args:
        final: fraction of the initial value that it ends at, ≥ 0.
        env_steps: where it gets there, > 0; the run's budget by default.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(self, final: float = 0.0, env_steps: int | None = None) -> None:
        if not (final >= 0 and math.isfinite(final)):
            raise ValueError(f"final: got {final}, must be at least 0 and finite")
        if env_steps is not None and env_steps < 1:
            raise ValueError(f"env_steps: got {env_steps}, must be at least 1")
        self.final = final
        self.env_steps = env_steps

    def curve(self, initial: float, max_env_steps: int | None) -> Curve:
        env_steps = self.env_steps or max_env_steps
        if env_steps is None:
            raise ValueError("env_steps: got none, must be at least 1 in a run without max_env_steps")
        return _Line(initial, initial * self.final, env_steps)


class TorchScheduler(Schedule):
    """Follows any scheduler of torch that changes nothing but the learning rate.

    It is played through once, before the run; only the values travel.

    Args:
        scheduler: makes the scheduler from an optimizer.
        every_env_steps: env steps between two of its steps, > 0; a T_max of 100 is then 100 times
            as many.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(self, scheduler: SchedulerCallable, every_env_steps: int = 1000) -> None:
        if every_env_steps < 1:
            raise ValueError(f"every_env_steps: got {every_env_steps}, must be at least 1")
        self.scheduler = scheduler
        self.every_env_steps = every_env_steps

    def curve(self, initial: float, max_env_steps: int | None) -> Curve:
        if max_env_steps is None:
            raise ValueError("scheduler: the run has no max_env_steps, must have them: they say how long it is")
        optimizer = SGD([torch.zeros(())], lr=initial, momentum=MOMENTUM)
        try:
            return self._play(optimizer, self.scheduler(optimizer), -(-max_env_steps // self.every_env_steps))
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"scheduler: {error}") from error

    def _play(self, optimizer: Optimizer, scheduler: Any, count: int) -> Curve:
        """Return the first `count` learning rates of a scheduler."""
        name = type(scheduler).__name__
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(
                f"got {name}, which waits for a metric; must depend on env steps alone, "
                "since workers cannot share it otherwise"
            )
        if "max_momentum" in optimizer.param_groups[0]:
            raise ValueError(
                f"got {name}, which changes the momentum as well; must change the learning rate "
                "alone (cycle_momentum: false)"
            )
        values = array("d", [optimizer.param_groups[0]["lr"]])
        for _ in range(count - 1):
            optimizer.step()
            scheduler.step()
            values.append(optimizer.param_groups[0]["lr"])
        if not all(math.isfinite(value) and value >= 0 for value in values):
            raise ValueError(f"{name} gives a value that is negative or not finite")
        return _Steps(values, self.every_env_steps)


@dataclass(frozen=True)
class _Line:
    """A straight line from one value to another, and level from there."""

    initial: float
    final: float
    env_steps: int

    def __call__(self, env_steps: int) -> float:
        share = min(1.0, env_steps / self.env_steps)
        return self.initial + (self.final - self.initial) * share


@dataclass(frozen=True)
class _Steps:
    """A value for every so many env steps; the last one stays."""

    values: array[float]
    every: int

    def __call__(self, env_steps: int) -> float:
        return self.values[min(env_steps // self.every, len(self.values) - 1)]


@dataclass(frozen=True)
class Rates:
    """What changes in the course of a run; None where nothing does. It pickles.

    Attributes:
        learning_rates: of the optimizer's parameter groups.
        entropy_coefficient: of the objective.
    """

    learning_rates: tuple[Curve, ...] | None = None
    entropy_coefficient: Curve | None = None

    def set_learning_rates(self, optimizer: Optimizer, env_steps: int) -> None:
        """Set the learning rates that are in force after so many env steps."""
        if self.learning_rates is not None:
            for group, curve in zip(optimizer.param_groups, self.learning_rates, strict=True):
                group["lr"] = curve(env_steps)

    def entropy_at(self, env_steps: int) -> float | None:
        """Return the entropy coefficient after so many env steps; None for the objective's own."""
        return None if self.entropy_coefficient is None else self.entropy_coefficient(env_steps)

    def metrics(self, env_steps: int) -> dict[str, float]:
        """Return what is scheduled, by metric key."""
        metrics = {}
        if self.learning_rates is not None:
            metrics["schedule/learning_rate"] = self.learning_rates[0](env_steps)
        if self.entropy_coefficient is not None:
            metrics["schedule/entropy_coefficient"] = self.entropy_coefficient(env_steps)
        return metrics
