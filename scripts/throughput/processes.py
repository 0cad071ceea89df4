"""Measures what processes add: messages through pipes, and how much slower cores are while all of them are busy."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

from a3c.batch import Episode
from a3c.rollouts.collector import CollectorSpec, Fragment
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask
from a3c.rollouts.workers.resources import available_cores
from a3c.training.cli.command import TrainCLI
from throughput.clock import Clock
from throughput.model import Curve
from throughput.runs import core_seconds

PIPES = (1, 64)  # workers for which a look at their pipes is timed


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
