"""What estimators that change the targets of another one have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import ReturnEstimator


class Wrapper(ReturnEstimator):
    """Estimator around another one, whose rollouts, units, ratios and statistics it takes over.

    Args:
        estimator: the one within.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, estimator: ReturnEstimator) -> None:
        if not isinstance(estimator, ReturnEstimator):
            raise ValueError(f"estimator: got {estimator!r}, must be a return estimator")
        self.estimator = estimator
        self.horizon = estimator.horizon
        self.end_at_episode = estimator.end_at_episode
        self.target_units = estimator.target_units
        self.reusable = estimator.reusable
        self.carries_ratios = estimator.carries_ratios

    @property
    def says_its_horizon(self) -> bool:
        """Whether the one within sets its `horizon`."""
        return self.estimator.says_its_horizon

    @property
    def statistics(self) -> Mapping[str, Tensor]:
        """What the one within learns itself."""
        return self.estimator.statistics

    def take_in(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> None:
        self.estimator.take_in(batch, values, log_probs, discounts)

    def state_dict(self) -> dict[str, Any]:
        return self.estimator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.estimator.load_state_dict(state)
