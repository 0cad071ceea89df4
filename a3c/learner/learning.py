"""How a batch becomes a step on the weights: what all modes have in common, whoever makes the updates."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, fields
from typing import Any

import cloudpickle

from a3c.learner.guard import UpdateGuard
from a3c.learner.objective import Objective
from a3c.learner.schedules import Rates


@dataclass(frozen=True)
class Learning:
    """The loss of an update and the rules of its step; it pickles, classes of a notebook or script included.

    Attributes:
        objective: the loss.
        rates: learning rate and entropy coefficient in the course of the run.
        max_grad_norm: gradients are scaled down to this L2 norm, > 0; None for no clipping.
        max_skipped: updates in a row that may be skipped, since their loss or gradient is not finite;
            one more ends the run.
        shared_optimizer: where workers learn, one optimizer whose statistics they share; False gives
            each its own.
    """

    objective: Objective
    rates: Rates = field(default_factory=Rates)
    max_grad_norm: float | None = None
    max_skipped: int = 10
    shared_optimizer: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        content = cloudpickle.dumps(tuple(getattr(self, each.name) for each in fields(self)))
        return _rebuilt, (content,)

    def make_guard(self) -> UpdateGuard:
        """Build the guard that clips gradients, and finds updates that must be skipped."""
        return UpdateGuard(self.max_grad_norm, self.max_skipped)


def _rebuilt(content: bytes) -> Learning:
    return Learning(*pickle.loads(content))
