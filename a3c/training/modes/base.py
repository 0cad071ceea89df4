"""What every update mode has, and what it asks of the module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import cloudpickle
from torch.optim import Optimizer
from torch.utils.data import IterableDataset

from a3c.batch import BatchShape
from a3c.learner.hogwild.reports import UpdateReport
from a3c.learner.learning import Learning
from a3c.networks.actor_critic import ActorCritic
from a3c.returns import ReturnEstimator
from a3c.rollouts.collector import CollectorSpec, CollectRules
from a3c.rollouts.dataset import Batching, RolloutSource
from a3c.rollouts.progress import Progress
from a3c.rollouts.weights import WeightSource, shared_nbytes
from a3c.rollouts.workers.failures import Death, RestartPolicy
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.resources import Demand, available_cores, available_memory, check
from a3c.training.options import AUTO, Collection, Workers

PROCESSES = "processes"  # this project's own


class Learner(Protocol):
    """What a mode asks of the module.

    Attributes:
        network: the network that is trained.
        updates: updates made so far.
        gradient_steps: of which they consisted.
        skipped_updates: updates skipped so far.
    """

    network: ActorCritic
    updates: int
    gradient_steps: int

    @property
    def skipped_updates(self) -> int:
        """Updates skipped so far, since their loss or gradient was not finite."""

    @property
    def learning(self) -> Learning:
        """How a batch becomes a step."""

    @property
    def attached_optimizers(self) -> Sequence[Optimizer]:
        """The optimizers of the fit, once they have their state."""

    def make_optimizer(self, parameters: Any) -> Optimizer:
        """Build an optimizer over parameters, as the run's is."""


class Stopping(Protocol):
    """How a run is told to stop, and asked whether it has been."""

    def stop(self) -> None:
        """Have the Trainer stop after the update at hand."""

    def should_stop(self) -> bool:
        """Return whether the run is to stop."""


class Made(NamedTuple):
    """What workers that learn by themselves have made, a resumed run's past included."""

    updates: int
    skipped: int
    gradient_steps: int


class Sizes(NamedTuple):
    """How many workers there are, and how an update is made of their rollouts.

    Attributes:
        workers: processes.
        envs_per_worker: columns of a rollout.
        rollouts_per_update: of any worker, or of its own where it learns by itself.
    """

    workers: int
    envs_per_worker: int
    rollouts_per_update: int


