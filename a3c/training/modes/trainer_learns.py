"""Modes in which the Trainer makes the updates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from a3c.batch import BatchShape
from a3c.networks.actor_critic import ActorCritic
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.dataset import RolloutDataset, RolloutSource
from a3c.rollouts.weights import PublishedWeights, SharedWeights
from a3c.training.modes.base import Learner, Mode, Stopping


class TrainerLearns(Mode):
    """Modes in which the Trainer makes the updates, from batches that a dataset joins."""

    def begin(self) -> None:
        super().begin()
        self._dataset: RolloutDataset | None = None

    def _make_weights(self, learner: Learner) -> PublishedWeights:
        """Build what collectors take their weights from."""
        return SharedWeights(learner.network, learner.updates)

    @abstractmethod
    def _make_source(self, spec: CollectorSpec, shape: BatchShape, stopping: Stopping) -> RolloutSource:
        """Build what rollouts come from."""

    def _carry_on(self, learner: Learner) -> dict[str, Any] | None:
        """Return the rollouts and environments of a checkpoint, where they can go on here."""
        return None

    @property
    def warming_up(self) -> bool:
        return self._dataset is not None and self._dataset.warming_up

    def open(self, learner: Learner, stopping: Stopping) -> RolloutDataset:
        returns = learner.learning.objective.returns
        self.weights = weights = self._make_weights(learner)
        carried = self._carry_on(learner)
        self.source = source = self._make_source(self._collector(learner), self._fragment_shape(learner), stopping)
        batching = self._batching(returns)
        if self._is_spent(carried is not None):
            batching = batching._replace(max_env_steps=0)
        self._dataset = dataset = RolloutDataset(
            source,
            self.progress,
            batching,
            version=lambda: weights.version,
            on_last_batch=stopping.stop,
            should_stop=stopping.should_stop,
        )
        if carried is not None:
            self._load(carried)
        return dataset

    def _load(self, carried: dict[str, Any]) -> None:
        """Go on with what `_carry_on` gave."""

    def publish(self, network: ActorCritic) -> None:
        if isinstance(self.weights, PublishedWeights):
            self.weights.publish(network)

    def restore(self, network: ActorCritic) -> None:
        if isinstance(self.weights, PublishedWeights):
            self.weights.pull(network)
