"""Measures the parts of a run with its own objects: the collector, the Trainer with its dataset, pipes and workers."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from breakdown import Stopwatch
from lightning.pytorch import Callback
from scaling_model import Curve, Parts
from scaling_runs import core_seconds, make

from a3c.batch import Episode, Rollout, RolloutBatch, empty_batch
from a3c.networks.policy import Policy
from a3c.rollouts.collector import Collector, CollectorSpec, Fragment, Life
from a3c.rollouts.weights import SharedWeights
from a3c.rollouts.workers.heartbeat import Heartbeat
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask
from a3c.rollouts.workers.resources import available_cores
from a3c.runs.metrics_file import MetricsFile
from a3c.training.cli.command import TrainCLI
from a3c.training.seams import callbacks_of, data_of, log_every

CHUNKS = 8  # of which the median is taken
PIPES = (1, 64)  # workers for which a look at their pipes is timed


class Lap(NamedTuple):
    """A stretch of this thread's time, in seconds.

    Attributes:
        wall: without what it waited for a core that others had.
        core: that the process was on cores, all threads together.
    """

    wall: float
    core: float


class Clock:
    """Times stretches of this thread; other programs on the machine count as little as can be."""

    def __init__(self) -> None:
        self._begun = self._read()

    @staticmethod
    def _read() -> tuple[float, float]:
        """Return the wall's and the process's seconds, the former without those spent in the kernel's queue."""
        try:
            queued = int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) * 1e-9
        except OSError:  # not on Linux
            queued = 0.0
        return time.perf_counter() - queued, time.process_time()

    def lap(self) -> Lap:
        """Return the stretch since the last call, or since the beginning."""
        before, self._begun = self._begun, self._read()
        return Lap(self._begun[0] - before[0], self._begun[1] - before[1])


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
    for _ in range(3):
        collector.collect(out)
    watch, rows = Stopwatch(), []
    watch.wrap(collector.env, "step", "env")
    watch.wrap(collector._policy, "choose", "forward")
    watch.wrap(collector.weights, "pull", "once")
    watch.wrap(collector, "_whole_episodes", "once")
    watch.wrap(collector._policy, "log_probs", "once")
    watch.wrap(collector, "_look_at", "once")
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(rows) < CHUNKS:
        weights.publish(cli.model.network)
        watch.seconds.clear()
        clock, begun = Clock(), time.perf_counter()
        collector.collect(out)
        lap, wall = clock.lap(), time.perf_counter() - begun
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
    rows, laps = batch.observations.unbind(0), []
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


def pipes(episodes: list[Episode]) -> tuple[float, Curve]:
    """Return the seconds to announce a rollout, and to receive one of n workers and to give its slot back."""
    message = ("rollout", 0, Fragment(1, episodes, False))
    here, there = multiprocessing.Pipe()
    sends, receives = [], []
    for _ in range(200):
        clock = Clock()
        there.send(message)
        sends.append(clock.lap().wall)
        here.recv()
        here.send(0)
        receives.append(clock.lap().wall)
        there.recv()
    looks = [_look(workers, here) for workers in PIPES]
    here.close()
    there.close()
    send, receive = statistics.median(sends), statistics.median(receives)
    return send, Curve(tuple(map(float, PIPES)), tuple(receive + look for look in looks))


def _look(workers: int, one: Any) -> float:
    """Return the seconds of one look at the pipes and the exits of so many workers."""
    ends = [multiprocessing.Pipe() for _ in range(2 * workers)]
    ends[0][1].send(None)
    laps = []
    for _ in range(100):
        clock = Clock()
        connection.wait([mine for mine, _ in ends], 1.0)
        laps.append(clock.lap().wall)
    for pair in ends:
        for end in pair:
            end.close()
    return statistics.median(laps)


def answer(pipe: Any) -> None:
    """Send back whatever comes, until None does."""
    while (word := pipe.recv()) is not None:
        pipe.send(word)


def round_trip(times: int = 300) -> float:
    """Return the seconds of a message to another process and its answer."""
    context = multiprocessing.get_context("forkserver")
    mine, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs,), daemon=True)
    process.start()
    laps = []
    for _ in range(times):
        begun = time.perf_counter()
        mine.send(0)
        mine.recv()
        laps.append(time.perf_counter() - begun)
    mine.send(None)
    process.join(5)
    return statistics.median(laps)


def slowdown(cli: TrainCLI, spec: CollectorSpec, seconds: float) -> float:
    """Return by what factor a rollout takes longer, in seconds on a core, while as many workers as cores collect."""
    cores = available_cores()
    if cores == 1:
        return 1.0
    alone, together = (_core_seconds_of_rollout(cli, spec, workers, seconds / 2) for workers in (1, cores))
    return max(1.0, together / alone)


def _core_seconds_of_rollout(cli: TrainCLI, spec: CollectorSpec, workers: int, seconds: float) -> float:
    collection, module = cli.datamodule.mode.collection, cli.model
    shape = collection.shape(module.returns.horizon, spec.num_envs, module.network.state_shape)
    pool = WorkerPool(CollectTask(spec), workers, 2, shape)
    try:
        pool.start()
        for _ in _received(pool, seconds / 4):
            pass
        before = sum(map(_core_nanoseconds, pool.pids))
        rollouts = sum(1 for _ in _received(pool, seconds))
        return (sum(map(_core_nanoseconds, pool.pids)) - before) * 1e-9 / max(1, rollouts)
    finally:
        pool.close()


def _received(pool: WorkerPool, seconds: float) -> Iterator[None]:
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        rollout = pool.get(0.1)
        if rollout is not None:
            rollout.release()
            yield


def _core_nanoseconds(pid: int) -> float:
    try:
        return float(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0])
    except OSError:
        return core_seconds(pid) * 1e9
