"""Starts the runs of a comparison as Ray's actors: one for each run, on the nodes of a cluster."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from a3c.comparison.on_ray.actor import RunActor, first_missing
from a3c.comparison.programs import STATUS_UNKNOWN, Program
from a3c.rollouts.on_ray.cluster import Cluster
from a3c.rollouts.workers.failures import WorkerError
from a3c.training.cli.usage import UsageError

MAX_RESTARTS = 3  # of a run whose node was lost
PLACE_SECONDS = 120.0  # in which Ray notices that a node is lost, and chooses another one
AGAIN_SECONDS = 2.0  # between two tries of that
NODE_SECONDS = 120.0  # in which a node starts a process of Python and answers
LOOK_SECONDS = 0.05
FAILED = 1

log = logging.getLogger(__name__)


class RemoteProgram:
    """A program on a node that Ray chooses, started again on another one if that is lost.

    Args:
        program: what runs.
        make_actor: makes the actor of a start.

    Attributes:
        returncode: its exit status, -n after signal n; None while it runs or waits for room.
    """

    def __init__(self, program: Program, make_actor: Callable[[], Any]) -> None:
        self._program, self._make_actor = program, make_actor
        self._restarts = 0
        self._is_stopping = False
        self._signals: deque[int] = deque()  # sent at the next look: a signal handler must not call Ray
        self._actor: Any = None
        self._begin_at = time.monotonic()
        self._node = "a node"  # its name, once it is known
        self._unplaced_since: float | None = None  # when the first of these actors was lost that had no node yet
        self.returncode: int | None = None

    def _begin(self) -> None:
        self._actor = self._make_actor()
        self._where = self._actor.node.remote()
        self._status: Any = None

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs or waits for room."""
        import ray

        if self.returncode is None:
            try:
                self._look()
            except ray.exceptions.RayTaskError as error:  # raised there: it cannot be started
                self._end(FAILED, f"error: cannot be started on {self._node}: {error.cause}")
            except ray.exceptions.RayError as error:
                self._lose(str(error).strip().partition("\n")[0])
        return self.returncode

    def _look(self) -> None:
        import ray

        if self._actor is None:
            if self._signals:  # nothing is there to be told
                self._end(-signal.SIGINT)
            elif time.monotonic() >= self._begin_at:
                self._begin()
            return
        if self._status is None:
            if self._signals:  # nothing was started yet
                self._end(-signal.SIGINT)
                return
            if not ray.wait([self._where], timeout=0)[0]:
                return
            self._node = ray.get(self._where)
            self._status = self._actor.run.remote(self._program, self._restarts > 0)
        while self._signals:
            self._actor.send.remote(self._signals.popleft())
        if ray.wait([self._status], timeout=0)[0]:
            self._end(ray.get(self._status))

    def _lose(self, why: str) -> None:
        """Have it started again after its actor was lost, unless it is told to stop or that was so too often.

        For a while Ray still gives a lost node to actors, and these are lost as well: such starts do not count.
        """
        now = time.monotonic()
        was_placed = self._status is not None
        if was_placed:
            self._restarts += 1
            self._unplaced_since = None
        elif self._unplaced_since is None:
            self._unplaced_since = now
        if self._is_stopping:
            self._end(-signal.SIGINT)
        elif self._restarts > MAX_RESTARTS:
            self._end(STATUS_UNKNOWN, f"error: lost on {self._node}, after {MAX_RESTARTS} restarts: {why}")
        elif self._unplaced_since is not None and now - self._unplaced_since > PLACE_SECONDS:
            self._end(STATUS_UNKNOWN, f"error: no node has started it within {PLACE_SECONDS:g} s: {why}")
        else:
            if was_placed:
                name, number = self._program.output.with_suffix(""), f"{self._restarts} of {MAX_RESTARTS}"
                log.warning("%s: lost on %s, started again (%s): %s", name, self._node, number, why)
            self._kill_actor()  # which may be there all the same, and only out of reach
            self._actor, self._begin_at = None, now + (0.0 if was_placed else AGAIN_SECONDS)

    def _end(self, status: int, line: str = "") -> None:
        """Take note of its end, and free the cores; a line that says why goes where its own errors are."""
        self.returncode = status
        if line:
            with suppress(OSError), self._program.output.open("a", encoding="utf-8") as output:
                output.write(f"{line}\n")
        self._kill_actor()

    def _kill_actor(self) -> None:
        import ray

        if self._actor is not None and ray.is_initialized():  # it would start a Ray otherwise
            with suppress(Exception):  # the cluster may be gone as well
                ray.kill(self._actor, no_restart=True)

    def send_signal(self, number: int) -> None:
        """Send it a signal with the next look, unless it has ended. From then on it is not started again."""
        if self.returncode is None:
            self._is_stopping = True
            self._signals.append(number)

    def kill(self) -> None:
        """Kill it, with all processes of its group."""
        self.send_signal(signal.SIGKILL)
        self.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self._program.output), timeout or 0.0)
            time.sleep(LOOK_SECONDS)
        return status


