"""Runs of the real thing under a hard timeout, pools over environments that go wrong, and what must be left: nothing.

`Program` runs a script in a session of its own; `faulty_pool` gives a worker pool in this process, which is far
faster. Processes are found by a mark in their environment (`scripts/processes.py`), so orphans are found as well.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from helpers import make_network, make_spec
from processes import (
    MARK,
    marked_environment,
    processes_of,
    seconds_until_gone,
    shared_names,
    wait_until,
    workers_of,
)
from shared_server import PATHS, ROOT, shared_server

from a3c.batch import BatchShape, Lost
from a3c.comparison.programs import Program as ForkedProgram
from a3c.rollouts.collector import LINEAGE, LIVES
from a3c.rollouts.workers.failures import RestartPolicy
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask

TRAIN = ROOT / "scripts" / "train.py"
FAULTY = "a3c.envs.faulty:Faulty-v0"
OURS = os.environ[MARK] = f"pytest-{os.getpid()}"  # before the fork server starts, which inherits it
QUICK = [
    *("--stop_when_solved", "false", "--evaluation.every_env_steps", "1000000000", "--evaluation.episodes", "1"),
    *("--data.envs_per_worker", "2", "--trainer.log_every_n_steps", "1"),
]  # fmt: skip


class Program:
    """A script in a session of its own, whose output goes to files: a pipe would be held open by what is left of it.

    Args:
        folder: an empty folder, in which it runs.
        arguments: of the script.
        script: train.py by default.
        timeout: seconds until it is killed with all that it started.
        fresh: start it as a fresh command, where the start is what is tested; else it is forked.
        variables: further environment variables.
    """

    def __init__(self, folder, *arguments, script=TRAIN, timeout=180.0, fresh=False, **variables):
        self.folder, self.mark = folder, uuid.uuid4().hex
        self._names = shared_names()
        command = [sys.executable, str(script), *map(str, arguments)]
        environment = marked_environment(self.mark, PYTHONPATH=PATHS, PYTHONFAULTHANDLER="", **variables)
        files = (folder / "stdout", folder / "stderr")
        if fresh:
            with files[0].open("w") as out, files[1].open("w") as err:
                self.process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
        else:
            self.process = shared_server().start(ForkedProgram(command, environment, folder, *files))
        self.started = time.monotonic()  # when the server has imported all, and the script begins
        self._deadline = self.started + timeout
        self.seconds = None

    @property
    def output(self):
        return (self.folder / "stdout").read_text()

    @property
    def errors(self):
        return (self.folder / "stderr").read_text()

    @property
    def run_folder(self):
        return self.folder / "run"

    def summary(self):
        return json.loads((self.run_folder / "summary.json").read_text())

    def log(self):
        path = self.run_folder / "log.txt"
        return path.read_text() if path.exists() else ""

    def rows(self):
        """Lines of metrics.csv so far."""
        path = self.run_folder / "metrics.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def updates(self):
        """Updates made so far, as far as metrics.csv tells."""
        return max((float(row["updates"] or 0) for row in self.rows() if "updates" in row), default=0)

    def checkpoints(self):
        return sorted(path.name for path in (self.run_folder / "checkpoints").glob("*.ckpt"))

    def workers(self):
        """Process ids of its workers, in order of their start."""
        return [process.pid for process in workers_of(self.mark)]

    def send(self, number):
        self.process.send_signal(number)

    def wait_until(self, condition, seconds, what):
        """Waits for a condition while the program runs; says what it wrote if it does not come true."""

        def met():
            if condition():
                return True
            assert self.process.poll() is None, f"ended with {self.process.poll()} before {what}:\n{self.errors}"
            return False

        try:
            return wait_until(met, min(seconds, self._deadline - time.monotonic()), what)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.output}\n{self.errors}\n{self.log()}") from None

    def wait_for_updates(self, count, seconds=120.0):
        return self.wait_until(lambda: self.updates() >= count, seconds, f"{count} updates")

    def wait(self, seconds=None):
        """Waits for its end, and gives its exit status; fails after so many seconds, or at the hard timeout."""
        left = self._deadline - time.monotonic()
        try:
            status = self.process.wait(min(left, seconds or left))
        except subprocess.TimeoutExpired:
            processes = processes_of(self.mark)
            raise AssertionError(f"still runs:\n{self.output}\n{self.errors}\n{self.log()}\n{processes}") from None
        self.seconds = time.monotonic() - self.started
        return status

    def assert_clean(self, within=2.0):
        """No process of the run is left, nor any new name in /dev/shm."""
        seconds = seconds_until_gone(self.mark, within)
        assert_no_new_names(self._names)
        return seconds

    def kill(self):
        """Kills all that is left of it."""
        for process in processes_of(self.mark):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def running(folder, *arguments, within=2.0, **options):
    """Runs `scripts/train.py` into `folder`/run; asserts at the end that it has ended and left nothing."""
    program = Program(folder, *QUICK, "--run_dir", "run", *arguments, **options)
    try:
        yield program
        assert program.process.poll() is not None, "still runs"
        program.assert_clean(within)
    finally:
        program.kill()


def faulty(kind, **arguments):
    """Gives the flags of `scripts/train.py` for an environment that goes wrong."""
    return ["--data.env", FAULTY, "--data.env_kwargs", json.dumps({"kind": kind, **arguments})]


def complaints(errors):
    """Gives the lines of a run's stderr that are none of its progress."""
    return [line for line in errors.splitlines() if line.strip() and "% of the budget, " not in line]


