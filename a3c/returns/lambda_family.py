"""Estimators that mix bootstrapped and longer returns by a weight λ: FullEpisode, NStep and GAE."""

from __future__ import annotations

from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import ReturnEstimator, Targets, check_n_steps, check_range, check_shapes, real_rewards
from a3c.returns.recursions import lambda_returns, trace_cuts


class FullEpisode(ReturnEstimator):
    """Monte-Carlo returns of whole episodes; a truncated one is completed by the critic.

    Sutton & Barto, Reinforcement Learning (2nd ed.), section 13.4.
    """

    horizon = None
    end_at_episode = True

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return _lambda_targets(batch, values, discounts, 1.0, None)


class NStep(ReturnEstimator):
    """Rewards of up to n steps, then the critic: Mnih et al. (2016), arXiv:1602.01783, alg. S3.

    ``NStep(1)`` is the one-step actor-critic.

    Args:
        n_steps: steps of a rollout, and from one cut to the next.
        end_at_episode: stop a rollout at its episode's end, as the paper's loop does, instead of
            running on into the next episode.

    Raises:
        ValueError: n_steps < 1 or no whole number.
    """

    def __init__(self, n_steps: int = 32, end_at_episode: bool = False) -> None:
        check_n_steps(n_steps)
        self.n_steps = self.horizon = n_steps
        self.end_at_episode = end_at_episode

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return _lambda_targets(batch, values, discounts, 1.0, self.n_steps)


class GAE(ReturnEstimator):
    """Generalised advantage estimation: Schulman et al. (2016), arXiv:1506.02438, eq. 16.

    Args:
        n_steps: steps of a rollout.
        lambda_: λ, from 0 (one-step: little variance, the critic's bias) to 1 (N-step).

    Raises:
        ValueError: n_steps < 1 or no whole number, or lambda_ outside [0, 1].
    """

    def __init__(self, n_steps: int = 32, lambda_: float = 0.95) -> None:
        check_n_steps(n_steps)
        check_range("lambda_", lambda_, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.lambda_ = lambda_

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return _lambda_targets(batch, values, discounts, self.lambda_, None)


def _lambda_targets(
    batch: RolloutBatch, values: Tensor, discounts: Tensor, lambda_: float, n_steps: int | None
) -> Targets:
    check_shapes(batch, values, discounts=discounts)
    values = values.detach()
    rewards = real_rewards(batch)
    lambdas = (~trace_cuts(batch, n_steps)).to(values.dtype)
    if lambda_ != 1.0:
        lambdas = lambdas * lambda_
    targets = lambda_returns(rewards, discounts, values[1:], lambdas)
    return Targets(targets - values[:-1], targets)
