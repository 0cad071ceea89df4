"""From (network, batch) to (loss, metrics): the one place where network, estimator and losses meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.learner.losses import (
    REDUCTIONS,
    MaskedReduction,
    clipped_surrogate_loss,
    entropy_loss,
    policy_gradient_loss,
    value_loss,
)
from a3c.learner.measures import Trace, metrics_of
from a3c.learner.steps import Judged, Steps
from a3c.networks.actor_critic import ActorCritic
from a3c.peers.agreement import Moments, average, pooled, take_over
from a3c.returns import ReturnEstimator, Targets
from a3c.returns.normalised import normalised

VALUE_LOSSES = ("squared_error", "huber")


def is_above_0(value: Any) -> bool:
    """Return whether something is a finite number above 0."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


class Estimation(NamedTuple):
    """What an estimator is asked in the middle of an objective, and what it gave.

    Attributes:
        batch: transitions, [T, B]; rewards are multiplied by `reward_scale`.
        values: the critic's values of all observations, without gradient, [T+1, B].
        log_probs: log π(a|s) of the taken actions, with their gradient, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        targets: of the estimator that trains.
    """

    batch: RolloutBatch
    values: Tensor
    log_probs: Tensor
    discounts: Tensor
    targets: Targets

    def ask(self, estimator: ReturnEstimator) -> Targets:
        """Return what another estimator makes of the same batch.

        Raises:
            ValueError: its targets are not [T, B].
        """
        return estimate(estimator, self.batch, self.values, self.log_probs, self.discounts)


Observer = Callable[[Estimation], None]


@torch.no_grad()
def estimate(
    estimator: ReturnEstimator, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor
) -> Targets:
    """Return an estimator's targets, without gradient, once their shapes are checked.

    Raises:
        ValueError: they are not [T, B].
    """
    targets = Targets(*estimator(batch, values, log_probs, discounts))
    for name, target in zip(targets._fields, targets, strict=True):
        if target is not None and target.shape != batch.rewards.shape:  # it would broadcast in silence
            got, expected = tuple(target.shape), tuple(batch.rewards.shape)
            raise ValueError(f"{type(estimator).__name__} gives {name} {got}, must be [T, B] = {expected}")
    return targets


