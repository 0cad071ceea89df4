"""The LightningDataModule: environments, workers and budget of a run, set up as its estimator asks."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from a3c.batch import BatchShape, RolloutBatch
from a3c.envs import EnvSpec
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.dataset import RolloutDataset, RolloutSource
from a3c.rollouts.inline import InlineSource
from a3c.rollouts.pool import WorkerPool
from a3c.rollouts.progress import Progress
from a3c.rollouts.segments import SegmentJoiner
from a3c.rollouts.weights import SharedWeights
from a3c.rollouts.worker import CollectTask

MODES = ("sync", "async")


class RolloutDataModule(LightningDataModule):
    """Environments, workers and the budget; gives the Trainer its stream of batches.

    The module that is trained says how rollouts are cut, by its estimator's `horizon` and
    `end_at_episode`. Nothing is started before the fit.

    Args:
        env: Gymnasium id; "module:Name-v0" imports the module first, in workers too.
        env_kwargs: arguments of the environment's constructor.
        max_episode_steps: time limit in steps instead of the environment's own.
        mode: "async": worker processes collect while the learner learns; "sync": one collector in
            this process, never stale, reproducible bit for bit.
        workers: worker processes, ≥ 1; unused in "sync".
        envs_per_worker: environments stepped together by a worker, and columns of a rollout, ≥ 1.
        rollouts_per_update: rollouts that one update trains on, ≥ 1.
        fragment_steps: steps between two pulls of the weights for estimators without a horizon, ≥ 1.
        max_env_steps: the run's budget in env steps, > 0, or None.
        max_episodes_per_worker: its budget in episodes of each worker, > 0, or None; a worker ends
            with the fragment in which it reaches it.
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
        mode: Literal["sync", "async"] = "async",
        workers: int = 1,
        envs_per_worker: int = 32,
        rollouts_per_update: int = 1,
        fragment_steps: int = 32,
        max_env_steps: int | None = 500_000,
        max_episodes_per_worker: int | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode: got {mode!r}, must be one of {', '.join(MODES)}")
        counts = {
            "workers": workers,
            "envs_per_worker": envs_per_worker,
            "rollouts_per_update": rollouts_per_update,
            "fragment_steps": fragment_steps,
            "max_env_steps": max_env_steps,
            "max_episodes_per_worker": max_episodes_per_worker,
            "max_episode_steps": max_episode_steps,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, must be at least 1")
        if max_env_steps is None and max_episodes_per_worker is None:
            raise ValueError("max_env_steps: got none, must be at least 1 unless max_episodes_per_worker is given")
        if seed < 0:
            raise ValueError(f"seed: got {seed}, must be at least 0")
        self.env = EnvSpec(env, dict(env_kwargs or {}), max_episode_steps)
        self.mode = mode
        self.workers = workers if mode == "async" else 1
        self.envs_per_worker = envs_per_worker
        self.rollouts_per_update = rollouts_per_update
        self.fragment_steps = fragment_steps
        self.max_env_steps = max_env_steps
        self.max_episodes_per_worker = max_episodes_per_worker
        self.seed = seed
        self.progress = Progress()
        self.source: RolloutSource | None = None
        probe = self.env.make(1)
        self.observation_space: gymnasium.Space[Any] = probe.single_observation_space
        self.action_space: gymnasium.Space[Any] = probe.single_action_space
        probe.close()

    def setup(self, stage: str) -> None:
        self.progress = Progress()  # a checkpoint, if any, is loaded after this

    def train_dataloader(self) -> DataLoader[RolloutBatch]:
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches the trainer first"
        module: Any = trainer.lightning_module
        horizon, end_at_episode = module.returns.horizon, module.returns.end_at_episode
        segmented = end_at_episode or horizon is None
        self.check_horizon(horizon)
        module.weights = SharedWeights(module.network)
        self.source = self._make_source(module, horizon or self.fragment_steps, segmented)
        dataset = RolloutDataset(
            self.source,
            self.progress,
            rollouts_per_update=self.rollouts_per_update,
            max_env_steps=0 if self._episodes_left() == 0 else self.max_env_steps,
            joiner=SegmentJoiner(horizon) if segmented else None,
            segments_per_rollout=self.envs_per_worker,
            on_last_batch=lambda: setattr(trainer, "should_stop", True),
            should_stop=lambda: trainer.should_stop,
        )
        return DataLoader(dataset, batch_size=None, collate_fn=_as_it_is)

    def _make_source(self, module: Any, length: int, segmented: bool) -> RolloutSource:
        spec = CollectorSpec(
            self.env,
            self.envs_per_worker,
            pickle.dumps(module.network),
            module.weights,
            self._collection_seed(),
            end_with_episodes=segmented,
            max_episodes=self._episodes_left(),
        )
        shape = self._batch_shape(length, self.envs_per_worker)
        if self.mode == "sync":
            return InlineSource(spec, shape, buffers=self.rollouts_per_update)
        # One slot is filled while another is read; and the rollouts of one update, which are held
        # until all of them are there, must leave at least one slot to fill.
        slots = max(2, -(-self.rollouts_per_update // self.workers) + 1)
        return WorkerPool(CollectTask(spec), self.workers, slots, shape)

    def _collection_seed(self) -> int:
        """Gives the seed of environments and actions; a resumed run does not repeat its beginning."""
        steps = self.progress.env_steps
        return self.seed if steps == 0 else int(np.random.SeedSequence((self.seed, steps)).generate_state(1)[0])

    def _episodes_left(self) -> int | None:
        """Gives the rest of a worker's episode budget; a checkpoint's episodes are shared out evenly."""
        if self.max_episodes_per_worker is None:
            return None
        return max(0, self.max_episodes_per_worker - self.progress.episodes // self.workers)

    def _batch_shape(self, length: int, columns: int) -> BatchShape:
        observation, dtype = self.observation_space.shape, self.observation_space.dtype
        assert observation is not None, "a Box has a shape"
        assert dtype is not None, "a Box has a dtype"
        return BatchShape(length, columns, observation, getattr(torch, dtype.name))

    def check_horizon(self, horizon: int | None) -> None:
        """Refuses an estimator of whole episodes where the longest ones would not fit in memory.

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
        columns = self.workers * self.envs_per_worker + self.rollouts_per_update * self.envs_per_worker
        needed, available = self._batch_shape(limit, columns).nbytes, _available_memory()
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

    def close(self) -> None:
        """Stops the workers. Idempotent."""
        if self.source is not None:
            self.source.close()

    def teardown(self, stage: str) -> None:
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        return {"progress": self.progress.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.progress.load_state_dict(state_dict["progress"])


def _as_it_is(batch: Any) -> Any:
    return batch


def _available_memory() -> int:
    """Bytes that can be taken without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize
