"""Other corrections by importance ratios: Retrace, and the simpler ones that V-trace was compared with."""

from __future__ import annotations

from typing import Literal, get_args

import torch
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
from a3c.returns.ratios import importance_ratios, self_normalised_ratios
from a3c.returns.recursions import lambda_returns, trace_cuts
from a3c.returns.vtrace import corrected_targets

Correction = Literal["untruncated", "weighted", "one_step", "none"]


class Retrace(ReturnEstimator):
    """Retrace(λ) with the critic's V in the place of Q: Munos et al. (2016), arXiv:1606.02647, eq. 3.

    The return of the action taken is gₜ = rₜ + γₜ·(Vₜ₊₁ + cₜ₊₁·(gₜ₊₁ − Vₜ₊₁)), with cₜ = λ·min(1, wₜ) and
    w = π(a|s) / μ(a|s). As in ACER (Wang et al. 2017, arXiv:1611.01224, section 5.1), the value target is
    Vₜ + min(1, wₜ)·(gₜ − Vₜ); the advantages are that less Vₜ. These are the numbers of `VTrace` with clips of 1 and
    the same λ.

    Args:
        n_steps: steps of a rollout.
        lambda_: λ, from 0 (one-step) to 1.

    Raises:
        ValueError: n_steps < 1 or no whole number, or lambda_ outside [0, 1].
    """

    carries_ratios = True
    advantages_are_errors = True

    def __init__(self, n_steps: int = 32, lambda_: float = 1.0) -> None:
        check_n_steps(n_steps)
        check_range("lambda_", lambda_, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.lambda_ = lambda_

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts, log_probs=log_probs)
        values = values.detach()
        clipped = importance_ratios(batch, log_probs).clamp(max=1)
        next_c = self.lambda_ * torch.cat((clipped[1:], clipped[-1:]))  # the last row is cut
        lambdas = next_c.masked_fill(trace_cuts(batch), 0)
        returns = lambda_returns(real_rewards(batch), discounts, zero_masked(values[1:], batch), lambdas)
        advantages = clipped * (returns - values[:-1])
        return Targets(advantages, values[:-1] + advantages)


class ImportanceSampled(ReturnEstimator):
    """N-step returns with importance sampling by the book, or as V-trace was compared with it.

    With w = π(a|s) / μ(a|s), by `correction`; the last two are those of IMPALA, arXiv:1802.01561, section 5.2.2:

    - "untruncated": `VTrace` without clips, ρₜ = cₜ = wₜ. The products of ratios have no bound.
    - "weighted": the same, with ratios divided by their mean over the batch's real steps, which is self-normalised
      importance sampling (Owen 2013, Monte Carlo theory, methods and examples, section 9.2).
    - "one_step": value targets as if the policy had acted, advantages multiplied by wₜ ("1-step importance sampling").
    - "none": both as if the policy had acted ("no correction").

    One ratio is at most e⁵⁰.

    Args:
        n_steps: steps of a rollout.
        correction: as above.

    Raises:
        ValueError: n_steps < 1 or no whole number, or another correction.
    """

    def __init__(self, n_steps: int = 32, correction: Correction = "untruncated") -> None:
        check_n_steps(n_steps)
        if correction not in get_args(Correction):
            raise ValueError(f"correction: got {correction!r}, must be one of {', '.join(get_args(Correction))}")
        self.n_steps = self.horizon = n_steps
        self.correction = correction
        self.carries_ratios = correction != "none"
        self.advantages_are_errors = correction == "none"

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts, log_probs=log_probs)
        ratios_of = self_normalised_ratios if self.correction == "weighted" else importance_ratios
        ratios = ratios_of(batch, log_probs)
        if self.correction in ("untruncated", "weighted"):
            return corrected_targets(batch, values, discounts, ratios, ratios)
        plain = lambda_targets(batch, values, discounts)
        return plain._replace(advantages=ratios * plain.advantages) if self.carries_ratios else plain