class RunsOnRay:
    """A connection to the Ray that runs are made on, as a context; a Ray that was started for it ends with it.

    Args:
        address: of a cluster; None for one that is started on this machine.
        cores: that each run takes.
        jobs: runs that a Ray on this machine has room for, whatever its cores.

    Raises:
        UsageError: there is no cluster at the address, or none of its nodes has so many cores.
    """

    def __init__(self, address: str | None, cores: int, jobs: int) -> None:
        self._cluster = Cluster(address, cores)
        try:
            self._is_ours = self._cluster.connect(jobs)
        except WorkerError as error:
            raise UsageError(str(error)) from error
        self.room = self._cluster.room()
        if self.room < 1:
            self.__exit__()
            raise UsageError(
                f"on: got ray, must be a cluster that has a node with {cores} cores, one for each process of a run "
                "that collects"
            )

    def __enter__(self) -> RunsOnRay:
        return self

    def __exit__(self, *args: object) -> None:
        import ray

        if self._is_ours:
            ray.shutdown()

    @property
    def in_words(self) -> str:
        """What runs are made on, in a phrase."""
        import ray

        nodes = len(_nodes())
        return f"Ray {ray.__version__} ({nodes} node{'s' if nodes > 1 else ''}, {self.room} runs at most at a time)"

    def check(self, folder: Path, others: Sequence[Path]) -> None:
        """Refuse a folder that not all nodes see, or nodes that lack something else. Nothing stays written.

        Args:
            folder: for the runs; it need not be there yet.
            others: files and folders that each node must have.

        Raises:
            UsageError: one does not see the folder, lacks another, or does not answer.
        """
        there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
        try:
            descriptor, token = tempfile.mkstemp(prefix=".a3c-", dir=there)
        except OSError as error:
            raise UsageError(f"output: got {str(folder)!r}, must be a folder that can be written: {error}") from error
        os.close(descriptor)
        try:
            for node, missing in self._missing([token, *map(str, others)]):
                if missing == token:
                    raise UsageError(
                        f"output: got {str(folder)!r}, must be a folder that every node of the cluster sees: "
                        f"{node} does not"
                    )
                if missing is not None:
                    raise UsageError(f"on: got ray, must be a cluster whose nodes all have {missing}: {node} has not")
        finally:
            os.unlink(token)

    def _missing(self, paths: Sequence[str]) -> list[tuple[str, str | None]]:
        """Return each node's name and the first path that is not there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = ray.remote(num_cpus=0, max_retries=0)(first_missing)
        asked = [
            (
                f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)),
            )
            for node in _nodes()
        ]
        answers = [(name, task.remote(paths)) for name, task in asked]
        deadline = time.monotonic() + NODE_SECONDS
        found: list[tuple[str, str | None]] = []
        for name, answer in answers:
            try:
                found.append((name, ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))))
            except ray.exceptions.RayError as error:  # a timeout, or a module that is not there
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise UsageError(f"on: got ray, must be a cluster whose nodes answer: {name}: {lines[-1]}") from error
        return found

    def start(self, program: Program) -> RemoteProgram:
        """Start a program as soon as a node has room for it."""
        import ray

        actor = ray.remote(
            num_cpus=self._cluster.cores,
            max_restarts=0,  # what it must not write over, the next one has to know
            max_concurrency=2,  # a signal, while the program runs
            scheduling_strategy="SPREAD",
        )(RunActor)
        return RemoteProgram(program, actor.remote)


def _nodes() -> list[Any]:
    """Return the nodes that have cores."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0]