class Mode(ABC):
    """One way of training, and the state of one fit in it.

    Args:
        collection: what is collected.
        workers: worker processes, ≥ 1; None for the mode's own number.
        supervision: what becomes of workers that die or hang.

    Attributes:
        name: what the flag says.
        default_workers: worker processes where nobody says how many.
        trainer_learns: the Trainer makes the updates, and sees batches and gradients.
        pool: what workers run as.
        progress: counters and clock of the fit.
        weights: the shared weights, once the fit has begun.
        source: where rollouts or reports come from, once the fit has begun.

    Raises:
        ValueError: the mode cannot do what is asked.
    """

    name: ClassVar[str]
    default_workers: ClassVar[int] = 1
    trainer_learns: ClassVar[bool] = True
    pool: ClassVar[str] = PROCESSES

    def __init__(
        self, collection: Collection, workers: int | None = None, supervision: RestartPolicy | None = None
    ) -> None:
        self.collection = collection
        self.workers = self.default_workers if workers is None else workers
        self.supervision = supervision or RestartPolicy()
        self.begin()

    def begin(self) -> None:
        """Begin a fit; a checkpoint, if any, is loaded after this."""
        self.progress = Progress()
        self.weights: WeightSource | None = None
        self.source: RolloutSource | WorkerPool | None = None
        self._checkpoint: dict[str, Any] | None = None  # this room's part of the one that is gone on from

    @classmethod
    def collecting(cls, workers: Workers = None) -> int:
        """Return how many processes collect, each of which keeps a core busy.

        Args:
            workers: as the flag has it; for "auto" the most that there may be.
        """
        if workers is None:
            return cls.default_workers
        return max(1, available_cores() - cls.trainer_learns) if workers == AUTO else workers

    @classmethod
    def shared_out(cls, envs_per_worker: int, rollouts_per_update: int) -> Sizes:
        """Return as many workers as the machine has cores for, with updates of as many columns as before.

        Args:
            envs_per_worker: times the next, the columns of an update.
            rollouts_per_update: that one worker would make.
        """
        return Sizes(cls.collecting(AUTO), envs_per_worker, rollouts_per_update)

    @property
    def learners(self) -> int:
        """Workers that step the shared weights by themselves."""
        return 0 if self.trainer_learns else self.workers

    @property
    def warming_up(self) -> bool:
        """Whether the update at hand trains on fresh rollouts although lag is to be injected."""
        return False

    @property
    def made(self) -> Made | None:
        """What workers have made that learn by themselves; None where the Trainer counts."""
        return None

    @abstractmethod
    def open(self, learner: Learner, stopping: Stopping) -> IterableDataset[Any]:
        """Set a fit up and return what the Trainer iterates over; processes start with the iteration.

        Called once the checkpoint, if any, is loaded and the optimizers have their state.
        """

    @property
    def version(self) -> int:
        """Number of updates that have been made to the weights at hand."""
        return 0 if self.weights is None else self.weights.version

    def acting(self, network: ActorCritic) -> ActorCritic:
        """Return the network where its policy acts: on the CPU, as it is between two updates."""
        return network

    def publish(self, network: ActorCritic) -> None:
        """Hand the weights of an update on to whoever acts."""

    def restore(self, network: ActorCritic) -> None:
        """Put the published weights and buffers back into the network: its update was skipped."""

    def hold(self) -> None:
        """Take over the newest weights and counters, and keep workers from changing them until `release`."""

    def release(self) -> None:
        """Let workers go on."""

    def finish(self) -> list[UpdateReport]:
        """Stop the workers, and return what those that learn have still to say. Idempotent."""
        self.close()
        return []

    def close(self) -> None:
        """Stop the workers. Idempotent."""
        if self.source is not None:
            self.source.close()

    @property
    def exit_codes(self) -> list[int]:
        """Exit codes of the worker processes, once they are stopped."""
        return self.source.exit_codes if isinstance(self.source, WorkerPool) else []

    @property
    def budget_used(self) -> float:
        """Share of the budget that is used up, 0 to 1."""
        collection, shares = self.collection, []
        if collection.max_env_steps is not None:
            shares.append(self.progress.env_steps / collection.max_env_steps)
        if collection.max_episodes_per_worker is not None:
            shares.append(self.progress.episodes / (collection.max_episodes_per_worker * self.workers))
        return min(1.0, max(shares))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the collection."""
        return {"progress": self.progress.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._checkpoint = state
        self.progress.load_state_dict(state["progress"])

    def _is_spent(self, carries: bool = False) -> bool:
        """Return whether a checkpoint's budget leaves nothing to do, not even with the rollouts that it carries."""
        budget = self.collection.max_env_steps
        env_steps = budget is not None and self.progress.env_steps >= budget
        return env_steps or (self._episodes_left() == 0 and not carries)

    def _episodes_left(self) -> int | None:
        """Return the rest of a worker's episode budget; a checkpoint's episodes are shared out evenly."""
        budget = self.collection.max_episodes_per_worker
        return None if budget is None else max(0, budget - self.progress.episodes // self.workers)

    def _count_death(self, death: Death) -> None:
        self.progress.worker_deaths += 1
        self.progress.worker_restarts += death.restarted

    def _batching(self, returns: ReturnEstimator) -> Batching:
        collection = self.collection
        return Batching(
            collection.rollouts_per_update,
            collection.max_env_steps,
            returns.needs_segments,
            returns.horizon,
            collection.envs_per_worker,
            collection.max_lag,
            collection.inject_lag,
        )

    def _fragment_shape(self, learner: Learner) -> BatchShape:
        collection, returns = self.collection, learner.learning.objective.returns
        steps = returns.horizon or collection.fragment_steps
        return collection.shape(steps, collection.envs_per_worker, learner.network.state_shape)

    def _collector(self, learner: Learner) -> CollectorSpec:
        """Return what a worker builds its collector from."""
        assert self.weights is not None, "the mode has shared them"
        collection = self.collection
        return CollectorSpec(
            collection.env.discounting(learner.learning.objective.discount),
            collection.envs_per_worker,
            cloudpickle.dumps(self.acting(learner.network)),
            self.weights,
            collection.seed_after(self.progress.env_steps),
            CollectRules(
                learner.learning.objective.returns.needs_segments,
                self._episodes_left(),
                collection.discard_bad_values,
                collection.check_bounds,
            ),
        )

    # What a run takes of the machine.

    def check(self, learner: Learner) -> None:
        """Refuse a run that the mode cannot make, or that the machine cannot hold.

        Raises:
            ValueError: the argument's name, what was given, and how much is needed and there is.
        """
        self.check_horizon(learner.learning.objective.returns.horizon, learner.network.state_shape)
        check(self.demand(learner))

    def check_network(self, network: ActorCritic) -> None:
        """Refuse a network that the mode cannot train.

        Raises:
            ValueError: the flag that makes it such, and what is allowed.
        """

    def can_lag(self, returns: ReturnEstimator) -> bool:
        """Return whether other weights may have acted in a batch than those that an update begins with."""
        return bool(self.collection.inject_lag) or returns.needs_segments

    def check_reuse(self, learning: Learning, network: ActorCritic) -> None:
        """Refuse passes and minibatches that a run's batches do not allow, and a clip with nothing to clip.

        Raises:
            ValueError: the flag, what was given, and what is allowed.
        """
        collection, objective, reuse = self.collection, learning.objective, learning.reuse
        columns = collection.envs_per_worker * collection.rollouts_per_update
        reuse.check(objective.returns, columns, network.initial_state(1) is not None)
        if objective.ratio_clip is not None and reuse.is_single and not self.can_lag(objective.returns):
            raise ValueError(
                f"ratio_clip: got {objective.ratio_clip} with passes 1 and minibatches 1 in mode {self.name}, must be "
                "null there: the policy that is updated is the one that acted, so there is nothing to clip"
            )

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Refuse an optimizer that the mode cannot use.

        Raises:
            ValueError: which one, and what is allowed.
        """

    @property
    def _slots_per_worker(self) -> int:
        """Rollouts in shared memory of each worker."""
        return self.collection.rollouts_per_update

    def _shared_bytes(self, learner: Learner) -> int:
        """Return the bytes of shared memory for what is learned."""
        return shared_nbytes(learner.network)

    def demand(self, learner: Learner) -> Demand:
        """Return what a run will take of the machine."""
        collection, returns = self.collection, learner.learning.objective.returns
        fragment = self._fragment_shape(learner)
        longest = returns.horizon or collection.env.time_limit or collection.fragment_steps
        columns = collection.envs_per_worker * collection.rollouts_per_update
        update = collection.shape(longest, columns, learner.network.state_shape).nbytes
        return Demand(
            workers=self.workers,
            envs_per_worker=collection.envs_per_worker,
            rollouts_per_update=collection.rollouts_per_update,
            slot_steps=fragment.length,
            steps=longest,
            inject_lag=collection.inject_lag or 0,
            mode=self.name,
            slots=self.workers * self._slots_per_worker * fragment.nbytes,
            learned=self._shared_bytes(learner),
            rollouts=max(1, self.learners) * update,
            delayed=(collection.inject_lag or 0) * update,
        )

    def check_horizon(self, horizon: int | None, state_shape: Sequence[int] = (0,)) -> None:
        """Refuse an estimator of whole episodes where the longest ones would not fit in memory.

        Args:
            horizon: the estimator's; None stands for whole episodes.
            state_shape: of the network's memory of one column.

        Raises:
            ValueError: the environment has no time limit, or more bytes are needed than available.
        """
        if horizon is not None:
            return
        collection = self.collection
        limit = collection.env.time_limit
        if limit is None:
            raise ValueError(
                f"max_episode_steps: got none, and {collection.env.name} has no time limit; "
                "an estimator of whole episodes needs one"
            )
        # Every environment's open episode, and the columns of one update.
        updates = max(1, self.learners) + (collection.inject_lag or 0)  # that are held at the same time
        columns = (self.workers + collection.rollouts_per_update * updates) * collection.envs_per_worker
        needed, available = collection.shape(limit, columns, state_shape).nbytes, available_memory()
        if needed > available:
            factors = {
                name: getattr(collection, name) or 0
                for name in ("envs_per_worker", "rollouts_per_update", "inject_lag")
            }
            name = max(factors, key=lambda name: factors[name])
            raise ValueError(
                f"{name}: got {factors[name]}, so that {columns} episodes of {limit} steps take {needed:,} bytes, "
                f"and {available:,} are available; must be fewer, or an estimator with n_steps"
            )
