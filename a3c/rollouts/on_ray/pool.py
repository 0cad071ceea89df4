"""A pool of Ray's actors: the same contract as that of our own processes, on any number of machines."""

from __future__ import annotations

import logging
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import cloudpickle
import torch

from a3c.batch import BatchShape, Lost, Rollout, RolloutBatch
from a3c.rollouts.collector import CollectorSpec, Life
from a3c.rollouts.on_ray.actor import READ_ONLY, RayWorker
from a3c.rollouts.on_ray.cluster import Cluster
from a3c.rollouts.on_ray.weights import SentWeights
from a3c.rollouts.workers.failures import (
    BAD_VALUES,
    WORKER_DEATH,
    Death,
    Failure,
    Failures,
    RestartPolicy,
    WorkerError,
)

log = logging.getLogger(__name__)

START_SECONDS = 120.0  # for the first actors: processes start, and import torch
GLANCE_SECONDS = 1.0  # most silence that one look adds: while nobody looks, time says nothing of an actor
LOOK_SECONDS = 0.2  # longest wait in which nothing else is noticed
CLOSE_SECONDS = 2.0


class ActorHandle:
    """An actor as its pool sees it.

    Args:
        number: of the worker.
        restarts: workers that had this number before.
        episodes: of the budget, that they have used.
        make: starts the actor.

    Attributes:
        orders: to collect, that are not answered yet, in their order.
        ready: whether its set-up is over.
        finished: whether nothing more comes from it.
    """

    def __init__(self, number: int, restarts: int, episodes: int, make: Callable[[Life], Any]) -> None:
        self.number, self.restarts, self.episodes = number, restarts, episodes
        self.actor = make(Life(number, restarts, episodes))
        self.greeting: Any = self.actor.ready.remote()
        self.orders: deque[Any] = deque()
        self.ready = self.finished = False
        self._looked = time.monotonic()
        self._silence = 0.0
        self._signs, self._question = -1, None
        self._is_stuck = False  # it has been asked since its last sign of life, and had none to tell of

    @property
    def next_answer(self) -> Any:
        """What is to come from it next; None if nothing is."""
        if self.finished:
            return None
        return self.orders[0] if self.ready and self.orders else None if self.ready else self.greeting

    def be_heard(self) -> None:
        """Take note of a sign of life."""
        self._silence, self._is_stuck = 0.0, False

    def is_silent(self, seconds: float) -> bool:
        """Take a look; return whether it has been at work for so long without a sign of life.

        One look adds no more than a second, as with our own processes: nobody may have looked for long.
        """
        now = time.monotonic()
        self._silence += min(now - self._looked, GLANCE_SECONDS)
        self._looked = now
        if not self.ready:  # its process starts, or there is no room for it
            return self._silence > START_SECONDS
        if not self.orders:
            self.be_heard()
        elif self._silence > min(GLANCE_SECONDS, seconds / 2):
            self._ask()
        return self._is_stuck and self._silence > seconds

    def _ask(self) -> None:
        """Ask how often environments have come back from calls, and take in the last answer to that."""
        import ray

        if self._question is None:
            self._question = self.actor.signs.remote()
            return
        self._is_stuck = True
        if ray.wait([self._question], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):
                if (signs := ray.get(self._question)) != self._signs:
                    self._signs = signs
                    self.be_heard()
            self._question = None

    def kill(self) -> None:
        """End the actor at once."""
        import ray

        with suppress(Exception):  # it may be gone, and the cluster as well
            ray.kill(self.actor, no_restart=True)


