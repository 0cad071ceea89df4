"""V-trace: value targets and advantages that are corrected, step by step, by importance ratios that are clipped."""

from __future__ import annotations

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
from a3c.returns.ratios import importance_ratios
from a3c.returns.recursions import trace_cuts, vtrace_targets


class VTrace(ReturnEstimator):
    """Off-policy corrected N-step returns: Espeholt et al. (2018), IMPALA, arXiv:1802.01561.

    With w = π(a|s) / μ(a|s), ρₜ = min(ρ̄, wₜ) and cₜ = λ·min(c̄, wₜ), the value targets are
    vₜ = Vₜ + ρₜ·δₜ + γₜ·cₜ·(vₜ₊₁ − Vₜ₊₁) (eq. 1 and remark 2), and the advantages
    ρₜ·(rₜ + γₜ·((1 − λ)·Vₜ₊₁ + λ·vₜ₊₁) − Vₜ) (section 4.2; there λ is 1). With the policy that acted w is 1; with
    clips of at least 1 this is then `GAE`, and with λ = 1 `NStep`.

    Args:
        n_steps: steps of a rollout.
        rho_clip: ρ̄, clip of the errors' weights; it decides which policy's values are learned.
        c_clip: c̄, clip of the trace weights; it decides how fast.
        lambda_: λ, from 0 (one-step) to 1 (N-step).

    Raises:
        ValueError: n_steps < 1 or no whole number, a clip below 0, or lambda_ outside [0, 1].
    """

    carries_ratios = True

    def __init__(self, n_steps: int = 32, rho_clip: float = 1.0, c_clip: float = 1.0, lambda_: float = 1.0) -> None:
        check_n_steps(n_steps)
        check_range("rho_clip", rho_clip, 0)
        check_range("c_clip", c_clip, 0)
        check_range("lambda_", lambda_, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.rho_clip = rho_clip
        self.c_clip = c_clip
        self.lambda_ = lambda_

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts, log_probs=log_probs)
        ratios = importance_ratios(batch, log_probs)
        rhos, c = ratios.clamp(max=self.rho_clip), ratios.clamp(max=self.c_clip)
        return corrected_targets(batch, values, discounts, rhos, c, self.lambda_)


class LeakyVTrace(ReturnEstimator):
    """V-trace whose clipped ratios let a part of the whole ones through: Zahavy et al. (2020), arXiv:2002.12928.

    `VTrace` with ρₜ = α_ρ·min(ρ̄, wₜ) + (1 − α_ρ)·wₜ and cₜ = λ·(α_c·min(c̄, wₜ) + (1 − α_c)·wₜ). The paper learns α_ρ
    and α_c; here they stay what they are. With both 1 it is `VTrace`, with both 0 untruncated `ImportanceSampled`,
    whose products of ratios have no bound.

    Args:
        n_steps: steps of a rollout.
        alpha_rho: α_ρ, the clipped part of the errors' weights, in [0, 1].
        alpha_c: α_c, the clipped part of the trace weights, in [0, 1].
        rho_clip: ρ̄.
        c_clip: c̄.
        lambda_: λ, from 0 (one-step) to 1 (N-step).

    Raises:
        ValueError: n_steps < 1 or no whole number, a clip below 0, or another argument outside [0, 1].
    """

    carries_ratios = True

    def __init__(
        self,
        n_steps: int = 32,
        alpha_rho: float = 0.9,
        alpha_c: float = 0.9,
        rho_clip: float = 1.0,
        c_clip: float = 1.0,
        lambda_: float = 1.0,
    ) -> None:
        check_n_steps(n_steps)
        for name, clip in (("rho_clip", rho_clip), ("c_clip", c_clip)):
            check_range(name, clip, 0)
        for name, fraction in (("alpha_rho", alpha_rho), ("alpha_c", alpha_c), ("lambda_", lambda_)):
            check_range(name, fraction, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.alpha_rho = alpha_rho
        self.alpha_c = alpha_c
        self.rho_clip = rho_clip
        self.c_clip = c_clip
        self.lambda_ = lambda_

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts, log_probs=log_probs)
        ratios = importance_ratios(batch, log_probs)
        rhos = _leaky(ratios, self.rho_clip, self.alpha_rho)
        c = _leaky(ratios, self.c_clip, self.alpha_c)
        return corrected_targets(batch, values, discounts, rhos, c, self.lambda_)


def corrected_targets(
    batch: RolloutBatch, values: Tensor, discounts: Tensor, rhos: Tensor, c: Tensor, lambda_: float = 1.0
) -> Targets:
    """Return V-trace's value targets and advantages, whatever the weights are; formulas in `VTrace`.

    Args:
        batch: transitions, [T, B].
        values: the critic's values of all observations, [T+1, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        rhos: ρₜ, the errors' weights, finite, [T, B].
        c: the trace weights before λ is on them, and traces are cut, finite, [T, B].
        lambda_: λ, in [0, 1].
    """
    values = values.detach()
    rewards = real_rewards(batch)
    current, following = values[:-1], values[1:]
    cuts = trace_cuts(batch)
    errors = zero_masked(rewards + discounts * following - current, batch)
    targets = vtrace_targets(current, errors, discounts, rhos, (lambda_ * c).masked_fill(cuts, 0))
    # The policy gradient looks one step on along the targets, but at a cut along the critic.
    next_targets = torch.cat((targets[1:], following[-1:]))
    looked_at = torch.lerp(following, next_targets, lambda_).where(~cuts, following)
    return Targets(rhos * (rewards + discounts * looked_at - current), targets)


def _leaky(ratios: Tensor, clip: float, alpha: float) -> Tensor:
    return alpha * ratios.clamp(max=clip) + (1 - alpha) * ratios
