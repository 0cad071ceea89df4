"""Advantages without a critic: an episode against the others of its batch."""

from __future__ import annotations

from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import ReturnEstimator, Targets, check_shapes, real_rewards, zero_masked
from a3c.returns.recursions import linear_recursion, trace_cuts


class GroupBaseline(ReturnEstimator):
    """REINFORCE with a leave-one-out baseline: Kool et al. (2019); Ahmadian et al. (2024), arXiv:2402.14740.

    Column b's advantage at step t is Gₜᵇ less the mean of the other columns' Gₜ, where Gₜ = rₜ + γₜ·Gₜ₊₁ is the reward
    to go. The papers do this for one reward an episode; here each step has its own. An episode that has ended counts
    as 0 in the others' baseline; a single column has the baseline 0. As no column's actions are part of its own
    baseline, it adds no bias.

    No critic is asked: a truncated episode is not bootstrapped, and of a column that stops before its episode does,
    which batches of whole episodes do not have, only the rewards that are there count. The critic's own values are its
    targets, so it learns nothing. Being untrained they cannot be compared with returns, thus their units are "own".

    Each column is taken to begin with its episode: step t is row t.
    """

    horizon = None
    end_at_episode = True
    target_units = "own"

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts)
        within = discounts.masked_fill(trace_cuts(batch), 0)
        returns = zero_masked(linear_recursion(real_rewards(batch), within), batch)
        others = (returns.sum(1, keepdim=True) - returns) / max(batch.columns - 1, 1)
        return Targets(returns - others, values[:-1].detach())
