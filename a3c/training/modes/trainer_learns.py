"""Modes in which the Trainer makes the updates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from a3c.batch import BatchShape
from a3c.networks.actor_critic import ActorCritic
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.dataset import RolloutDataset, RolloutSource
from a3c.rollouts.device.copies import Copies, copies_of
from a3c.rollouts.device.weights import DeviceWeights, HostCopy, device_of
from a3c.rollouts.weights import PublishedWeights, SharedWeights
from a3c.training.modes.base import Learner, Mode, Stopping


class TrainerLearns(Mode):
    """Modes in which the Trainer makes the updates, from batches that a dataset joins."""

    def begin(self) -> None:
        super().begin()
        self._dataset: RolloutDataset | None = None
        self._published: PublishedWeights | DeviceWeights | None = None

    def _make_weights(self, network: ActorCritic, version: int) -> PublishedWeights:
        """Build what collectors take their weights from.

        Args:
            network: the one that is trained, or its copy on the CPU.
            version: of its current tensors.
        """
        return SharedWeights(network, version)

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
        copies = self._share(learner)
        carried = self._carry_on(learner)
        self.source = source = self._make_source(self._collector(learner), self._fragment_shape(learner), stopping)
        batching = self._batching(returns)
        if self._is_spent(carried is not None):
            batching = batching._replace(max_env_steps=0)
        self._dataset = dataset = RolloutDataset(
            source,
            self.progress,
            batching,
            version=lambda: self.version,
            on_last_batch=stopping.stop,
            should_stop=stopping.should_stop,
            copies=copies,
            looks_ahead=copies is not None and self._may_lag,
        )
        if carried is not None:
            self._load(carried)
        return dataset

    def _load(self, carried: dict[str, Any]) -> None:
        """Go on with what `_carry_on` gave."""

    def _share(self, learner: Learner) -> Copies | None:
        """Share the weights with whoever acts; return how rollouts come to the learner's device, if it has one."""
        device = device_of(learner.network)
        if device.type == "cpu":
            self.weights = self._published = self._make_weights(learner.network, learner.updates)
            return None
        copies = copies_of(device)
        host = HostCopy(learner.network, copies)
        self.weights = shared = self._make_weights(host.network, learner.updates)
        self._published = DeviceWeights(host, shared, waits=not self._may_lag)
        return copies

    @property
    def _may_lag(self) -> bool:
        """Whether rollouts may be as old as they are."""
        return False

    @property
    def version(self) -> int:
        return 0 if self._published is None else self._published.version

    def acting(self, network: ActorCritic) -> ActorCritic:
        return self._published.acting() if isinstance(self._published, DeviceWeights) else network

    def publish(self, network: ActorCritic) -> None:
        if self._published is not None:
            self._published.publish(network)

    def restore(self, network: ActorCritic) -> None:
        if self._published is not None:
            self._published.pull(network)

    def close(self) -> None:
        super().close()
        if isinstance(self._published, DeviceWeights):
            self._published.close()
