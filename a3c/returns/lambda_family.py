"""Estimators that mix bootstrapped and longer returns by a weight λ: FullEpisode, NStep, GAE and their kin."""

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
from a3c.returns.recursions import lambda_returns, trace_cuts


class FullEpisode(ReturnEstimator):
    """Monte-Carlo returns of whole episodes; a truncated one is completed by the critic.

    Sutton & Barto, Reinforcement Learning (2nd ed.), section 13.4.
    """

    horizon = None
    advantages_are_errors = True
    end_at_episode = True

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return lambda_targets(batch, values, discounts)


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

    advantages_are_errors = True

    def __init__(self, n_steps: int = 32, end_at_episode: bool = False) -> None:
        check_n_steps(n_steps)
        self.n_steps = self.horizon = n_steps
        self.end_at_episode = end_at_episode

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return lambda_targets(batch, values, discounts, n_steps=self.n_steps)


class GAE(ReturnEstimator):
    """Generalised advantage estimation: Schulman et al. (2016), arXiv:1506.02438, eq. 16.

    Args:
        n_steps: steps of a rollout.
        lambda_: λ, from 0 (one-step: little variance, the critic's bias) to 1 (N-step).

    Raises:
        ValueError: n_steps < 1 or no whole number, or lambda_ outside [0, 1].
    """

    advantages_are_errors = True

    def __init__(self, n_steps: int = 32, lambda_: float = 0.95) -> None:
        check_n_steps(n_steps)
        check_range("lambda_", lambda_, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.lambda_ = lambda_

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return lambda_targets(batch, values, discounts, self.lambda_)


class TDLambda(GAE):
    """Critic learns λ-returns, actor the same less the values: Sutton & Barto (2nd ed.), eq. 12.18.

    It gives the numbers that `GAE` gives with the same λ, whose value targets are λ-returns too. Only the default
    differs, and the name says which half is meant.

    Args:
        n_steps: steps of a rollout, beyond which the critic stands for the rest.
        lambda_: λ, from 0, TD(0), to 1, the N-step return.

    Raises:
        ValueError: n_steps < 1 or no whole number, or lambda_ outside [0, 1].
    """

    def __init__(self, n_steps: int = 32, lambda_: float = 0.9) -> None:
        super().__init__(n_steps, lambda_)


class DecoupledGAE(ReturnEstimator):
    """GAE with a λ for the actor and another for the critic: Yuan et al. (2025), arXiv:2503.01491, "decoupled GAE".

    Advantages are those of `GAE` with λ_actor; the value targets are λ-returns with λ_critic. With λ_critic = 1
    the critic learns from rewards as far as the rollout goes, while the actor keeps the smaller variance.

    Args:
        n_steps: steps of a rollout.
        lambda_actor: λ of the advantages, in [0, 1].
        lambda_critic: λ of the value targets, in [0, 1].

    Raises:
        ValueError: n_steps < 1 or no whole number, or a λ outside [0, 1].
    """

    def __init__(self, n_steps: int = 32, lambda_actor: float = 0.95, lambda_critic: float = 1.0) -> None:
        check_n_steps(n_steps)
        check_range("lambda_actor", lambda_actor, 0, 1)
        check_range("lambda_critic", lambda_critic, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.lambda_actor = lambda_actor
        self.lambda_critic = lambda_critic

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        actor = lambda_targets(batch, values, discounts, self.lambda_actor)
        critic = lambda_targets(batch, values, discounts, self.lambda_critic)
        return Targets(actor.advantages, critic.value_targets)


def lambda_targets(
    batch: RolloutBatch, values: Tensor, discounts: Tensor, lambda_: float = 1.0, n_steps: int | None = None
) -> Targets:
    """Return λ-returns of a batch's rollouts as value targets, and these less the values as advantages.

    Args:
        batch: transitions, [T, B].
        values: the critic's values of all observations, [T+1, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        lambda_: λ, in [0, 1].
        n_steps: steps from one cut to the next, or None for none but those of `trace_cuts`.

    Raises:
        ValueError: the shapes do not belong together.
    """
    check_shapes(batch, values, discounts=discounts)
    values = values.detach()
    rewards = real_rewards(batch)
    lambdas = (~trace_cuts(batch, n_steps)).to(values.dtype)
    if lambda_ != 1.0:
        lambdas = lambdas * lambda_
    targets = lambda_returns(rewards, discounts, zero_masked(values[1:], batch), lambdas)
    return Targets(targets - values[:-1], targets)
