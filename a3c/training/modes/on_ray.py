"""Mode async with workers that are Ray's actors."""

from __future__ import annotations

from dataclasses import replace

from a3c.batch import BatchShape
from a3c.networks.actor_critic import ActorCritic
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.on_ray.cluster import Cluster
from a3c.rollouts.on_ray.pool import RayPool
from a3c.rollouts.on_ray.weights import SentWeights
from a3c.rollouts.workers.failures import RestartPolicy
from a3c.rollouts.workers.resources import Demand
from a3c.training.modes.asynchronous import Async
from a3c.training.modes.base import Learner, Stopping
from a3c.training.options import Collection


class AsyncOnRay(Async):
    """Actors collect while the Trainer learns, on this machine or on a cluster's.

    Args:
        collection: what is collected.
        workers: actors, ≥ 1; None for the mode's own number.
        supervision: what becomes of those that die or hang.
        cluster: where they run.

    Raises:
        ValueError: Ray is not installed, or wrappers keep statistics that all workers share.
    """

    pool = "ray"

    def __init__(
        self,
        collection: Collection,
        workers: int | None = None,
        supervision: RestartPolicy | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__(collection, workers, supervision)
        self.cluster = cluster or Cluster()
        self.cluster.check()
        if collection.env.statistics is not None:
            raise ValueError(
                "pool: got ray with wrappers that keep running statistics (normalise_rewards, NormalizeObservation), "
                "must be processes there: workers share them in the memory of one machine"
            )

    def _make_weights(self, network: ActorCritic, version: int) -> SentWeights:
        return SentWeights(network, version)

    def _make_source(self, spec: CollectorSpec, shape: BatchShape, stopping: Stopping) -> RayPool:
        assert isinstance(self.weights, SentWeights), "made before"
        return RayPool(
            spec,
            self.weights,
            self.workers,
            self._slots_per_worker,
            shape,
            self.cluster,
            self.supervision,
            self._count_death,
            stopping.should_stop,
        )

    def demand(self, learner: Learner) -> Demand:
        demand = super().demand(learner)  # rollouts lie in Ray's object store, and actors perhaps elsewhere
        return replace(demand, workers=0, rollouts=demand.rollouts + demand.slots, slots=0)
