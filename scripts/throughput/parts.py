"""Measures the parts of a run with its own objects: the collector, the Trainer with its dataset, pipes and workers."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from breakdown import Stopwatch
from lightning.pytorch import Callback

from a3c.batch import Episode, Rollout, RolloutBatch, empty_batch
from a3c.networks.policy import Policy
from a3c.rollouts.collector import Collector, CollectorSpec, Life
from a3c.rollouts.weights import SharedWeights
from a3c.rollouts.workers.heartbeat import Heartbeat
from a3c.runs.metrics_file import MetricsFile
from a3c.training.cli.command import TrainCLI
from a3c.training.seams import callbacks_of, data_of, log_every
from throughput.clock import Clock
from throughput.model import Curve, Parts
from throughput.processes import pipes, round_trip, slowdown
from throughput.runs import make

CHUNKS = 8  # of which the median is taken
LEAST_FRAGMENTS = 2  # of environments so slow that more would take too long


class Collected(NamedTuple):
    """Seconds for a time step's parts, for what comes once a rollout, and the cores that are busy."""

    env: float
    forward: float
    writing: float
    rollout: float
    cores: float


def measure(flags: Sequence[str], seconds: float) -> Parts:
    """Measure all parts of the run that the flags describe.

    Args:
        flags: of scripts/train.py.
        seconds: to spend, about; building what is measured comes on top.

    Raises:
        UsageError: the flags cannot be used.
    """
    share = seconds / 12
    cli = make(flags)
    torch.set_num_threads(1)
    module, mode = cli.model, cli.datamodule.mode
    envs, length = mode.collection.envs_per_worker, module.returns.horizon
    mode.weights = SharedWeights(module.network)
    spec = mode._collector(module)
    sizes = sorted({max(1, envs // 8), max(1, envs // 2), envs, 2 * envs})
    collected = [collect(cli, replace(spec, num_envs=size), length, share) for size in sizes]
    env, forward, writing, rollout, cores = (
        Curve(tuple(map(float, sizes)), column) for column in zip(*collected, strict=True)
    )
    episodes = [Episode(0.0, 1)] * round(envs * length / 100)
    send, receive = pipes(episodes)
    passes = module.learning.reuse.passes
    own = learn(flags, mode.collection.rollouts_per_update, passes, 2 * share)
    double = learn(flags, 2 * mode.collection.rollouts_per_update, passes, 2 * share)
    more = learn(flags, mode.collection.rollouts_per_update, passes + 2, share)
    steps = float(envs * length * mode.collection.rollouts_per_update)
    return Parts(
        env,
        forwards(cli, forward, share),
        writing,
        rollout,
        cores,
        send,
        receive,
        Curve((steps, 2 * steps), (own, double)),
        passes,
        min(1.0 / passes, max(0.0, (more - own) / 2 / own)),
        round_trip(),
        slowdown(cli, spec, 2 * share),
    )


def medians(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of each column over chunks of rows that follow each other."""
    size = max(1, len(rows) // CHUNKS)
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    means = [[statistics.fmean(column) for column in zip(*chunk, strict=True)] for chunk in chunks]
    return [statistics.median(column) for column in zip(*means, strict=True)]


def collect(cli: TrainCLI, spec: CollectorSpec, length: int, seconds: float) -> Collected:
    """Time fragments of a collector, with new weights each, and a heartbeat as in a worker."""
    (heartbeat,) = Heartbeat.allocate(1)
    collector = spec.build(Life(), heartbeat.step)
    collection, network = cli.datamodule.mode.collection, cli.model.network
    out = empty_batch(collection.shape(length, spec.num_envs, network.state_shape))
    try:
        rows = _fragments(collector, out, cli, seconds)
    finally:
        collector.close()
    wall, core, env, forward, once = medians(rows)
    return Collected(env / length, forward / length, (wall - env - forward - once) / length, once, core / wall)


def _fragments(collector: Collector, out: RolloutBatch, cli: TrainCLI, seconds: float) -> list[list[float]]:
    """Return, of each fragment: wall, core, environment, forward, and what comes once a rollout, in seconds."""
    weights: Any = collector.weights
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds / 4:  # warm up
        collector.collect(out)
    watch, rows = Stopwatch(), list[list[float]]()
    watch.wrap(collector.env, "step", "env")
    watch.wrap(collector._policy, "choose", "forward")
    watch.wrap(collector.weights, "pull", "once")
    watch.wrap(collector, "_whole_episodes", "once")
    watch.wrap(collector._policy, "log_probs", "once")
    watch.wrap(collector, "_look_at", "once")
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(rows) < LEAST_FRAGMENTS:
        weights.publish(cli.model.network)
        watch.seconds.clear()
        clock, started = Clock(), time.perf_counter()
        collector.collect(out)
        lap, wall = clock.lap(), time.perf_counter() - started
        parts = [watch.seconds[name] * lap.wall / wall for name in ("env", "forward", "once")]
        rows.append([lap.wall, lap.core, *parts])
    return rows


def forwards(cli: TrainCLI, measured: Curve, seconds: float) -> Curve:
    """Continue the forward's curve to batches of the environments of many workers, timed alone."""
    network, collection = cli.model.network, cli.datamodule.mode.collection
    largest = int(measured.sizes[-1])
    sizes = [largest * factor for factor in (1, 8, 32)]  # the first one warms up
    alone = []
    for size in sizes:
        observations = collection.shape(1, size, network.state_shape)
        alone.append(_forward_alone(network, empty_batch(observations), seconds / len(sizes)))
    return Curve((*measured.sizes, *map(float, sizes[1:])), (*measured.seconds, *alone[1:]))


@torch.inference_mode()
def _forward_alone(network: Any, batch: RolloutBatch, seconds: float) -> float:
    policy = Policy(network, generator=torch.Generator().manual_seed(1))
    policy.begin_episodes(batch.columns)
    rows, laps = batch.observations.unbind(0), list[float]()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(laps) < 3:
        policy.begin_fragment(1, batch.columns)
        clock = Clock()
        policy.choose(rows[0])
        laps.append(clock.lap().wall)
    return statistics.median(laps)


class RepeatedRollout:
    """A source that gives one and the same rollout again and again.

    Args:
        batch: of it.
    """

    def __init__(self, batch: RolloutBatch) -> None:
        self._batch = batch
        self.exhausted = False

    def start(self) -> None:
        """Do nothing."""

    def get(self, timeout: float) -> Rollout:
        """Return it."""
        return Rollout(self._batch, [], 0, False, lambda: None)

    def close(self) -> None:
        """Do nothing."""


class _Laps(Callback):
    """Times the updates of a fit by stretches from one line of the log to the next, and ends it after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._deadline = seconds, 0.0
        self._clock = Clock()
        self.laps: list[float] = []  # seconds of an update

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        every = log_every(trainer)
        if module.updates % every:
            return
        lap = self._clock.lap()
        if module.updates >= 2 * every:  # the first ones warm up
            self.laps.append(lap.wall / every)
        self._deadline = self._deadline or time.perf_counter() + self._seconds
        if time.perf_counter() > self._deadline and len(self.laps) >= 3:
            data_of(trainer).stopping.stop()


def learn(flags: Sequence[str], rollouts: int, passes: int, seconds: float) -> float:
    """Return the seconds for an update in the real Trainer, on one rollout again and again, metrics.csv included."""
    cli = make([*flags, "--mode", "sync", "--data.rollouts_per_update", str(rollouts), "--model.passes", str(passes)])
    module, mode = cli.model, cli.datamodule.mode
    mode.weights = SharedWeights(module.network)
    collection = mode.collection
    collector = mode._collector(module).build(Life())
    batch = empty_batch(
        collection.shape(module.returns.horizon, collection.envs_per_worker, module.network.state_shape)
    )
    try:
        collector.collect(batch)
    finally:
        collector.close()
    mode.__dict__["_make_source"] = lambda *_: RepeatedRollout(batch)
    laps = _Laps(seconds)
    callbacks_of(cli.trainer).append(laps)
    with tempfile.TemporaryDirectory() as folder:
        cli.trainer.loggers = [MetricsFile(Path(folder) / "metrics.csv")]
        cli.trainer.fit(module, cli.datamodule)
    return statistics.median(laps.laps)
