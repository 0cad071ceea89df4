"""How often an update uses its batch: passes over it, and minibatches of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.envs.random_states import derived_seed
from a3c.learner.losses import MaskedReduction
from a3c.learner.measures import OF_PASSES, Trace
from a3c.learner.objective import Estimation, Objective, Observer, is_above_0
from a3c.learner.steps import Judged, Steps
from a3c.networks.actor_critic import ActorCritic
from a3c.peers.agreement import Moments, pooled
from a3c.returns import ReturnEstimator

MOST_STEPS = 10_000  # of an update, all of which are kept to be measured


class GradientStep(NamedTuple):
    """One of the steps that an update consists of.

    Attributes:
        loss: the scalar to minimise.
        trace: what of it can be measured.
        number: of the pass, from 1.
        estimation: what the update's first targets were made from.
        is_last: no other is meant to follow.
    """

    loss: Tensor
    trace: Trace
    number: int
    estimation: Estimation
    is_last: bool


@dataclass(frozen=True)
class Reuse:
    """How a batch becomes the gradient steps of one update.

    Attributes:
        passes: over the batch, ≥ 1.
        minibatches: of a pass, ≥ 1: of whole columns where the network has a memory or the rollouts are cut at
            episodes, of single steps elsewhere.
        target_kl: the update ends before a step, but its first, whose minibatch is further than so many nats, > 0, from
            the policy that it began with; None for no such end.
        recompute_targets: the targets are worked out anew for each pass; False keeps those of the first.

    Raises:
        ValueError: a value outside its range, or a `target_kl` that would change nothing.
    """

    passes: int = 1
    minibatches: int = 1
    target_kl: float | None = None
    recompute_targets: bool = False

    def __post_init__(self) -> None:
        for name in ("passes", "minibatches"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: got {value!r}, must be a whole number, at least 1")
            object.__setattr__(self, name, int(value))  # NumPy's are none that a checkpoint takes
        if self.passes * self.minibatches > MOST_STEPS:
            name, other = sorted(("passes", "minibatches"), key=lambda each: -getattr(self, each))
            raise ValueError(
                f"{name}: got {getattr(self, name)} with {other} {getattr(self, other)}, must be at most "
                f"{MOST_STEPS:,} gradient steps an update together"
            )
        if self.target_kl is not None and not is_above_0(self.target_kl):
            raise ValueError(f"target_kl: got {self.target_kl!r}, must be above 0 and finite, or null")
        if not isinstance(self.recompute_targets, bool):
            raise ValueError(f"recompute_targets: got {self.recompute_targets!r}, must be true or false")
        if self.target_kl is not None and self.is_single:
            raise ValueError(
                f"target_kl: got {self.target_kl} with passes 1 and minibatches 1, must be null there: an update "
                "of one step has no further ones to leave out"
            )

    @property
    def is_single(self) -> bool:
        """Whether an update is one step, on the whole batch."""
        return self.passes == self.minibatches == 1

    def check(self, returns: ReturnEstimator, columns: int, has_memory: bool) -> None:
        """Refuse what cannot be done with the batches of a run.

        Args:
            returns: its estimator.
            columns: of a batch.
            has_memory: of the network.

        Raises:
            ValueError: the flag, what was given, and what is allowed.
        """
        if not (self.is_single or returns.reusable):
            name = "passes" if self.passes > 1 else "minibatches"
            raise ValueError(
                f"{name}: got {getattr(self, name)} with {type(returns).__name__}, must be 1 there: its targets are "
                "for one step on the whole batch"
            )
        flags, size = "envs_per_worker × rollouts_per_update", columns
        if not _by_columns(returns, has_memory):
            assert returns.horizon is not None, "it needs no segments"
            flags, size = f"{flags} × n_steps", columns * returns.horizon
        if size % self.minibatches:
            raise ValueError(f"minibatches: got {self.minibatches}, must divide {flags} = {size}")

    def gradient_steps(
        self,
        objective: Objective,
        network: ActorCritic,
        batch: RolloutBatch,
        entropy_coefficient: float | None = None,
        observe: Observer | None = None,
        seed: tuple[int, ...] = (0,),
    ) -> Iterator[GradientStep]:
        """Yield the losses of an update; each is made when it is asked for, with the weights of then.

        Args:
            objective: the loss.
            network: the network whose parameters receive the gradient.
            batch: transitions, [T, B].
            entropy_coefficient: the one in force now, where it is scheduled.
            observe: shown what the first targets are made from, while their graph is there; changes nothing.
            seed: of the minibatches; another one for each update.

        Raises:
            ValueError: the estimator's targets are not [T, B].
        """
        generator = torch.Generator().manual_seed(derived_seed(*seed)) if self.minibatches > 1 else None
        by_columns = _by_columns(objective.returns, network.initial_state(1) is not None)
        first: Estimation | None = None
        for number in range(1, self.passes + 1):
            judged = None
            if first is None or self.recompute_targets:
                with torch.set_grad_enabled(generator is None or observe is not None):
                    judged, estimation = objective.estimate(network, batch)
                if first is None and observe is not None:
                    observe(estimation)
                first = first or estimation
                steps = objective.lesson(estimation)._replace(first_log_probs=first.log_probs.detach())
            parts = [steps] if generator is None else steps.minibatches(self.minibatches, by_columns, generator)
            for place, part in enumerate(parts, 1):
                if generator is not None or judged is None:  # else it is what the targets were made from
                    judged = part.judged_by(network)
                if (number, place) > (1, 1) and self._is_too_far(judged, part):
                    return
                loss, trace = objective.loss(network, judged, part, entropy_coefficient)
                is_last = number == self.passes and place == len(parts)
                yield GradientStep(loss, trace, number, first, is_last)

    def _is_too_far(self, judged: Judged, steps: Steps) -> bool:
        if self.target_kl is None:
            return False
        log_ratios = judged.log_probs.detach() - steps.first_log_probs
        kl = MaskedReduction(steps.mask, "mean")(torch.expm1(log_ratios) - log_ratios)
        kl = pooled(Moments(int(steps.mask.sum()), kl, kl)).mean
        return bool(kl > self.target_kl)  # one of NaN is left to the guard of updates

    def metrics(self, objective: Objective, made: Sequence[GradientStep]) -> Iterator[dict[str, Tensor]]:
        """Yield metrics of each pass of an update, some of them under a key of that pass's own.

        Args:
            objective: the loss.
            made: the steps that were made.
        """
        for number, steps in groupby(made, lambda step: step.number):
            metrics = objective.metrics([step.trace for step in steps])
            if not self.is_single:
                metrics |= {f"pass_{number}/{name}": metrics[key] for key, name in OF_PASSES.items() if key in metrics}
            yield metrics


def _by_columns(returns: ReturnEstimator, has_memory: bool) -> bool:
    """Whether minibatches are of whole columns: what stands in one is remembered, or is an episode."""
    return has_memory or returns.needs_segments
