"""Mode async: workers collect while the Trainer learns."""

from __future__ import annotations

from a3c.batch import BatchShape
from a3c.returns import ReturnEstimator
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.dataset import RolloutSource
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask
from a3c.training.modes.base import Sizes, Stopping
from a3c.training.modes.trainer_learns import TrainerLearns
from a3c.training.options import AUTO


class Async(TrainerLearns):
    """Worker processes collect while the Trainer learns; lag is measured, bounded, and can be injected."""

    name = "async"

    @classmethod
    def shared_out(cls, envs_per_worker: int, rollouts_per_update: int) -> Sizes:
        # Each gives one rollout to an update, so more workers do not make samples older.
        columns = envs_per_worker * rollouts_per_update
        workers = max(number for number in range(1, cls.collecting(AUTO) + 1) if columns % number == 0)
        return Sizes(workers, columns // workers, workers)

    def can_lag(self, returns: ReturnEstimator) -> bool:
        return True

    @property
    def _may_lag(self) -> bool:
        return self.collection.inject_lag is None

    def _make_source(self, spec: CollectorSpec, shape: BatchShape, stopping: Stopping) -> RolloutSource:
        return WorkerPool(
            CollectTask(spec),
            self.workers,
            self._slots_per_worker,
            shape,
            self.supervision,
            self._count_death,
            stopping.should_stop,
        )

    @property
    def _slots_per_worker(self) -> int:
        slots = -(-self.collection.rollouts_per_update // self.workers)
        if self.collection.inject_lag is None:
            # One slot is filled while another is read; and the rollouts of one update, which are held
            # until all of them are there, must leave at least one slot to fill.
            slots = max(2, slots + 1)
        return slots