@dataclass(frozen=True)
class Objective:
    """The actor-critic objective with its coefficients; the same in every update mode.

    Attributes:
        returns: estimator of advantages and value targets.
        discount: γ, in [0, 1].
        value_coefficient: weight of the value loss beside the policy loss, ≥ 0.
        entropy_coefficient: weight of the entropy bonus, ≥ 0.
        reward_scale: factor on rewards before returns are estimated, > 0; values are then learned
            in scaled units, while the returns that are logged stay the environment's own.
        value_loss: "squared_error" or "huber".
        huber_delta: where the Huber loss turns from square to linear, > 0.
        reduction: "mean" over real steps, or their "sum".
        normalise_advantages: bring advantages to mean 0 and standard deviation 1 over the batch's real steps,
            for the policy loss alone.
        ratio_clip: ε > 0 of PPO's clipped surrogate, against the policy that acted; None for the plain policy
            gradient.

    Raises:
        ValueError: a value outside its range.
    """

    returns: ReturnEstimator
    discount: float = 0.99
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.0
    reward_scale: float = 1.0
    value_loss: str = "squared_error"
    huber_delta: float = 1.0
    reduction: str = "mean"
    normalise_advantages: bool = False
    ratio_clip: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount: got {self.discount}, must be between 0 and 1")
        for name in ("value_coefficient", "entropy_coefficient"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name}: got {getattr(self, name)}, must be at least 0 and finite")
        if self.value_loss not in VALUE_LOSSES:
            raise ValueError(f"value_loss: got {self.value_loss!r}, must be one of {', '.join(VALUE_LOSSES)}")
        for name in ("huber_delta", "reward_scale"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name}: got {getattr(self, name)}, must be above 0 and finite")
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction: got {self.reduction!r}, must be one of {', '.join(REDUCTIONS)}")
        self._check_ratio_clip()

    def _check_ratio_clip(self) -> None:
        if self.ratio_clip is None:
            return
        if not is_above_0(self.ratio_clip):
            raise ValueError(f"ratio_clip: got {self.ratio_clip!r}, must be above 0 and finite, or null")
        if self.returns.carries_ratios:
            raise ValueError(
                f"ratio_clip: got {self.ratio_clip} with {type(self.returns).__name__}, must be null there: its "
                "advantages are multiplied by importance ratios already"
            )

    def __call__(
        self,
        network: ActorCritic,
        batch: RolloutBatch,
        entropy_coefficient: float | None = None,
        observe: Observer | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and what went into it.

        Args:
            network: the network whose parameters receive the gradient.
            batch: transitions, [T, B].
            entropy_coefficient: the one in force now, where it is scheduled.
            observe: shown what the loss is made from, while its graph is there; changes nothing.

        Returns:
            The scalar to minimise, and detached scalars by metric key; the loss terms among them
            are without their coefficients.

        Raises:
            ValueError: the estimator's targets are not [T, B].
        """
        judged, estimation = self.estimate(network, batch)
        loss, trace = self.loss(network, judged, self.lesson(estimation), entropy_coefficient)
        if observe is not None:
            observe(estimation)
        return loss, self.metrics([trace])

    def estimate(self, network: ActorCritic, batch: RolloutBatch) -> tuple[Judged, Estimation]:
        """Return what a network and the estimator make of a batch as it was collected, [T, B].

        Raises:
            ValueError: the estimator's targets are not [T, B].
        """
        if self.reward_scale != 1.0:
            batch = batch._replace(rewards=batch.rewards * self.reward_scale)
        policy, values = network.judge_batch(batch)
        log_probs = policy.log_prob(batch.actions)
        discounts = self.discount * (~batch.terminated).to(values.dtype)
        targets = estimate(self.returns, batch, values, log_probs, discounts)
        return Judged(policy, log_probs, values[:-1]), Estimation(batch, values.detach(), log_probs, discounts, targets)

    def lesson(self, estimation: Estimation) -> Steps:
        """Return the steps of a batch with what is to be learned of them."""
        batch, targets = estimation.batch, estimation.targets
        credit = targets.advantages
        if self.normalise_advantages:
            credit = normalised(credit, batch.mask, lambda moments: pooled(Moments(*moments)))
        return Steps.of(batch, estimation.log_probs, targets, credit)

    def loss(
        self, network: ActorCritic, judged: Judged, steps: Steps, entropy_coefficient: float | None = None
    ) -> tuple[Tensor, Trace]:
        """Return the loss of steps, and what of it can be measured.

        Args:
            network: the network whose parameters receive the gradient.
            judged: what it makes of these steps.
            steps: a whole batch or a minibatch.
            entropy_coefficient: the one in force now, where it is scheduled.
        """
        if entropy_coefficient is None:
            entropy_coefficient = self.entropy_coefficient
        # No bonus, no gradient: the entropy is then only looked at, which saves its backward pass.
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_coefficient > 0):
            entropies = judged.policy.entropy()
        reduce = MaskedReduction(steps.mask, self.reduction, steps.weights)
        policy_term = self._policy_loss(judged.log_probs, steps, reduce)
        huber_delta = self.huber_delta if self.value_loss == "huber" else None
        unit = None if network.value_unit is None else network.value_unit.to(judged.values.dtype)
        value_term = value_loss(judged.values, steps.value_targets, reduce, huber_delta, unit)
        entropy_term = entropy_loss(entropies, reduce)
        loss = policy_term + self.value_coefficient * value_term
        if entropy_coefficient > 0:
            loss = loss + entropy_coefficient * entropy_term
        terms = {"total": loss, "policy": policy_term, "value": value_term, "entropy": entropy_term}
        trace = Trace(
            steps.mask,
            steps.behaviour_log_probs,
            steps.advantages,
            steps.value_targets,
            judged.log_probs.detach(),
            judged.values.detach(),
            entropies.detach(),
            {f"loss/{name}": term.detach() for name, term in terms.items()},
        )
        return loss, trace

    @torch.no_grad()
    def metrics(self, traces: Sequence[Trace]) -> dict[str, Tensor]:
        """Return metrics of the losses of a pass; the loss terms among them are without their coefficients."""
        return metrics_of(Trace.joined(traces), self.ratio_clip)

    @torch.no_grad()
    def take_in(self, network: ActorCritic, estimation: Estimation) -> None:
        """Have the statistics of network and estimator follow an update that has been made.

        Not before: the batch was acted on, and judged, with those of then. All learners of a run have the same
        afterwards: of their steps together, what an estimator keeps the mean of theirs, and what a network keeps
        by itself (the moments of a BatchNorm) the first one's.

        Args:
            network: the one that was updated.
            estimation: what the update's first targets were made from.
        """
        batch, values, log_probs, discounts, targets = estimation
        if network.keeps_statistics:
            network.take_in(batch.observations[:-1][batch.mask], targets.value_targets[batch.mask])
        self.returns.take_in(batch, values, log_probs, discounts)
        take_over(network.buffers())
        average(self.returns.statistics.values())

    def _policy_loss(self, log_probs: Tensor, steps: Steps, reduce: MaskedReduction) -> Tensor:
        if self.ratio_clip is None:
            return policy_gradient_loss(log_probs, steps.credit, reduce)
        return clipped_surrogate_loss(log_probs, steps.behaviour_log_probs, steps.credit, self.ratio_clip, reduce)
