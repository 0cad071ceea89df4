"""The LightningDataModule: environments, workers and budget of a run, set up as its estimator asks."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from a3c.batch import BatchShape, RolloutBatch, empty_batch
from a3c.envs.spaces import Spaces, batch_shape
from a3c.envs.spec import EnvSpec
from a3c.envs.watchdog import StepWatch
from a3c.envs.wrappers import Wrapping
from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.reports import ReportStream, UpdateReport
from a3c.learner.hogwild.tally import Tally
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.dataset import RolloutDataset, RolloutSource
from a3c.rollouts.inline import InlineSource
from a3c.rollouts.progress import Progress
from a3c.rollouts.segments import SegmentJoiner
from a3c.rollouts.weights import SharedWeights
from a3c.rollouts.workers.pool import Death, RestartPolicy, WorkerPool
from a3c.rollouts.workers.process import CollectTask
from a3c.rollouts.workers.resources import Demand, available_memory, check
from a3c.training.options import check_choice, check_counts, check_lags, check_seconds

log = logging.getLogger(__name__)

WORKERS = {"sync": 1, "async": 1, "hogwild": 2}  # by default, by mode: two busy cores in the last two


class RolloutDataModule(LightningDataModule):
    """Environments, workers and the budget; gives the Trainer its stream of batches.

    The module that is trained says how rollouts are cut, by its estimator's `horizon` and
    `end_at_episode`. Nothing is started before the fit.

    Args:
        env: Gymnasium id; "module:Name-v0" imports the module first, in workers too.
        env_kwargs: arguments of the environment's constructor.
        max_episode_steps: time limit in steps instead of the environment's own.
        mode: "sync": one collector in this process, never stale, reproducible bit for bit; "async":
            worker processes collect while the Trainer learns; "hogwild": worker processes collect
            and learn, on shared weights without a lock, and the Trainer watches.
        workers: worker processes, ≥ 1; by default 1 in "async" and 2 in "hogwild". Unused in "sync".
        envs_per_worker: environments stepped together by a worker, and columns of a rollout, ≥ 1.
        rollouts_per_update: rollouts that one update trains on, ≥ 1.
        fragment_steps: steps between two pulls of the weights for estimators without a horizon, ≥ 1.
        max_env_steps: the run's budget in env steps, > 0, or None.
        max_episodes_per_worker: its budget in episodes of each worker, > 0, or None; a worker ends
            with the fragment in which it reaches it.
        wrappers: import paths of wrappers, from the innermost on: module.Class, or class_path with
            init_args. One derived from Gymnasium's `Wrapper` goes around each environment, which is
            then no native one; one derived from its `VectorWrapper` around all of a worker together.
            What is logged stays the environment's own reward.
        terminal_reward: reward for the step that terminates an episode instead of the
            environment's own; what is logged stays its own.
        max_lag: rollouts whose weights are more updates old are dropped and counted, ≥ 0; None for
            no limit.
        inject_lag: every update trains on rollouts exactly so many updates old, ≥ 0; None for as old
            as they are. Not in "hogwild". An estimator of segments counts from a segment's last step.
        on_worker_failure: "restart" puts another worker, with fresh seeds, in the place of one that
            died, hung or raised; "raise" ends the run. What a worker raises in its first set-up, and
            what an environment does against its spaces, ends it in any case.
        worker_timeout: seconds after which a worker that is busy, but steps no environment, is
            taken to hang and killed, > 0.
        max_restarts: so many workers are replaced within the window, ≥ 0; one more ends the run.
        restart_window: that window in seconds, > 0.
        on_bad_values: "raise" ends the run when an observation or a reward is NaN or infinite;
            "discard" drops the rollout, counts its steps and begins new episodes.
        check_bounds: end the run when an observation lies outside its space.
        seed: of environments and actions.

    Raises:
        ValueError: a value outside its range, no budget at all, or an unknown or unsupported
            environment (`EnvError`).
    """

    def __init__(
        self,
        env: str = "CartPole-v1",
        env_kwargs: Mapping[str, Any] | None = None,
        max_episode_steps: int | None = None,
        mode: Literal["sync", "async", "hogwild"] = "async",
        workers: int | None = None,
        envs_per_worker: int = 32,
        rollouts_per_update: int = 1,
        fragment_steps: int = 32,
        max_env_steps: int | None = 500_000,
        max_episodes_per_worker: int | None = None,
        wrappers: list[str | dict[str, Any]] | None = None,
        terminal_reward: float | None = None,
        max_lag: int | None = None,
        inject_lag: int | None = None,
        on_worker_failure: Literal["restart", "raise"] = "restart",
        worker_timeout: float = 30.0,
        max_restarts: int = 10,
        restart_window: float = 60.0,
        on_bad_values: Literal["raise", "discard"] = "raise",
        check_bounds: bool = True,
        seed: int = 1,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, WORKERS)
        check_choice("on_worker_failure", on_worker_failure, ("restart", "raise"))
        check_choice("on_bad_values", on_bad_values, ("raise", "discard"))
        check_counts(
            1,
            workers=workers,
            envs_per_worker=envs_per_worker,
            rollouts_per_update=rollouts_per_update,
            fragment_steps=fragment_steps,
            max_env_steps=max_env_steps,
            max_episodes_per_worker=max_episodes_per_worker,
            max_episode_steps=max_episode_steps,
        )
        if max_env_steps is None and max_episodes_per_worker is None:
            raise ValueError("max_env_steps: got none, must be at least 1 unless max_episodes_per_worker is given")
        check_counts(0, seed=seed, max_restarts=max_restarts)
        check_lags(mode, max_lag, inject_lag)
        check_seconds(worker_timeout=worker_timeout, restart_window=restart_window)
        if terminal_reward is not None and not math.isfinite(terminal_reward):
            raise ValueError(f"terminal_reward: got {terminal_reward}, must be finite")
        terminal = [] if terminal_reward is None else [Wrapping("a3c.TerminalReward", {"reward": terminal_reward})]
        self.env = EnvSpec(env, dict(env_kwargs or {}), max_episode_steps, [*(wrappers or ()), *terminal])
        self.mode = mode
        self.workers = WORKERS[mode] if workers is None or mode == "sync" else workers
        self.learners = self.workers if mode == "hogwild" else 0
        self.max_lag = max_lag
        self.inject_lag = inject_lag
        self.envs_per_worker = envs_per_worker
        self.rollouts_per_update = rollouts_per_update
        self.fragment_steps = fragment_steps
        self.max_env_steps = max_env_steps
        self.max_episodes_per_worker = max_episodes_per_worker
        self.policy = RestartPolicy(worker_timeout, on_worker_failure == "restart", max_restarts, restart_window)
        self.on_bad_values = on_bad_values
        self.check_bounds = check_bounds
        self.seed = seed
        self.progress = Progress()
        self.source: RolloutSource | WorkerPool | None = None
        self._reports: ReportStream | None = None  # of workers that learn
        self._dataset: RolloutDataset | None = None  # elsewhere
        self._origin: dict[str, Any] = {}  # of what a checkpoint carries, where only the same can go on
        self._checkpoint: dict[str, Any] | None = None  # this module's part of the one that is gone on from
        self.observation_space, self.action_space = self.env.spaces(envs_per_worker, worker_timeout)

    def setup(self, stage: str) -> None:
        self.progress = Progress()  # a checkpoint, if any, is loaded after this
        self._reports = self._dataset = self._checkpoint = None

    def train_dataloader(self) -> DataLoader[Any]:
        module: Any = self._trainer.lightning_module
        self.check_run(module)
        dataset = self._make_reports(module) if self.learners else self._make_batches(module)
        return DataLoader(dataset, batch_size=None, collate_fn=_as_it_is)

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None, "Lightning attaches the trainer first"
        return self.trainer

    def _stop_trainer(self) -> None:
        self._trainer.should_stop = True

    def _is_spent(self, carries: bool = False) -> bool:
        """Return whether a checkpoint's budget leaves nothing to do, not even with the rollouts that it carries."""
        env_steps = self.max_env_steps is not None and self.progress.env_steps >= self.max_env_steps
        return env_steps or (self._episodes_left() == 0 and not carries)

    def _make_batches(self, module: Any) -> RolloutDataset:
        """Return the batches that the Trainer learns from."""
        horizon, segmented = module.returns.horizon, _is_segmented(module)
        module.weights = weights = SharedWeights(module.network, module.updates)
        carried = self._what_to_carry_on(module)
        self.source = source = self._make_source(*self._collection(module))
        self._dataset = dataset = RolloutDataset(
            source,
            self.progress,
            rollouts_per_update=self.rollouts_per_update,
            max_env_steps=0 if self._is_spent(carried is not None) else self.max_env_steps,
            joiner=SegmentJoiner(horizon) if segmented else None,
            segments_per_rollout=self.envs_per_worker,
            version=lambda: weights.version,
            max_lag=self.max_lag,
            inject_lag=self.inject_lag,
            on_last_batch=self._stop_trainer,
            should_stop=self._should_stop,
        )
        if carried is not None and isinstance(source, InlineSource):
            source.load_state_dict(carried["source"])
            dataset.load_state_dict(carried["dataset"])
        return dataset

    def _what_to_carry_on(self, module: Any) -> dict[str, Any] | None:
        """Return the rollouts and environments of a checkpoint; None, with a warning, if they cannot go on here.

        They go on in "sync" only: elsewhere what is in flight is lost with the workers.
        """
        returns = module.returns
        self._origin = {
            "mode": self.mode,
            "env": repr(self.env),
            "envs_per_worker": self.envs_per_worker,
            "horizon": returns.horizon,
            "end_at_episode": returns.end_at_episode,
            "inject_lag": self.inject_lag,
            "seed": self.seed,
        }
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None or self.mode != "sync":
            return None
        carried: dict[str, Any] = checkpoint.get("collection", {"origin": {"mode": "async or hogwild"}})
        reason = _why_not_from(carried, self._origin)
        if reason is None:
            return carried
        log.warning(
            "%s: %s; its environments start anew, and the resumed run is not bit-equal to one that was never "
            "interrupted",
            self.env.id,
            reason,
        )
        return None

    def _should_stop(self) -> bool:
        return self._trainer.should_stop

    def _make_source(self, spec: CollectorSpec, shape: BatchShape) -> RolloutSource:
        if self.mode == "sync":
            buffers = [empty_batch(shape) for _ in range(self.rollouts_per_update)]
            watch = StepWatch(self.policy.timeout or math.inf, f"{self.env.id} in this process")

            def beat(_: int) -> None:
                watch.beat()

            return InlineSource(spec, buffers, on_begin=beat, on_step=beat, keeps_state=True, watch=watch)
        return WorkerPool(
            CollectTask(spec),
            self.workers,
            self._slots_per_worker,
            shape,
            self.policy,
            self._count_death,
            self._should_stop,
        )

    @property
    def _slots_per_worker(self) -> int:
        slots = -(-self.rollouts_per_update // self.workers)
        if self.inject_lag is None:
            # One slot is filled while another is read; and the rollouts of one update, which are held
            # until all of them are there, must leave at least one slot to fill.
            slots = max(2, slots + 1)
        return slots

    def _count_death(self, death: Death) -> None:
        self.progress.worker_deaths += 1
        self.progress.worker_restarts += death.restarted

    def _make_reports(self, module: Any) -> ReportStream:
        """Return the reports of workers that learn by themselves."""
        tally = Tally(self.workers, self.progress.env_steps)
        module.weights = LiveWeights(module.network, tally)
        spec, shape = self._collection(module)

        def on_death(death: Death) -> None:
            self._count_death(death)
            tally.write_off(death.worker, death.env_steps)

        self.source = pool = WorkerPool(
            module.share(spec, shape, tally),
            self.workers,
            self.rollouts_per_update,
            shape,
            self.policy,
            on_death,
            self._should_stop,
        )
        self._reports = ReportStream(
            pool,
            self.progress,
            tally,
            spent=self._is_spent(),
            on_last_batch=self._stop_trainer,
            should_stop=self._should_stop,
        )
        return self._reports

    def _collection(self, module: Any) -> tuple[CollectorSpec, BatchShape]:
        """Return what a worker builds its collector from, and the shape of its fragments."""
        spec = CollectorSpec(
            self.env,
            self.envs_per_worker,
            pickle.dumps(module.network),
            module.weights,
            self._collection_seed(),
            end_with_episodes=_is_segmented(module),
            max_episodes=self._episodes_left(),
            discard_bad_values=self.on_bad_values == "discard",
            check_bounds=self.check_bounds,
        )
        return spec, self._batch_shape(module.returns.horizon or self.fragment_steps, self.envs_per_worker)

    def _collection_seed(self) -> int:
        """Return the seed of environments and actions; a resumed run does not repeat its beginning."""
        steps = self.progress.env_steps
        return self.seed if steps == 0 else int(np.random.SeedSequence((self.seed, steps)).generate_state(1)[0])

    def _episodes_left(self) -> int | None:
        """Return the rest of a worker's episode budget; a checkpoint's episodes are shared out evenly."""
        if self.max_episodes_per_worker is None:
            return None
        return max(0, self.max_episodes_per_worker - self.progress.episodes // self.workers)

    def _batch_shape(self, length: int, columns: int) -> BatchShape:
        return batch_shape(length, columns, Spaces(self.observation_space, self.action_space))

    def check_run(self, module: Any) -> None:
        """Refuse to train a module where the environment does not allow it, or the machine cannot hold it.

        Args:
            module: an `A3C`.

        Raises:
            ValueError: the argument's name, what was given, and how much is needed and there is.
        """
        self.check_horizon(module.returns.horizon)
        check(self._demand(module))

    def _demand(self, module: Any) -> Demand:
        horizon = module.returns.horizon
        fragment = self._batch_shape(horizon or self.fragment_steps, self.envs_per_worker).nbytes
        longest = horizon or self.env.time_limit or self.fragment_steps
        update = self._batch_shape(longest, self.envs_per_worker * self.rollouts_per_update).nbytes
        slots = {"sync": 0, "async": self._slots_per_worker, "hogwild": self.rollouts_per_update}[self.mode]
        collected = self.rollouts_per_update * fragment if self.mode == "sync" else 0  # those in slots are shared
        return Demand(
            workers=0 if self.mode == "sync" else self.workers,
            envs_per_worker=self.envs_per_worker,
            inject_lag=self.inject_lag or 0,
            mode=self.mode,
            slots=self.workers * slots * fragment,
            learned=module.shared_bytes(self.learners),
            rollouts=max(1, self.learners) * update + collected,
            delayed=(self.inject_lag or 0) * update,
        )

    def check_horizon(self, horizon: int | None) -> None:
        """Refuse an estimator of whole episodes where the longest ones would not fit in memory.

        Args:
            horizon: the estimator's; None stands for whole episodes.

        Raises:
            ValueError: the environment has no time limit, or more bytes are needed than available.
        """
        if horizon is not None:
            return
        limit = self.env.time_limit
        if limit is None:
            raise ValueError(
                f"max_episode_steps: got none, and {self.env.id} has no time limit; "
                "an estimator of whole episodes needs one"
            )
        # Every environment's open episode, and the columns of one update.
        updates = max(1, self.learners) + (self.inject_lag or 0)  # that are held at the same time
        columns = (self.workers + self.rollouts_per_update * updates) * self.envs_per_worker
        needed, available = self._batch_shape(limit, columns).nbytes, available_memory()
        if needed > available:
            raise ValueError(
                f"envs_per_worker: {columns} episodes of {limit} steps take {needed:,} bytes, "
                f"and {available:,} are available; must be fewer environments, or an estimator with n_steps"
            )

    def transfer_batch_to_device(self, batch: RolloutBatch, device: torch.device, dataloader_index: int) -> Any:
        if device.type == "cpu":  # already there; Lightning's walk over the fields takes longer than a look
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_index)

    @property
    def budget_used(self) -> float:
        """Share of the budget that is used up, 0 to 1."""
        shares = []
        if self.max_env_steps is not None:
            shares.append(self.progress.env_steps / self.max_env_steps)
        if self.max_episodes_per_worker is not None:
            shares.append(self.progress.episodes / (self.max_episodes_per_worker * self.workers))
        return min(1.0, max(shares))

    def refresh(self) -> None:
        """Bring the counters up to date, where workers learn by themselves."""
        if self._reports is not None:
            self._reports.refresh()

    def finish(self) -> Iterator[UpdateReport]:
        """Stop the workers, and return what those that learn have still to say."""
        self.close()
        if self._reports is not None:
            yield from self._reports.remaining()

    @property
    def worker_exit_codes(self) -> list[int]:
        """Exit codes of the worker processes, once they are stopped; empty in "sync"."""
        return self.source.exit_codes if isinstance(self.source, WorkerPool) else []

    def worker_is_alive(self, worker: int) -> bool:
        """Return whether a worker's process runs."""
        return isinstance(self.source, WorkerPool) and self.source.is_alive(worker)

    def close(self) -> None:
        """Stop the workers. Idempotent."""
        if self.source is not None:
            self.source.close()

    def teardown(self, stage: str) -> None:
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"progress": self.progress.state_dict()}
        if self._dataset is not None and isinstance(self.source, InlineSource):
            state["collection"] = {
                "origin": self._origin,
                "source": self.source.state_dict(),
                "dataset": self._dataset.state_dict(),
            }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._checkpoint = state_dict
        self.progress.load_state_dict(state_dict["progress"])

    @property
    def warming_up(self) -> bool:
        """Whether the update at hand trains on fresh rollouts although lag is to be injected."""
        return self._dataset is not None and self._dataset.warming_up


def _is_segmented(module: Any) -> bool:
    """Return whether a module's estimator takes segments joined from fragments, not fragments themselves."""
    return module.returns.horizon is None or module.returns.end_at_episode


def _why_not_from(carried: dict[str, Any], origin: dict[str, Any]) -> str | None:
    """Explain why a run of this origin cannot go on with the environments of a checkpoint; None if it can."""
    differing = [name for name, ours in origin.items() if carried["origin"].get(name, ours) != ours]
    if differing:
        theirs = ", ".join(f"{name} {carried['origin'][name]}" for name in differing)
        return f"the checkpoint is of a run with {theirs}"
    lost: str | None = carried["source"].get("lost") or carried["dataset"].get("lost")
    return lost


def _as_it_is(batch: Any) -> Any:
    return batch
