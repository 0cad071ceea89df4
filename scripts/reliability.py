"""Measures how quickly failures are noticed and mended: the table in docs/reliability.md.

``python scripts/reliability.py`` takes six minutes; median and worst of the repetitions. All of it
is of ``scripts/train.py`` as a whole, but for the death and the hang of a worker, which are timed
on a worker pool in this process.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from processes import marked_environment, processes_of, seconds_until_gone, shared_names, wait_until

TRAIN = Path(__file__).resolve().parent / "train.py"
FAULTY = "a3c.envs.faulty:Faulty-v0"


class Measured:
    """Seconds by what was measured."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, what: str, seconds: float) -> None:
        """Adds a repetition."""
        self.seconds.setdefault(what, []).append(seconds)

    def print(self) -> None:
        """Prints a line each: repetitions, median and worst."""
        width = max(map(len, self.seconds))
        print(f"{'seconds':{width}}  {'runs':>4} {'median':>8} {'worst':>8}")
        for what, seconds in self.seconds.items():
            print(f"{what:{width}}  {len(seconds):4} {statistics.median(seconds):8.3f} {max(seconds):8.3f}")


def make_pool(timeout: float, deaths: list[Any], **faults: Any) -> Any:
    """Gives a pool of two workers, and appends what it tells of deaths, with the time."""
    from a3c import MLPActorCritic
    from a3c.batch import BatchShape
    from a3c.envs.spec import EnvSpec
    from a3c.rollouts.collector import CollectorSpec
    from a3c.rollouts.weights import SharedWeights
    from a3c.rollouts.workers.failures import RestartPolicy
    from a3c.rollouts.workers.pool import WorkerPool
    from a3c.rollouts.workers.process import CollectTask

    space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    network = MLPActorCritic(space, gymnasium.spaces.Discrete(2))
    weights = SharedWeights(network)
    spec = CollectorSpec(EnvSpec(FAULTY, faults), 8, pickle.dumps(network), weights, seed=0)
    policy = RestartPolicy(timeout, True, max_restarts=10_000)
    shape = BatchShape(32, 8, (2,), torch.float32)
    return WorkerPool(CollectTask(spec), 2, 2, shape, policy, lambda death: deaths.append(time.monotonic()))


def next_rollout(pool: Any, worker: int, first_env_id: int = 0) -> float:
    """Waits for a rollout of a worker with other environments than those of its past lives; gives the time."""
    from a3c.batch import Rollout

    end = time.monotonic() + 60
    while time.monotonic() < end:
        item = pool.get(0.01)
        if isinstance(item, Rollout):
            wanted = item.worker == worker and int(item.batch.env_ids[0]) > first_env_id
            item.release()
            if wanted:
                return time.monotonic()
    raise TimeoutError(f"no rollout of worker {worker} within a minute")


def lives(restarts: int) -> int:
    """Gives an id below which all environments of a worker's earlier lives lie."""
    from a3c.rollouts.collector import LINEAGE, LIVES

    return restarts * LIVES * LINEAGE - 1


def measure_deaths(measured: Measured, repetitions: int) -> None:
    """Kills a worker of two, again and again."""
    deaths: list[float] = []
    pool = make_pool(30.0, deaths, kind="none")
    pool.start()
    try:
        for repetition in range(repetitions):
            next_rollout(pool, 0, lives(repetition))
            killed = time.monotonic()
            os.kill(pool.pids[0], signal.SIGKILL)
            first = next_rollout(pool, 0, lives(repetition + 1))
            measured.add("death of a worker, until noticed", deaths[-1] - killed)
            measured.add("death of a worker, until the first rollout of the next", first - killed)
    finally:
        pool.close()


def measure_hangs(measured: Measured, repetitions: int, kind: str) -> None:
    """Lets a worker of two hang once, from which the other's rollouts go on."""
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as folder:
            marker, deaths = Path(folder, "hangs"), []  # type: tuple[Path, list[float]]
            pool = make_pool(1.0, deaths, kind=kind, at_step=1000, worker=0, once=str(marker))
            pool.start()
            try:
                first = next_rollout(pool, 0, lives(1))
                began = time.monotonic() - (time.time() - marker.stat().st_mtime)
                measured.add(f"{kind}, deadline 1 s, until killed", deaths[-1] - began)
                measured.add(f"{kind}, deadline 1 s, until the first rollout of the next", first - began)
            finally:
                pool.close()


def start(folder: Path, mark: str, *flags: str) -> subprocess.Popen[bytes]:
    """Starts a run that would not end by itself."""
    command = [sys.executable, str(TRAIN), "--run_dir", str(folder / "run"), "--data.max_env_steps", str(10**15)]
    command += ["--stop_when_solved", "false", "--evaluation.every_env_steps", "null", *flags]
    with (folder / "output").open("w", encoding="utf-8") as output:
        return subprocess.Popen(
            command, env=marked_environment(mark), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def end(measured: Measured, what: str, number: signal.Signals, *flags: str) -> None:
    """Sends a signal to a run that trains, and takes the time until it has ended with all that it started."""
    mark, names = uuid.uuid4().hex, shared_names()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = start(folder, mark, *flags)
        try:
            metrics = folder / "run" / "metrics.csv"
            wait_until(lambda: metrics.exists() or process.poll() is not None, 60, "the first metrics")
            time.sleep(1.0)
            sent = time.monotonic()
            process.send_signal(number)
            status = process.wait(60)
            seconds = time.monotonic() - sent
            if number == signal.SIGKILL:
                seconds = seconds_until_gone(mark, 10)
            elif status != 128 + number or not (folder / "run" / "checkpoints" / "last.ckpt").exists():
                raise SystemExit(f"{what}: status {status}\n{(folder / 'output').read_text(encoding='utf-8')[-2000:]}")
            measured.add(what, seconds)
            seconds_until_gone(mark, 10)
            wait_until(lambda: not shared_names() - names, 10, "an empty /dev/shm")
        finally:
            for left in processes_of(mark):
                with suppress(ProcessLookupError):
                    os.kill(left.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    measured = Measured()
    measure_deaths(measured, 4 * repetitions)
    for kind in ("hang", "hang_holding_gil", "stop"):
        measure_hangs(measured, repetitions, kind)
    for mode in ("sync", "async", "hogwild"):
        for _ in range(repetitions):
            killed = f"{mode}: the parent's SIGKILL, until no process is left"
            end(measured, killed, signal.SIGKILL, "--mode", mode)
            end(measured, f"{mode}: SIGTERM, until exit 143 with a checkpoint", signal.SIGTERM, "--mode", mode)
    waits = ["--mode", "async", "--data.env", FAULTY, "--data.env_kwargs", '{"kind": "hang", "at_step": 3000}']
    for _ in range(repetitions):
        end(measured, "async, waiting for a worker that hangs: SIGTERM, until exit 143", signal.SIGTERM, *waits)
    measured.print()


if __name__ == "__main__":  # workers import this file again
    main()
