"""How a batch becomes a step on the weights: what all modes have in common, whoever makes the updates."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import cloudpickle
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.learner.guard import UpdateGuard
from a3c.learner.objective import Objective, Observer
from a3c.learner.reuse import GradientStep, Reuse
from a3c.learner.schedules import Rates
from a3c.networks.actor_critic import ActorCritic


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
        reuse: how often an update uses its batch.
    """

    objective: Objective
    rates: Rates = field(default_factory=Rates)
    max_grad_norm: float | None = None
    max_skipped: int = 10
    shared_optimizer: bool = True
    reuse: Reuse = field(default_factory=Reuse)

    def __reduce__(self) -> tuple[Any, ...]:
        # Statistics go by themselves: sent to a process, torch puts them in shared memory.
        content = cloudpickle.dumps(tuple(getattr(self, each.name) for each in fields(self)))
        return _rebuilt, (content, list(self.objective.returns.statistics.values()))

    def gradient_steps(
        self,
        network: ActorCritic,
        batch: RolloutBatch,
        env_steps: int,
        seed: tuple[int, ...],
        observe: Observer | None = None,
    ) -> Iterator[GradientStep]:
        """Yield the losses of an update; see `Reuse.gradient_steps`.

        Args:
            network: the network whose parameters receive the gradient.
            batch: transitions, [T, B].
            env_steps: those used before the update.
            seed: of the minibatches; another one for each update.
            observe: shown what the first targets are made from.
        """
        entropy = self.rates.entropy_at(env_steps)
        return self.reuse.gradient_steps(self.objective, network, batch, entropy, observe, seed)

    def metrics(self, made: Sequence[GradientStep]) -> Iterator[dict[str, Tensor]]:
        """Yield metrics of each pass of an update, of the steps that were made."""
        return self.reuse.metrics(self.objective, made)

    def make_guard(self) -> UpdateGuard:
        """Build the guard that clips gradients, and finds updates that must be skipped."""
        return UpdateGuard(self.max_grad_norm, self.max_skipped)


def _rebuilt(content: bytes, statistics: list[Tensor]) -> Learning:
    learning = Learning(*pickle.loads(content))
    for copied, sent in zip(learning.objective.returns.statistics.values(), statistics, strict=True):
        copied.set_(sent)  # type: ignore[call-overload]  # the memory of the one that was sent
    return learning
