"""Starts worker processes, hands their rollouts on, notices their death and stops them.

Knows nothing of RL: a worker's task is a callable, and a rollout is a slot with an owner.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from contextlib import suppress
from functools import partial
from multiprocessing import connection
from typing import Any

import torch.multiprocessing

from a3c.batch import BatchShape, Rollout
from a3c.rollouts.forkserver import start_fork_server
from a3c.rollouts.memory import shared_zeros
from a3c.rollouts.worker import SlotMemory, Task, run_worker


class WorkerError(RuntimeError):
    """A worker raised, or died: with its traceback, or the name of its signal."""


class WorkerPool:
    """A pool of processes, each with a pipe and slots of its own.

    Args:
        task: what every worker does.
        workers: number of processes, at least 1.
        slots_per_worker: buffers of each; with two one is filled while the other is read, with
            none workers only report.
        shape: what a slot holds; None without slots.
        start_timeout: seconds for all workers to get ready.

    Attributes:
        exit_codes: of the workers, once the pool is closed; that of a worker that was killed is
            the negative number of the signal.
    """

    def __init__(
        self,
        task: Task,
        workers: int,
        slots_per_worker: int = 0,
        shape: BatchShape | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self._task = task
        self._count = workers
        self._slots_per_worker = slots_per_worker
        self._shape = shape
        self._start_timeout = start_timeout
        self._processes: list[Any] = []
        self._connections: list[connection.Connection] = []
        self._memories: list[SlotMemory | None] = []
        self._views: list[Any] = []
        self._finished: set[int] = set()
        self._arrived: deque[Any] = deque()  # rollouts and reports
        self.exit_codes: list[int] = []
        self._unready: set[int] = set()
        self._stop = torch.zeros(1, dtype=torch.bool)

    def start(self) -> None:
        """Starts the workers and waits until each is ready; none steps before all are.

        Raises:
            WorkerError: one failed in its set-up, or took longer than the timeout.
        """
        start_fork_server()
        context = torch.multiprocessing.get_context("forkserver")
        self._unready, self._finished = set(range(self._count)), set()
        self._stop = shared_zeros(1, dtype=torch.bool)
        try:
            for worker in range(self._count):
                memory = SlotMemory.allocate(self._shape, self._slots_per_worker) if self._shape else None
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=run_worker,
                    args=(worker, self._task, memory, self._stop, theirs),
                    name=f"a3c-worker-{worker}",
                    daemon=True,
                )
                process.start()
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
                self._memories.append(memory)
                self._views.append(memory.views() if memory else [])
            deadline = time.monotonic() + self._start_timeout
            while self._unready:
                if time.monotonic() > deadline:
                    raise WorkerError(f"workers {sorted(self._unready)} were not ready after {self._start_timeout} s")
                self._wait(0.5)
        except BaseException:
            self.close()
            raise
        for worker in range(self._count):
            for slot in range(self._slots_per_worker):
                self._give(worker, slot)

    @property
    def exhausted(self) -> bool:
        """All workers have used up their episode budget, and nothing is waiting."""
        return len(self._finished) == self._count and not self._arrived

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes]

    def is_alive(self, worker: int) -> bool:
        """Whether a worker's process runs."""
        return worker < len(self._processes) and bool(self._processes[worker].is_alive())

    def get(self, timeout: float) -> Any:
        """Gives the next rollout or report in order of arrival, or None after the timeout.

        After `close` it gives the reports that nobody had read by then.

        Args:
            timeout: seconds.

        Raises:
            WorkerError: a worker raised or died.
        """
        if not self._arrived and self._processes:
            self._wait(timeout)
        return self._arrived.popleft() if self._arrived else None

    def _wait(self, timeout: float) -> None:
        """Takes in whatever has been sent, and notices deaths."""
        alive = [worker for worker in range(self._count) if worker not in self._finished]
        handles: list[Any] = []
        for worker in alive:
            handles += [self._connections[worker], self._processes[worker].sentinel]
        ready = set(connection.wait(handles, timeout))
        for worker in alive:
            if self._connections[worker] in ready:
                self._receive(worker)
            elif self._processes[worker].sentinel in ready:
                self._raise_death(worker)

    def _receive(self, worker: int) -> None:
        try:
            message = self._connections[worker].recv()
        except (EOFError, ConnectionResetError):
            self._raise_death(worker)
        self._take_in(worker, message)

    def _take_in(self, worker: int, message: tuple[Any, ...]) -> None:
        match message:
            case ("ready",):
                self._unready.discard(worker)
            case ("rollout", slot, fragment):
                if fragment.is_last:
                    self._finished.add(worker)
                self._arrived.append(
                    Rollout(
                        self._views[worker][slot].first(fragment.length),
                        fragment.episodes,
                        worker,
                        fragment.is_last,
                        partial(self._give, worker, slot),
                    )
                )
            case ("report", report, is_last):
                if is_last:
                    self._finished.add(worker)
                self._arrived.append(report)
            case ("error", text):
                raise WorkerError(f"worker {worker} failed:\n{text}")

    def _raise_death(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(5)
        code = process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exited with {code}"
        raise WorkerError(f"worker {worker} {how}")

    def _give(self, worker: int, slot: int) -> None:
        if worker in self._finished or not self._connections:
            return
        # If it died, the next wait sees its sentinel, with the reason.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connections[worker].send(slot)

    def close(self, grace: float = 2.0) -> None:
        """Stops all workers; those that do not stop within the grace are killed. Idempotent."""
        if not self._processes:
            return
        self._stop[0] = True
        for worker, pipe in enumerate(self._connections):
            if worker not in self._finished:
                with suppress(BrokenPipeError, ConnectionResetError):
                    pipe.send(None)
        deadline = time.monotonic() + grace
        self._read_last_words(deadline)
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in self._processes:
            if process.is_alive():
                process.kill()
                process.join()
        self.exit_codes = [process.exitcode for process in self._processes]
        for pipe in self._connections:
            pipe.close()
        self._processes, self._connections, self._memories, self._views = [], [], [], []
        # Rollouts have lost their memory; reports stay.
        self._arrived = deque(item for item in self._arrived if not isinstance(item, Rollout))

    def _read_last_words(self, deadline: float) -> None:
        """Reads what workers still send, so that none blocks on a full pipe and no report is lost."""
        talking = {self._connections[worker]: worker for worker in range(self._count) if worker not in self._finished}
        while talking and (left := deadline - time.monotonic()) > 0:
            for pipe in connection.wait(list(talking), left):
                worker = talking[pipe]  # type: ignore[index]
                try:
                    self._take_in(worker, self._connections[worker].recv())
                except (EOFError, ConnectionResetError, WorkerError):  # a fault now comes too late to matter
                    self._finished.add(worker)
                if worker in self._finished:
                    del talking[pipe]  # type: ignore[arg-type]
