"""Mode hogwild: workers collect and learn."""

from __future__ import annotations

from torch.optim import Optimizer

from a3c.learner.hogwild.actor_learner import ActorLearnerTask
from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.reports import ReportStream, UpdateReport
from a3c.learner.hogwild.shared_learning import SharedLearning
from a3c.learner.hogwild.shared_optimizer import check_shareable, statistics_nbytes
from a3c.learner.hogwild.tally import Tally
from a3c.networks.actor_critic import ActorCritic
from a3c.returns import ReturnEstimator
from a3c.rollouts.workers.failures import Death, RestartPolicy
from a3c.rollouts.workers.pool import WorkerPool
from a3c.training.modes.base import Learner, Made, Mode, Stopping
from a3c.training.options import Collection


class Hogwild(Mode):
    """Worker processes collect and learn, on shared weights without a lock; the Trainer watches.

    A3C as published: Mnih et al. (2016), arXiv:1602.01783.
    """

    name = "hogwild"
    default_workers = 2
    trainer_learns = False

    def __init__(
        self, collection: Collection, workers: int | None = None, supervision: RestartPolicy | None = None
    ) -> None:
        if collection.inject_lag is not None:
            raise ValueError(
                f"inject_lag: got {collection.inject_lag} in mode hogwild, must be none there: a worker learns from "
                "its own rollouts at once; take async or sync"
            )
        super().__init__(collection, workers, supervision)

    def can_lag(self, returns: ReturnEstimator) -> bool:
        # Weights are pulled before each rollout, so the first ones of an update are acted with older ones.
        return super().can_lag(returns) or self.collection.rollouts_per_update > 1

    def begin(self) -> None:
        super().begin()
        self._reports: ReportStream | None = None
        self._shared: SharedLearning | None = None  # while workers learn
        self._before = Made(0, 0, 0)  # by a resumed run's past
        self._made: Made | None = None  # once workers have ended

    def open(self, learner: Learner, stopping: Stopping) -> ReportStream:
        learning = learner.learning
        tally = Tally(self.workers, self.progress.env_steps)
        self.weights = weights = LiveWeights(learner.network, tally)
        self._before = Made(learner.updates, learner.skipped_updates, learner.gradient_steps)
        self._shared = shared = SharedLearning(learner.network, learner.attached_optimizers, weights, tally)
        shape = self._fragment_shape(learner)

        def on_death(death: Death) -> None:
            self._count_death(death)
            tally.write_off(death.worker, death.env_steps)

        task = ActorLearnerTask(
            self._collector(learner),
            self._batching(learning.objective.returns),
            shared.rule(learning, self.collection.max_lag, self.collection.seed),
            shared.optimizers,
        )
        slots = self._slots_per_worker
        self.source = pool = WorkerPool(
            task, self.workers, slots, shape, self.supervision, on_death, stopping.should_stop
        )
        self._reports = ReportStream(
            pool,
            self.progress,
            tally,
            spent=self._is_spent(),
            on_last_batch=stopping.stop,
            should_stop=stopping.should_stop,
        )
        return self._reports

    @property
    def made(self) -> Made | None:
        if self._shared is None:
            return self._made
        shared = Made(self._shared.updates, self._shared.skipped, self._shared.gradient_steps)
        return Made(*map(sum, zip(self._before, shared, strict=True)))

    def hold(self) -> None:
        if self._shared is not None:
            self._shared.hold(self._is_alive)
        if self._reports is not None:
            self._reports.refresh()

    def _is_alive(self, worker: int) -> bool:
        return isinstance(self.source, WorkerPool) and self.source.is_alive(worker)

    def release(self) -> None:
        if self._shared is not None:
            self._shared.release()

    def finish(self) -> list[UpdateReport]:
        self.close()
        reports = [] if self._reports is None else list(self._reports.remaining())
        if self._shared is not None:
            self._shared.take_over()
            self._made, self._shared = self.made, None
        return reports

    def check_network(self, network: ActorCritic) -> None:
        # Another worker's gradient would be applied to the rescaled head in the units of before, and of two that
        # rescale it at once each would undo a part of the other's work: no value would be preserved.
        if network.value_unit is not None:
            raise ValueError(
                "popart: got true in mode hogwild, must be false there: workers would rescale the critic's last layer "
                "beneath each other's steps; take async or sync"
            )

    def check_optimizer(self, optimizer: Optimizer) -> None:
        check_shareable(optimizer)

    def _shared_bytes(self, learner: Learner) -> int:
        optimizers = 1 if learner.learning.shared_optimizer else self.workers
        statistics = statistics_nbytes(learner.make_optimizer(learner.network.parameters()))
        return super()._shared_bytes(learner) + optimizers * statistics
