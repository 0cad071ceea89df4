"""Estimators that correct for the policy that acted by importance ratios."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import ReturnEstimator, Targets, check_n_steps, check_range, check_shapes, real_rewards
from a3c.returns.recursions import trace_cuts, vtrace_targets


class VTrace(ReturnEstimator):
    """Off-policy corrected N-step returns: Espeholt et al. (2018), IMPALA, arXiv:1802.01561.

    With the policy that acted the importance ratios are 1, and with clips of at least 1 it equals
    `NStep`.

    Args:
        n_steps: steps of a rollout.
        rho_clip: ρ̄, clip of the errors' weights; it decides which policy's values are learned.
        c_clip: c̄, clip of the trace weights; it decides how fast.

    Raises:
        ValueError: n_steps < 1 or no whole number, or a clip below 0.
    """

    carries_ratios = True

    def __init__(self, n_steps: int = 32, rho_clip: float = 1.0, c_clip: float = 1.0) -> None:
        check_n_steps(n_steps)
        check_range("rho_clip", rho_clip, 0)
        check_range("c_clip", c_clip, 0)
        self.n_steps = self.horizon = n_steps
        self.rho_clip = rho_clip
        self.c_clip = c_clip

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts, log_probs=log_probs)
        values = values.detach()
        rewards = real_rewards(batch)
        current, following = values[:-1], values[1:]
        ratios = (log_probs.detach() - batch.behaviour_log_probs).exp()
        cuts = trace_cuts(batch)
        errors = rewards + discounts * following - current
        c = ratios.clamp(max=self.c_clip).masked_fill(cuts, 0)
        targets = vtrace_targets(current, errors, discounts, ratios, self.rho_clip, c)
        # The policy gradient looks one step on along the targets, but at a cut along the critic.
        following_targets = torch.cat((targets[1:], following[-1:])).where(~cuts, following)
        advantages = ratios.clamp(max=self.rho_clip) * (rewards + discounts * following_targets - current)
        return Targets(advantages, targets)
