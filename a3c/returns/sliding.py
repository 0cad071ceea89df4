"""Estimators in which every step looks equally far ahead, instead of up to where its rollout ends."""

from __future__ import annotations

from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import (
    ReturnEstimator,
    Targets,
    check_n_steps,
    check_range,
    check_shapes,
    check_steps,
)
from a3c.returns.recursions import sliding_returns, trace_cuts


class SlidingNStep(ReturnEstimator):
    """Rewards of the next k steps, then the critic, from every step: Sutton & Barto (2nd ed.), eq. 7.1.

    Gₜ = rₜ + γ·rₜ₊₁ + … + γᵏ⁻¹·rₜ₊ₖ₋₁ + γᵏ·Vₜ₊ₖ. `NStep` looks less and less far as its rollout ends; here only
    the last k − 1 steps of a rollout, and those before an episode's end, look less far than k.

    Args:
        n_steps: steps of a rollout.
        lookahead: k, from 1, TD(0), to n_steps, `NStep`.

    Raises:
        ValueError: n_steps < 1, lookahead outside 1 to n_steps, or either no whole number.
    """

    advantages_are_errors = True

    def __init__(self, n_steps: int = 32, lookahead: int = 5) -> None:
        check_n_steps(n_steps)
        check_steps("lookahead", lookahead, n_steps)
        self.n_steps = self.horizon = n_steps
        self.lookahead = lookahead

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        targets = _sliding(batch, values, discounts, self.lookahead)
        return Targets(targets - values[:-1].detach(), targets)


class Compound(ReturnEstimator):
    """Weighted average of two sliding n-step returns: Daley et al. (2024), arXiv:2402.03903, two-bootstrap returns.

    Gₜ = (1 − weight)·Gₜ⁽ˢʰᵒʳᵗ⁾ + weight·Gₜ⁽ˡᵒⁿᵍ⁾. It can have a smaller variance than the n-step return that contracts
    as fast, and needs, unlike a λ-return, no more than `long` steps.

    Args:
        n_steps: steps of a rollout.
        short: steps that one return looks ahead.
        long: steps that the other looks ahead.
        weight: of the longer one, in [0, 1].

    Raises:
        ValueError: not 1 ≤ short ≤ long ≤ n_steps, one of them no whole number, or weight outside [0, 1].
    """

    advantages_are_errors = True

    def __init__(self, n_steps: int = 32, short: int = 1, long: int = 10, weight: float = 0.5) -> None:
        check_n_steps(n_steps)
        check_steps("long", long, n_steps)
        check_steps("short", short, long)
        check_range("weight", weight, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.short = short
        self.long = long
        self.weight = weight

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        short = _sliding(batch, values, discounts, self.short)
        targets = short.lerp(_sliding(batch, values, discounts, self.long), self.weight)
        return Targets(targets - values[:-1].detach(), targets)


def _sliding(batch: RolloutBatch, values: Tensor, discounts: Tensor, lookahead: int) -> Tensor:
    check_shapes(batch, values, discounts=discounts)
    # Masked steps stand behind a cut, where what follows is not looked at, be it NaN.
    return sliding_returns(batch.rewards, discounts, values[1:].detach(), trace_cuts(batch), lookahead)
