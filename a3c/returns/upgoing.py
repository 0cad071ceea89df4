"""Estimators that learn from what went better than expected: UPGO and PositiveOnly."""

from __future__ import annotations

from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import (
    ReturnEstimator,
    Targets,
    check_n_steps,
    check_range,
    check_shapes,
    real_rewards,
    zero_masked,
)
from a3c.returns.lambda_family import lambda_targets
from a3c.returns.ratios import importance_ratios
from a3c.returns.recursions import trace_cuts, upgoing_returns
from a3c.returns.wrapper import Wrapper


class UPGO(ReturnEstimator):
    """Upgoing policy update: Vinyals et al. (2019), AlphaStar, Nature 575, methods.

    The advantage is min(1, w)·(Gₜ − Vₜ) with w = π(a|s) / μ(a|s) and
    Gₜ = rₜ + γₜ·(Gₜ₊₁ if rₜ₊₁ + γₜ₊₁·Vₜ₊₂ ≥ Vₜ₊₁ else Vₜ₊₁): a rollout is followed while it does at least as well as
    expected. The critic learns λ-returns, as there, without correction. AlphaStar adds this term to one of V-trace;
    here it stands alone.

    Args:
        n_steps: steps of a rollout.
        lambda_: λ of the value targets, in [0, 1].

    Raises:
        ValueError: n_steps < 1 or no whole number, or lambda_ outside [0, 1].
    """

    carries_ratios = True

    def __init__(self, n_steps: int = 32, lambda_: float = 0.8) -> None:
        check_n_steps(n_steps)
        check_range("lambda_", lambda_, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.lambda_ = lambda_

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts, log_probs=log_probs)
        values = values.detach()
        current, following = values[:-1], zero_masked(values[1:], batch)
        returns = upgoing_returns(real_rewards(batch), discounts, current, following, trace_cuts(batch))
        ratios = importance_ratios(batch, log_probs).clamp(max=1)
        critic = lambda_targets(batch, values, discounts, self.lambda_)
        return Targets(ratios * (returns - current), critic.value_targets)


class PositiveOnly(Wrapper):
    """Clamps another estimator's advantages at 0 from below; the critic learns from everything.

    max(0, A): the actor learns only from actions that turned out better than expected, as in CACLA (van Hasselt &
    Wiering 2007, "Reinforcement learning in continuous action spaces"), where though the size of A does not count, and
    as in self-imitation learning (Oh et al. 2018, arXiv:1806.05635), where it does, and where the critic too
    learns from these alone.

    Args:
        estimator: the one whose advantages are clamped.
    """

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        inner = self.estimator(batch, values, log_probs, discounts)
        return inner._replace(advantages=inner.advantages.clamp(min=0))
