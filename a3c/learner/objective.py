"""From (network, batch) to (loss, metrics): the one place where network, estimator and losses meet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.learner.losses import REDUCTIONS, MaskedReduction, entropy_loss, policy_gradient_loss, value_loss
from a3c.networks.actor_critic import ActorCritic
from a3c.returns import ReturnEstimator, Targets
from a3c.returns.normalised import normalised
from a3c.returns.ratios import MAX_LOG_RATIO

VALUE_LOSSES = ("squared_error", "huber")
RATIO_TOLERANCE = 1e-3  # above 1: the same policy, worked out in another batch, differs by rounding


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


class Seen(NamedTuple):
    """Copies of what a network's statistics follow, of the N real steps of a batch; see `ActorCritic.take_in`."""

    observations: Tensor
    value_targets: Tensor

    @classmethod
    def of(cls, estimation: Estimation) -> Seen:
        """Return the observations that were acted on, and the critic's targets."""
        mask = estimation.batch.mask
        return cls(estimation.batch.observations[:-1][mask], estimation.targets.value_targets[mask])


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
        if entropy_coefficient is None:
            entropy_coefficient = self.entropy_coefficient
        if self.reward_scale != 1.0:
            batch = batch._replace(rewards=batch.rewards * self.reward_scale)
        policy, values = network.judge_batch(batch)
        log_probs = policy.log_prob(batch.actions)
        # No bonus, no gradient: the entropy is then only looked at, which saves its backward pass.
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_coefficient > 0):
            entropies = policy.entropy()

        discounts = self.discount * (~batch.terminated).to(values.dtype)
        targets = estimate(self.returns, batch, values, log_probs, discounts)

        reduce = MaskedReduction(batch.mask, self.reduction, targets.weights)
        advantages = normalised(targets.advantages, batch.mask) if self.normalise_advantages else targets.advantages
        policy_term = policy_gradient_loss(log_probs, advantages, reduce)
        huber_delta = self.huber_delta if self.value_loss == "huber" else None
        unit = None if network.value_unit is None else network.value_unit.to(values.dtype)
        value_term = value_loss(values[:-1], targets.value_targets, reduce, huber_delta, unit)
        entropy_term = entropy_loss(entropies, reduce)
        loss = policy_term + self.value_coefficient * value_term
        if entropy_coefficient > 0:
            loss = loss + entropy_coefficient * entropy_term

        with torch.no_grad():
            unweighted = targets.weights is None and self.reduction == "mean"
            mean = reduce if unweighted else MaskedReduction(batch.mask, "mean")
            metrics = {
                "loss/total": loss.detach(),
                "loss/policy": policy_term.detach(),
                "loss/value": value_term.detach(),
                "loss/entropy": entropy_term.detach(),
                "policy/entropy": mean(entropies),
                "value/mean": mean(values[:-1]),
                "value/target_mean": mean(targets.value_targets),
                "advantage/mean": mean(targets.advantages),
                **off_policy_metrics(log_probs.detach(), batch, mean),
            }
        if observe is not None:
            observe(Estimation(batch, values.detach(), log_probs, discounts, targets))
        return loss, metrics


def off_policy_metrics(log_probs: Tensor, batch: RolloutBatch, mean: MaskedReduction) -> dict[str, Tensor]:
    """Measure how far the policy has moved from the one that acted, on the actions taken.

    With w = π(a|s) / μ(a|s) and n real steps: the share of steps with w above 1, which V-trace's
    default clips cut; the effective sample size (Σw)² / (n·Σw²), a fraction of n; and KL(μ‖π) by
    the mean of w − 1 − log w, which is unbiased and never negative (Schulman, Approximating KL
    Divergence, 2020).

    Args:
        log_probs: log π(a|s) under the current policy, [T, B].
        batch: transitions.
        mean: over the batch's real steps.
    """
    log_ratios = log_probs - batch.behaviour_log_probs
    excess = torch.expm1(log_ratios.clamp(max=MAX_LOG_RATIO))  # w − 1, exact where w is close to 1
    # The sample size is the same for all w multiplied by one factor: the largest is made 1.
    ratios = (log_ratios - log_ratios.masked_fill(~batch.mask, -torch.inf).max()).exp()
    return {
        "importance/clip_fraction": mean((excess > RATIO_TOLERANCE).to(ratios.dtype)),
        "importance/effective_sample_size": mean(ratios).square() / mean(ratios.square()).clamp(min=1e-12),
        "policy/kl_from_behaviour": mean(excess - log_ratios),
    }
