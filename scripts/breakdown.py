"""Where a step's time goes: the parts of a collector's fragment and of a learner's update, timed alone."""

from __future__ import annotations

import itertools
import pickle
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset

from a3c import A3C, Collector, MLPActorCritic, NStep, RolloutBatch, RolloutDataModule
from a3c.batch import BatchShape, empty_batch
from a3c.cli import TRAINER_DEFAULTS
from a3c.rollouts.weights import SharedWeights

Record = dict[str, Any]


class Setting:
    """A collector, a batch of it and the learner for it, of one size.

    Args:
        length: steps of a fragment.
        columns: environments.
    """

    def __init__(self, length: int = 32, columns: int = 64) -> None:
        torch.set_num_threads(1)
        self.length, self.columns = length, columns
        self.data = RolloutDataModule(envs_per_worker=columns, max_env_steps=10**12)
        self.network = MLPActorCritic(self.data.observation_space, self.data.action_space)
        self.weights = SharedWeights(self.network)
        actor = pickle.loads(pickle.dumps(self.network))
        self.collector = Collector(self.data.env.make(columns), actor, self.weights, seed=1)
        self.batch = empty_batch(BatchShape(length, columns, (4,), torch.float32))
        self.collector.collect(self.batch)
        self.module = A3C(self.network, NStep(length))

    def record(self, who: str, part: str, seconds: float) -> Record:
        """Gives one part as a record, in microseconds a fragment or update and nanoseconds a step."""
        return {
            "part": "breakdown",
            "who": who,
            "of": part,
            "microseconds": round(seconds * 1e6, 1),
            "nanoseconds_a_step": round(seconds * 1e9 / (self.length * self.columns), 1),
        }


def timed(call: Callable[[], Any], repetitions: int) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(repetitions + 3):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def worker(repetitions: int) -> Iterator[Record]:
    """Times a fragment's parts in the collector."""
    setting = Setting()
    collector, network = setting.collector, setting.collector.network
    rows = setting.batch.observations[0]
    actions = setting.batch.actions[0].numpy()
    generator = torch.Generator()
    shape = (setting.length, setting.columns, 2)
    with torch.inference_mode():
        logits = network.actor(rows)
        noise = network.distribution.noise(shape, generator)
        parts = {
            "environment": setting.length * timed(lambda: collector.env.step(actions), repetitions),
            "policy": setting.length * timed(lambda: network.actor(rows), repetitions),
            "sampling": timed(lambda: network.distribution.noise(shape, generator), repetitions)
            + setting.length * timed(lambda: network.distribution(logits).sample(noise[0]), repetitions),
            "pull": timed(lambda: setting.weights.pull(network), repetitions),
        }
    whole = timed(lambda: collector.collect(setting.batch), repetitions)
    yield from _records(setting, "worker", parts, "writing and episodes", whole)


def learner(repetitions: int) -> Iterator[Record]:
    """Times an update's parts in the learner, and the update in the Trainer."""
    setting = Setting()
    module, network, batch = setting.module, setting.network, setting.batch
    optimizer = module.configure_optimizers()

    def backward() -> float:
        loss, _ = module.objective(network, batch)
        started = time.perf_counter()
        loss.backward()
        return time.perf_counter() - started

    with torch.no_grad():
        _, values = network(batch.observations)
        discounts = torch.full_like(batch.rewards, 0.99)
        estimator = timed(lambda: module.returns(batch, values, batch.behaviour_log_probs, discounts), repetitions)
    forward = timed(lambda: network(batch.observations), repetitions)
    objective = timed(lambda: module.objective(network, batch), repetitions)
    parts = {
        "network": forward,
        "estimator": estimator,
        "losses": objective - forward - estimator,
        "backward": statistics.median(backward() for _ in range(repetitions)),
        "clipping": timed(lambda: module.configure_gradient_clipping(optimizer), repetitions),
        "optimizer": timed(optimizer.step, repetitions),
        "publish": timed(lambda: setting.weights.publish(network), repetitions),
    }
    yield from _records(setting, "learner", parts, "Trainer and logging", _update_in_trainer(setting, repetitions))


class _Repeat(IterableDataset[RolloutBatch]):
    def __init__(self, batch: RolloutBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[RolloutBatch]:
        return itertools.repeat(self.batch)


def _update_in_trainer(setting: Setting, repetitions: int) -> float:
    """Seconds of a whole update on one batch over and over, without any collection."""
    module, batch = setting.module, setting.batch
    module.weights = setting.weights
    trainer = Trainer(**{**TRAINER_DEFAULTS, "max_steps": repetitions + 3})
    data = setting.data
    data.train_dataloader = lambda: DataLoader(
        _Repeat(batch), batch_size=None, collate_fn=lambda item: item
    )
    stamps: list[float] = []
    optimizer_step = module.optimizer_step

    def stamped(*args: Any, **kwargs: Any) -> None:
        optimizer_step(*args, **kwargs)
        stamps.append(time.perf_counter())

    module.optimizer_step = stamped
    trainer.fit(module, data)
    return statistics.median(after - before for before, after in itertools.pairwise(stamps))


def _records(setting: Setting, who: str, parts: dict[str, float], rest: str, whole: float) -> Iterator[Record]:
    for part, seconds in parts.items():
        yield setting.record(who, part, seconds)
    yield setting.record(who, rest, whole - sum(parts.values()))
    yield setting.record(who, "all", whole)