class RayPool:
    """Workers as Ray's actors, each with several orders at a time.

    Args:
        spec: what each collects with.
        weights: that go with each order.
        workers: number of actors, at least 1.
        orders: rollouts of each that are being collected or read at the same time, at least 1.
        shape: of a rollout.
        cluster: where they run.
        policy: what becomes of workers that die or hang.
        on_death: told of a death before the next worker takes its place.
        should_stop: asked while workers start; none is left then.

    Attributes:
        exit_codes: none: the processes are Ray's.
    """

    def __init__(
        self,
        spec: CollectorSpec,
        weights: SentWeights,
        workers: int,
        orders: int,
        shape: BatchShape,
        cluster: Cluster,
        policy: RestartPolicy | None = None,
        on_death: Callable[[Death], None] = lambda death: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._spec, self._weights, self._shape, self._cluster = spec, weights, shape, cluster
        self._count, self._orders = workers, orders
        self._policy = policy or RestartPolicy()
        self._failures = Failures(self._policy, workers)
        self._on_death, self._should_stop = on_death, should_stop
        self._workers: list[ActorHandle] = []
        self._arrived: deque[Rollout | Lost] = deque()
        self._make: Callable[[Life], Any] | None = None
        self._is_ours = self._started = False
        self.exit_codes: list[int] = []

    def start(self) -> None:
        """Start the actors and wait until each is ready.

        Raises:
            WorkerError: the cluster has no room for them, or one raised in its set-up.
        """
        try:
            self._is_ours = self._cluster.connect(self._count)
            if (room := self._cluster.room()) < self._count:
                raise WorkerError(
                    f"workers: got {self._count} of {self._cluster.cores:g} cores each, must be at most {room}: the "
                    "cluster has no more cores"
                )
            self._make = self._maker()
            self._failures.begin()
            self._workers = [ActorHandle(number, 0, 0, self._make) for number in range(self._count)]
            self._started = False
            while not all(worker.ready for worker in self._workers):
                if self._should_stop():
                    self.close()
                    return
                self._look(LOOK_SECONDS)
        except BaseException:
            self.close()
            raise
        self._started = True
        for worker in self._workers:
            self._order(worker, self._orders)

    def _maker(self) -> Callable[[Life], Any]:
        import ray

        spec = ray.put(cloudpickle.dumps(self._spec))
        actor = ray.remote(
            num_cpus=self._cluster.cores,
            max_restarts=0,  # another one takes its place, with other seeds
            concurrency_groups={"signs": 1},
            scheduling_strategy="SPREAD",
        )(_with_signs_apart())
        return lambda life: actor.remote(spec, life, self._shape)

    def _order(self, worker: ActorHandle, number: int = 1) -> None:
        """Have a worker collect rollouts with the newest weights."""
        if worker.finished or worker not in self._workers:
            return
        for _ in range(number):
            if not worker.orders:
                worker.be_heard()
            worker.orders.append(worker.actor.collect.remote(*self._weights.stored()))

    @property
    def exhausted(self) -> bool:
        """All workers have used up their episode budget, and nothing is waiting."""
        return bool(self._workers) and all(worker.finished for worker in self._workers) and not self._arrived

    def get(self, timeout: float) -> Rollout | Lost | None:
        """Return the next rollout or loss in order of arrival, or None after the timeout.

        Args:
            timeout: seconds.

        Raises:
            WorkerError: a worker failed, and is not replaced.
        """
        if self._workers and not self._arrived:
            self._look(timeout)
        return self._arrived.popleft() if self._arrived else None

    def _look(self, timeout: float) -> None:
        """Take in whatever has come, and notice who died or hangs."""
        import ray

        expected = {worker.next_answer: worker for worker in self._workers if worker.next_answer is not None}
        if not expected:
            time.sleep(min(timeout, LOOK_SECONDS))
        elif ray.wait(list(expected), num_returns=1, timeout=timeout)[0]:
            # All that are there: taken one at a time, those of the first workers would always come first.
            for answer in ray.wait(list(expected), num_returns=len(expected), timeout=0)[0]:
                self._take_in(expected[answer], answer)
        for worker in list(self._workers):
            if self._policy.timeout is None or not worker.is_silent(self._policy.timeout):
                continue
            if worker.ready:
                words = f"gave no sign of life for {self._policy.timeout:g} s (worker_timeout) and was killed"
            else:
                words = f"has not started within {START_SECONDS:g} s: the cluster has no room, or its set-up hangs"
            self._fail(worker, Failure(words))

    def _take_in(self, worker: ActorHandle, answer: Any) -> None:
        import ray

        try:
            message = ray.get(answer)
        except ray.exceptions.RayError as error:
            text = str(error).strip()  # of one that could not be made the whole: it says why
            self._fail(worker, Failure(f"is gone: {text.partition(chr(10))[0] if worker.ready else text}"))
            return
        worker.be_heard()
        if not worker.ready:
            if message is not None:
                self._fail(worker, Failure.of(message))
                return
            worker.ready = True
            if self._started:  # at first all begin together
                self._order(worker, self._orders)
            return
        worker.orders.popleft()
        match message:
            case None:
                worker.finished = True
            case ("error", *_):
                self._fail(worker, Failure.of(message))
            case ("rollout", fields, fragment):
                self._failures.forget(worker.number)
                self._arrived.append(self._rollout(worker, fields, fragment))

    def _rollout(self, worker: ActorHandle, fields: list[Any], fragment: Any) -> Rollout | Lost:
        batch = RolloutBatch(*map(torch.from_numpy, fields))
        if fragment.discarded is not None:
            log.warning("worker %d: a rollout is discarded: %s", worker.number, fragment.discarded)
            self._order(worker)
            return Lost(worker.number, int(batch.mask.sum()), BAD_VALUES)
        worker.episodes += len(fragment.episodes)
        worker.finished = fragment.is_last
        return Rollout(batch, fragment.episodes, worker.number, fragment.is_last, partial(self._order, worker))

    def _fail(self, worker: ActorHandle, failure: Failure) -> None:
        """End a worker that failed, and put another one in its place or raise."""
        worker.kill()
        if worker.finished:
            return
        reason = self._failures.reason_to_give_up(worker.number, failure, worker.ready or worker.restarts > 0)
        self._on_death(Death(worker.number, 0, reason is None))
        self._arrived.append(Lost(worker.number, 0, WORKER_DEATH))  # what it had not sent yet nobody has counted
        what = f"worker {worker.number} {failure.what}"
        if reason is not None:
            raise WorkerError(f"{reason}{what}")
        log.warning("%s\nworker %d is replaced (restart %d)", what, worker.number, worker.restarts + 1)
        assert self._make is not None, "made in start()"
        self._workers[worker.number] = ActorHandle(worker.number, worker.restarts + 1, worker.episodes, self._make)

    def close(self) -> None:
        """End the actors, and the Ray that was started for them. Idempotent."""
        if self._make is None and not self._is_ours:
            return
        import ray

        if self._workers and ray.is_initialized():
            with suppress(Exception):
                ready = [worker.actor for worker in self._workers if worker.ready]
                stopping = [actor.stop.remote() for actor in ready]
                closing = stopping + [actor.close.remote() for actor in ready]
                ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
            for worker in self._workers:
                worker.kill()
        self._workers, self._make = [], None
        self._arrived.clear()
        self._weights.forget()
        if self._is_ours:
            ray.shutdown()
            self._is_ours = False


def _with_signs_apart() -> type[RayWorker]:
    """Return the actor's class, with methods that are answered while another one is at work."""
    import ray

    class Worker(RayWorker):
        signs = ray.method(concurrency_group="signs")(RayWorker.signs)
        stop = ray.method(concurrency_group="signs")(RayWorker.stop)

    Worker.__name__ = Worker.__qualname__ = RayWorker.__name__
    return Worker


warnings.filterwarnings("ignore", message=READ_ONLY)
