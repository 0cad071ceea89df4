"""Returns that are not discounted but compared with the average reward."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import ReturnEstimator, Targets, check_n_steps, check_range, check_shapes
from a3c.returns.lambda_family import lambda_targets


class AverageReward(ReturnEstimator):
    """Differential returns: Sutton & Barto (2nd ed.), sections 10.3 and 13.6; Zhang & Ross (2021), arXiv:2106.07329.

    `GAE` of the rewards less r̄, with γ = 1 whatever the model's discount is, and 0 where the episode terminated. After
    each update r̄ ← r̄ + rate·(mean of δ over the real steps), δₜ = rₜ − r̄ + Vₜ₊₁ − Vₜ (the box in section 13.6, there
    for one step). It is for tasks that go on for ever, in which what counts is reward a step. Values are differences
    to the average, in scaled rewards, and not returns.

    Args:
        n_steps: steps of a rollout.
        lambda_: λ, from 0 (one-step) to 1 (N-step).
        rate: step size of r̄, in [0, 1].

    Attributes:
        average_reward: r̄, reward a step in scaled rewards; a scalar in float64, changed in place by `take_in` alone.

    Raises:
        ValueError: n_steps < 1 or no whole number, or lambda_ or rate outside [0, 1].
    """

    target_units = "own"
    advantages_are_errors = True

    def __init__(self, n_steps: int = 32, lambda_: float = 0.95, rate: float = 0.01) -> None:
        check_n_steps(n_steps)
        check_range("lambda_", lambda_, 0, 1)
        check_range("rate", rate, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.lambda_ = lambda_
        self.rate = rate
        self.average_reward = torch.zeros((), dtype=torch.float64)

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        check_shapes(batch, values, discounts=discounts)
        differences = batch._replace(rewards=batch.rewards - self.average_reward)
        return lambda_targets(differences, values, _undiscounted(batch), self.lambda_)

    @property
    def statistics(self) -> Mapping[str, Tensor]:
        """The average reward."""
        return {"average_reward": self.average_reward}

    def take_in(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> None:
        """Move the average along the mean error of an update; one that is not finite moves nothing."""
        values = values.detach()
        errors = batch.rewards - self.average_reward + _undiscounted(batch) * values[1:] - values[:-1]
        change = self.rate * errors[batch.mask].double().mean()
        if change.isfinite():
            # Workers may do this at the same time: one of their changes can then be lost, which like a
            # gradient's in hogwild makes the average a little slower, and never wrong.
            self.average_reward.add_(change.to(self.average_reward.device))


def _undiscounted(batch: RolloutBatch) -> Tensor:
    """Return 1, or 0 where the episode terminated, [T, B]."""
    return (~batch.terminated).to(batch.rewards.dtype)