def assert_no_new_names(before, seconds=3.0):
    """Fails if /dev/shm keeps new names; those of others come and go within a moment."""
    wait_until(lambda: not shared_names() - before, seconds, f"no new name in /dev/shm: {shared_names() - before}")


# ---------------------------------------------------------------- pools in this process

PATIENT = RestartPolicy(timeout=30.0, restart=True, max_restarts=10_000, window=60.0)
IMPATIENT = RestartPolicy(timeout=1.0, restart=True, max_restarts=10_000, window=60.0)
REPLACED_WITHIN = 5.0  # seconds from a death to the first rollout of the next worker
SLACK = 3.0  # this machine may be busy with other things: bounds of the table are asserted with so much more


class Collection:
    """A pool over environments that go wrong, and all that came out of it so far.

    Args:
        kind: see `a3c.envs.faulty.FaultyEnv`.
        workers: number of workers.
        slots: of each.
        num_envs: environments of each.
        steps: of a rollout.
        policy: what becomes of workers that die.
        task: of the workers; by default they collect.
        seed: of the run.
        arguments: of the environment.

    Attributes:
        deaths: that the pool told of.
        batches: copies of the rollouts, by worker.
        lost: env steps that the pool declared lost, by reason.
    """

    def __init__(
        self, kind="none", *, workers=2, slots=2, num_envs=1, steps=5, policy=PATIENT, task=None, seed=0, **arguments
    ):
        spec = make_spec(FAULTY, num_envs, arguments | {"kind": kind}, make_network(2, 2))
        self.spec = replace(spec, seed=seed)
        self.deaths, self.batches, self.lost = [], [[] for _ in range(workers)], Counter()
        shape = BatchShape(steps, num_envs, (2,), torch.float32)
        task = task or CollectTask(self.spec)
        self.pool = WorkerPool(task, workers, slots, shape, policy, self.deaths.append)

    def __enter__(self):
        self.pool.start()
        return self

    def __exit__(self, *_):
        pids = self.pool.pids
        self.pool.close()
        wait_until(lambda: not any(exists(pid) for pid in pids), 5, f"end of {pids}")

    def take(self, timeout=0.1, release=True):
        """Takes in the next item, if any comes; gives the rollout."""
        item = self.pool.get(timeout)
        if isinstance(item, Lost):
            self.lost[item.reason] += item.env_steps
        elif item is not None:
            self.batches[item.worker].append(item.batch.copy())
            if release:
                item.release()
            return item
        return None

    def until(self, condition, seconds, what):
        """Takes in items until a condition is true; gives the seconds that it took."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}; deaths: {self.deaths}"
            self.take()
        return time.monotonic() - start

    def until_rollouts(self, count, workers=None, seconds=20.0):
        """Takes in items until each of these workers has given so many more rollouts."""
        workers = range(len(self.batches)) if workers is None else workers
        goals = {worker: len(self.batches[worker]) + count for worker in workers}
        return self.until(
            lambda: all(len(self.batches[worker]) >= goal for worker, goal in goals.items()),
            seconds,
            f"{count} rollouts of workers {list(workers)}",
        )

    def until_replaced(self, worker, deaths=1, seconds=REPLACED_WITHIN + SLACK):
        """Takes in items until a worker has died so often and the one in its place has given a rollout."""
        return self.until(
            lambda: (
                sum(death.worker == worker for death in self.deaths) >= deaths
                and self.batches[worker]
                and restarts_of(self.batches[worker][-1]) >= deaths
            ),
            seconds,
            f"a rollout of the worker that replaces {worker}",
        )

    def steps(self, worker, restarts=None):
        """Real env steps that a worker handed over, or one of those that replaced it."""
        return sum(int(batch.mask.sum()) for batch in self.batches[worker] if restarts in (None, restarts_of(batch)))


def restarts_of(batch):
    """Number of the worker's life in which a rollout was made, from 0."""
    return int(batch.env_ids[0]) // (LIVES * LINEAGE)


def exists(pid):
    """Whether there is a process of this id, dead ones that nobody has reaped included."""
    return os.path.exists(f"/proc/{pid}")


def own_processes():
    """What carries this test process's mark, but for itself: fork server, resource tracker, workers, what they left."""
    return {process.pid: process for process in processes_of(OURS) if process.pid != os.getpid()}
