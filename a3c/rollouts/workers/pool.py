"""Starts worker processes, hands their rollouts on, and replaces those that die or hang.

Knows nothing of RL: a worker's task is a callable, and a rollout is a slot with an owner.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from multiprocessing import connection
from typing import Any

import torch

from a3c.batch import BatchShape, Lost, Rollout
from a3c.rollouts.workers.failures import BAD_VALUES, WORKER_DEATH, Death, Failure, Failures, RestartPolicy, WorkerError
from a3c.rollouts.workers.fork_server import start_fork_server
from a3c.rollouts.workers.handle import WorkerHandle, describe_end
from a3c.rollouts.workers.heartbeat import Heartbeat
from a3c.rollouts.workers.process import Task
from a3c.rollouts.workers.shared_memory import shared_zeros

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05  # between two looks at the workers while there is enough to hand on
SERVER_SECONDS = 5.0  # in which a fork server that was killed is gone, so that another one can be started


class WorkerPool:
    """A pool of processes, each with a pipe and slots of its own.

    Args:
        task: what every worker does.
        workers: number of processes, at least 1.
        slots_per_worker: buffers of each; with two one is filled while the other is read, with
            none workers only report.
        shape: what a slot holds; None without slots.
        policy: what becomes of workers that die or hang.
        on_death: told of a death before the next worker takes its place.
        should_stop: asked while workers start; none is left then.

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
        policy: RestartPolicy | None = None,
        on_death: Callable[[Death], None] = lambda death: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._task = task
        self._count = workers
        self._slots_per_worker = slots_per_worker
        self._shape = shape
        self._policy = policy or RestartPolicy()
        self._on_death = on_death
        self._should_stop = should_stop
        self._workers: list[WorkerHandle] = []
        self._heartbeats: list[Heartbeat] = []
        self._failures = Failures(self._policy, workers)
        self._arrived: deque[Any] = deque()  # rollouts, losses and reports
        self._started = False  # all have been ready once
        self._looked = 0.0
        self.exit_codes: list[int] = []
        self._stop = torch.zeros(1, dtype=torch.bool)

    def start(self) -> None:
        """Start the workers and wait until each is ready; none steps before all are.

        Raises:
            WorkerError: one raised in its set-up, or several died or hung in it.
        """
        self._stop = shared_zeros(1, dtype=torch.bool)
        self._heartbeats = Heartbeat.allocate(self._count)
        self._failures.begin()
        self._started = False
        try:
            for number in range(self._count):
                self._workers.append(self._launch(number, 0))
            while not all(worker.ready for worker in self._workers):
                if self._should_stop():
                    self.close()
                    return
                self._look(0.2)
        except BaseException:
            self.close()
            raise
        self._started = True
        for worker in self._workers:
            worker.give_all()

    def _launch(self, number: int, restarts: int) -> WorkerHandle:
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            start_fork_server()  # it may have died as well
            try:
                return WorkerHandle(
                    number,
                    restarts,
                    self._task,
                    self._slots_per_worker,
                    self._shape,
                    self._heartbeats[number],
                    self._stop,
                )
            except (ConnectionError, EOFError):  # it was killed, and is not quite gone yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_SECONDS)

    @property
    def exhausted(self) -> bool:
        """All workers have used up their episode budget, and nothing is waiting."""
        return bool(self._workers) and all(worker.finished for worker in self._workers) and not self._arrived

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def is_alive(self, worker: int) -> bool:
        """Return whether a worker's process runs."""
        return worker < len(self._workers) and self._workers[worker].is_alive

    def get(self, timeout: float) -> Any:
        """Return the next rollout, loss or report in order of arrival, or None after the timeout.

        After `close` it gives the reports that nobody had read by then.

        Args:
            timeout: seconds.

        Raises:
            WorkerError: a worker failed, and is not replaced.
        """
        if self._workers and not (self._arrived and time.monotonic() - self._looked < LOOK_SECONDS):
            self._look(0.0 if self._arrived else timeout)
        return self._arrived.popleft() if self._arrived else None

    def _look(self, timeout: float) -> None:
        """Take in whatever has been sent, and notice who died or hangs."""
        alive = [worker for worker in self._workers if not worker.finished]
        handles = [handle for worker in alive for handle in (worker.connection, worker.exit_handle)]
        ready = set(connection.wait(handles, timeout))
        self._looked = time.monotonic()
        for worker in alive:
            if worker.connection in ready:
                self._receive(worker)
            elif worker.exit_handle in ready:
                self._fail(worker)
            elif self._policy.timeout is not None and worker.is_silent(self._policy.timeout):
                self._end_silent(worker, self._policy.timeout)

    def _receive(self, worker: WorkerHandle) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):  # it is about to be gone; if not, it is made so
            self._fail(worker)
            return
        worker.be_heard()
        if message[0] == "error":
            self._fail(worker, Failure.of(message))
        else:
            self._take_in(worker, message)

    def _take_in(self, worker: WorkerHandle, message: tuple[Any, ...]) -> None:
        match message:
            case ("ready",):
                worker.ready = True
                if self._started:  # it replaces another one; at first all begin together
                    worker.give_all()
            case ("rollout", slot, fragment):
                self._failures.forget(worker.number)
                self._arrived.append(self._rollout(worker, slot, fragment))
            case ("report", report, is_last):
                self._failures.forget(worker.number)
                worker.finished = is_last
                self._arrived.append(report)

    def _rollout(self, worker: WorkerHandle, slot: int, fragment: Any) -> Rollout | Lost:
        batch = worker.take(slot).first(fragment.length)
        if fragment.discarded is not None:
            log.warning("worker %d: a rollout is discarded: %s", worker.number, fragment.discarded)
            steps = batch.real_steps(fragment.length)
            worker.give(slot)
            return Lost(worker.number, steps, BAD_VALUES)
        worker.finished = fragment.is_last
        release = partial(worker.give, slot)
        return Rollout(batch, fragment.episodes, worker.number, fragment.is_last, release)

    def _end_silent(self, worker: WorkerHandle, timeout: float) -> None:
        stack = worker.stack()
        self._fail(worker, Failure(f"gave no sign of life for {timeout:g} s (worker_timeout) and was killed: {stack}"))

    def _fail(self, worker: WorkerHandle, failure: Failure | None = None) -> None:
        """End a worker that failed, and put another one in its place or raise.

        It is killed and gone before anything else happens: nothing of it is written any more.

        Args:
            worker: which one.
            failure: what is known of it; None leaves that to its last message and its exit code.
        """
        worker.end(0.2 if failure is None or failure.raised else 0.0)
        for message in worker.messages_left():
            if message[0] == "error":
                failure = Failure.of(message)
            else:
                self._take_in(worker, message)
        steps = worker.steps_lost()
        words = worker.close()
        if worker.finished:  # all that was expected of it has come
            return
        if failure is None:
            failure = Failure("\n".join(part for part in (describe_end(worker.exit_code), words) if part))
        self._replace(worker, failure, steps)

    def _replace(self, worker: WorkerHandle, failure: Failure, steps: int) -> None:
        reason = self._failures.reason_to_give_up(worker.number, failure, worker.ready or worker.restarts > 0)
        self._on_death(Death(worker.number, steps, reason is None))
        self._arrived.append(Lost(worker.number, steps, WORKER_DEATH))
        what = f"worker {worker.number} {failure.what}"
        if reason is not None:
            raise WorkerError(f"{reason}{what}")
        log.warning("%s\nworker %d is replaced (restart %d)", what, worker.number, worker.restarts + 1)
        self._workers[worker.number] = self._launch(worker.number, worker.restarts + 1)

    def close(self, grace: float = 2.0) -> None:
        """Stop all workers; those that do not stop within the grace are killed. Idempotent."""
        if not self._workers:
            return
        self._stop[0] = True
        running = [worker for worker in self._workers if not worker.closed]
        for worker in running:
            worker.dismiss()
        deadline = time.monotonic() + grace
        self._read_what_is_left(running, deadline)
        for worker in running:
            worker.end(max(0.0, deadline - time.monotonic()))
            worker.close()
        self.exit_codes = [worker.exit_code for worker in self._workers]
        self._workers = []
        # Only those who read on may have use for it: rollouts and losses are no longer news.
        self._arrived = deque(item for item in self._arrived if not isinstance(item, (Rollout, Lost)))

    def _read_what_is_left(self, workers: list[WorkerHandle], deadline: float) -> None:
        """Read what workers still send, so that none blocks on a full pipe and no report is lost."""
        talking = {worker.connection: worker for worker in workers if not worker.finished}
        while talking and (left := deadline - time.monotonic()) > 0:
            for pipe in connection.wait(list(talking), left):
                worker = talking[pipe]  # type: ignore[index]
                try:
                    message = worker.connection.recv()
                    if message[0] != "error":  # a fault now comes too late to matter
                        self._take_in(worker, message)
                except (EOFError, OSError):
                    worker.finished = True
                if worker.finished:
                    del talking[pipe]  # type: ignore[arg-type]
