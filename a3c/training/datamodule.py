"""The LightningDataModule: the flags of a run's collection, and the mode that they ask for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from a3c.batch import RolloutBatch
from a3c.envs.random_states import derived_seed
from a3c.envs.spec import EnvSpec
from a3c.envs.wrappers import NORMALISE_REWARD, Wrapping
from a3c.peers.agreement import rank
from a3c.rollouts.on_ray.cluster import Cluster
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.failures import RestartPolicy
from a3c.training.callbacks import leave_to_first_learner
from a3c.training.fit_end import FitEnd
from a3c.training.modes import MODES, ON_RAY, Mode, Sync
from a3c.training.modes.base import PROCESSES
from a3c.training.options import AUTO, Collection, Workers, check_choice, check_counts, check_finite, check_whole
from a3c.training.seams import module_of, trainer_of
from a3c.training.trainer_rules import check_trainer

# Warnings for which this stream of batches gives no ground.
GROUNDLESS = (
    ".*has `__len__` defined.*",  # one process reads it, and the length is only there to stop prefetching
    ".*does not have many workers.*",
    ".*your dataloader is not resumable.*",  # the data module keeps what it needs to go on
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


class RolloutDataModule(LightningDataModule):
    """Environments, workers and the budget; gives the Trainer its stream of batches.

    The module that is trained says how rollouts are cut, by its estimator's `horizon` and
    `end_at_episode`. Nothing is started before the fit.

    Args:
        env: Gymnasium id; "module:Name-v0" imports the module first, in workers too. Or a class or
            function that makes one environment, wherever it was made, or its import path, my_envs.MyEnv.
        env_kwargs: arguments of the environment's constructor, or of that function.
        max_episode_steps: time limit in steps instead of the environment's own.
        mode: "sync": one collector in this process, never stale, reproducible bit for bit; "async":
            worker processes collect while the Trainer learns; "hogwild": worker processes collect
            and learn, on shared weights without a lock, and the Trainer watches.
        workers: worker processes, ≥ 1; by default 1 in "async" and 2 in "hogwild". Unused in "sync". "auto" takes
            as many as there are cores for: in "async", beside the learner's, and they share the columns of an
            update out among them in equal parts, so that an update is the same on every machine.
        pool: "processes", this project's own on this machine, or in "async" "ray", Ray's actors on any number of
            machines.
        ray_address: of a cluster that is there ("auto", "HOST:6379"); None starts Ray on this
            machine, for this run alone.
        ray_cores: of each worker that is an actor, a fraction too, > 0.
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
        normalise_rewards: divide rewards by the running standard deviation of discounted returns, with the
            model's discount; evaluations leave it as it is, and what is logged stays the environment's own.
        clip_rewards: clip rewards to ±C, > 0, after they are normalised; None for no clipping. What is
            logged stays the environment's own.
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
        check_env: have Gymnasium's `check_env` look at one environment before the start, and tell what
            it finds; those that come with Gymnasium are not looked at.
        seed: of environments and actions.

    Attributes:
        mode: the update mode, and the state of the fit in it.
        stopping: how the fit comes to its end, once it has begun.

    Raises:
        ValueError: a value outside its range, no budget at all, or an unknown or unsupported
            environment (`EnvError`).
    """

    def __init__(
        self,
        env: str | Callable[..., Any] = "CartPole-v1",
        env_kwargs: Mapping[str, Any] | None = None,
        max_episode_steps: int | None = None,
        mode: str = "async",
        workers: Workers = None,
        pool: Literal["processes", "ray"] = "processes",
        ray_address: str | None = None,
        ray_cores: float = 1.0,
        envs_per_worker: int = 64,
        rollouts_per_update: int = 1,
        fragment_steps: int = 32,
        max_env_steps: int | None = 500_000,
        max_episodes_per_worker: int | None = None,
        wrappers: list[str | dict[str, Any]] | None = None,
        terminal_reward: float | None = None,
        normalise_rewards: bool = False,
        clip_rewards: float | None = None,
        max_lag: int | None = None,
        inject_lag: int | None = None,
        on_worker_failure: Literal["restart", "raise"] = "restart",
        worker_timeout: float = 30.0,
        max_restarts: int = 10,
        restart_window: float = 60.0,
        on_bad_values: Literal["raise", "discard"] = "raise",
        check_bounds: bool = True,
        check_env: bool = True,
        seed: int = 1,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, MODES)
        check_choice("pool", pool, (PROCESSES, "ray"))
        if pool != PROCESSES and mode not in ON_RAY:
            allowed = " or ".join(ON_RAY)
            raise ValueError(f"pool: got {pool} in mode {mode}, must be {PROCESSES} there; take mode {allowed}")
        cluster = Cluster(ray_address, ray_cores)
        if pool == PROCESSES and cluster != Cluster():
            name = "ray_cores" if ray_address is None else "ray_address"
            raise ValueError(f"{name}: got {getattr(cluster, name[4:])} with pool processes, must be left out there")
        check_choice("on_worker_failure", on_worker_failure, ("restart", "raise"))
        check_choice("on_bad_values", on_bad_values, ("raise", "discard"))
        if isinstance(workers, str) and workers != AUTO:
            raise ValueError(f"workers: got {workers!r}, must be a whole number, at least 1, or auto")
        needed = {
            "envs_per_worker": envs_per_worker,
            "rollouts_per_update": rollouts_per_update,
            "fragment_steps": fragment_steps,
        }
        for name, count in needed.items():
            check_whole(name, count, 1)
        check_counts(
            1,
            workers=None if workers == AUTO else workers,
            max_env_steps=max_env_steps,
            max_episodes_per_worker=max_episodes_per_worker,
            max_episode_steps=max_episode_steps,
        )
        if max_env_steps is None and max_episodes_per_worker is None:
            raise ValueError("max_env_steps: got none, must be at least 1 unless max_episodes_per_worker is given")
        if workers == AUTO and max_episodes_per_worker is not None and mode != Sync.name:
            raise ValueError("workers: got auto with max_episodes_per_worker, must be a number: each has that budget")
        check_counts(0, seed=seed, max_restarts=max_restarts, max_lag=max_lag, inject_lag=inject_lag)
        if max_lag is not None and inject_lag is not None and max_lag < inject_lag:
            raise ValueError(
                f"max_lag: got {max_lag}, must be at least inject_lag, {inject_lag}: nothing is trained on"
            )
        check_finite(0, worker_timeout=worker_timeout, restart_window=restart_window, clip_rewards=clip_rewards)
        check_finite(terminal_reward=terminal_reward)
        if workers == AUTO:
            workers, envs_per_worker, rollouts_per_update = MODES[mode].shared_out(envs_per_worker, rollouts_per_update)
        shaping = [] if terminal_reward is None else [Wrapping("a3c.TerminalReward", {"reward": terminal_reward})]
        if normalise_rewards:
            shaping.append(Wrapping(NORMALISE_REWARD, {}))
        if clip_rewards is not None:
            shaping.append(Wrapping("a3c.ClipReward", {"limit": clip_rewards}))
        self.env = EnvSpec(env, dict(env_kwargs or {}), max_episode_steps, [*(wrappers or ()), *shaping])
        spaces, statistics = self.env.look(envs_per_worker, worker_timeout, check_env)
        self.env = self.env.sharing(statistics)
        self.observation_space, self.action_space = spaces
        collection = Collection(
            self.env,
            spaces,
            envs_per_worker=envs_per_worker,
            rollouts_per_update=rollouts_per_update,
            fragment_steps=fragment_steps,
            max_env_steps=max_env_steps,
            max_episodes_per_worker=max_episodes_per_worker,
            max_lag=max_lag,
            inject_lag=inject_lag,
            discard_bad_values=on_bad_values == "discard",
            check_bounds=check_bounds,
            seed=seed,
        )
        supervision = RestartPolicy(worker_timeout, on_worker_failure == "restart", max_restarts, restart_window)
        self.mode: Mode
        if pool == PROCESSES:
            self.mode = MODES[mode](collection, workers, supervision)
        else:
            self.mode = ON_RAY[mode](collection, workers, supervision, cluster)
        self.seed = seed
        self._threads: int | None = None  # of torch, to be put back at the end

    @property
    def progress(self) -> Progress:
        """Counters and clock of the fit."""
        return self.mode.progress

    def setup(self, stage: str) -> None:
        trainer = trainer_of(self)
        check_trainer(trainer, self.mode)
        for message in GROUNDLESS:
            warnings.filterwarnings("ignore", message=message)
        # What monitors a metric looks at it after our evaluations (`on_validation_end`), not where an epoch ends.
        trainer.check_val_every_n_epoch = None
        # Small networks gain nothing by more; where the environment says how many threads, it has its say.
        if "OMP_NUM_THREADS" not in os.environ:
            self._threads = torch.get_num_threads()
            torch.set_num_threads(1)
        self.stopping = FitEnd(trainer)
        if (number := rank()) > 0:
            leave_to_first_learner(trainer)
            seed = derived_seed(self.seed, *b"learner", number)  # other episodes than the first one's
            self.mode.collection = replace(self.mode.collection, seed=seed)
        self.mode.begin()  # a checkpoint, if any, is loaded after this

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = trainer_of(self)
        learner = module_of(trainer)
        self.mode.check(learner)
        dataset = self.mode.open(learner, self.stopping)
        # Its generator, of which nothing comes: else it draws from torch's own.
        return DataLoader(dataset, batch_size=None, collate_fn=_as_it_is, generator=torch.Generator())

    def transfer_batch_to_device(self, batch: RolloutBatch, device: torch.device, dataloader_index: int) -> Any:
        if device.type == "cpu":  # already there; Lightning's walk over the fields takes longer than a look
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_index)

    def close(self) -> None:
        """Stop the workers, and give torch its threads back. Idempotent."""
        self.mode.close()
        if self._threads is not None:
            torch.set_num_threads(self._threads)
            self._threads = None

    def teardown(self, stage: str) -> None:
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        return self.mode.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mode.load_state_dict(state_dict)


def _as_it_is(batch: Any) -> Any:
    return batch
