"""A simulation of the queue between workers and learner, event by event: what the closed forms are checked against."""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import NamedTuple

from throughput.model import Setup


class Simulated(NamedTuple):
    """What came out of a simulation, its first fifth left out.

    Attributes:
        updates_per_second: of the learner.
        lag: mean policy lag, in updates.
        learner_busy: share of the time in which the learner works.
    """

    updates_per_second: float
    lag: float
    learner_busy: float


def simulate(
    setup: Setup,
    collect: float,
    update: float,
    *,
    variation: float = 0.0,
    updates: int = 2000,
    seed: int = 1,
    together: bool = False,
) -> Simulated:
    """Simulate mode async on a machine with cores enough.

    A worker fills one of its slots after another, and waits where none is free. The learner takes rollouts in order of
    arrival, R an update; it publishes the next version, then gives the slots back.

    Args:
        setup: W, R and the slots of a worker.
        collect: mean seconds for a rollout, > 0.
        update: seconds for an update, > 0.
        variation: standard deviation of a rollout's seconds over their mean, ≥ 0; they follow a gamma distribution.
        updates: to be simulated, ≥ 10.
        seed: of the rollouts' seconds, and of when each worker begins.
        together: all workers begin at once; else at any time within a rollout's seconds.

    Raises:
        ValueError: the argument, what was given, and what is allowed.
    """
    for name, value, least in (("collect", collect, 0.0), ("update", update, 0.0), ("updates", updates - 9.5, 0.0)):
        if not value > least:
            given = updates if name == "updates" else value
            raise ValueError(f"{name}: got {given}, must be {'at least 10' if name == 'updates' else 'above 0'}")
    if variation < 0:
        raise ValueError(f"variation: got {variation}, must be at least 0")
    return _Queue(setup, collect, update, variation, random.Random(seed), together).run(updates)


class _Queue:
    """The state of one simulation: which slots are free, what has arrived, and who is at work."""

    def __init__(
        self, setup: Setup, collect: float, update: float, variation: float, draws: random.Random, together: bool
    ) -> None:
        self.rollouts, self.collect, self.update, self.variation = (
            setup.rollouts_per_update,
            collect,
            update,
            variation,
        )
        self.draws = draws
        self.free = [setup.slots] * setup.workers
        self.collecting = [False] * setup.workers
        self.arrived: deque[tuple[int, int]] = deque()  # worker, version that it acted with
        self.training: list[tuple[int, int]] = []
        self.version = 0
        self.events: list[tuple[float, int, int]] = []  # time, worker or −1 for the learner, version
        self.lags: list[float] = []  # mean of each update
        self.ends: list[float] = []
        for worker in range(setup.workers):
            self.begin(worker, 0.0 if together else draws.uniform(0, collect))

    def begin(self, worker: int, now: float) -> None:
        """Have a worker begin a rollout, if it has a free slot and is idle."""
        if self.free[worker] and not self.collecting[worker]:
            self.free[worker] -= 1
            self.collecting[worker] = True
            heapq.heappush(self.events, (now + self.seconds(), worker, self.version))

    def seconds(self) -> float:
        """Draw a rollout's seconds."""
        if self.variation == 0:
            return self.collect
        shape = self.variation**-2
        return self.draws.gammavariate(shape, self.collect / shape)

    def learn(self, now: float) -> None:
        """Have the learner begin an update, if it is idle and enough has arrived."""
        if not self.training and len(self.arrived) >= self.rollouts:
            self.training = [self.arrived.popleft() for _ in range(self.rollouts)]
            self.lags.append(self.version - sum(version for _, version in self.training) / self.rollouts)
            heapq.heappush(self.events, (now + self.update, -1, 0))

    def run(self, updates: int) -> Simulated:
        """Go from event to event until so many updates are made."""
        while len(self.ends) < updates:
            now, who, version = heapq.heappop(self.events)
            if who >= 0:
                self.collecting[who] = False
                self.arrived.append((who, version))
                self.begin(who, now)
            else:
                self.ends.append(now)
                self.version += 1
                used, self.training = self.training, []
                for worker, _ in used:
                    self.free[worker] += 1
                    self.begin(worker, now)
            self.learn(now)
        first = updates // 5
        rate = (updates - 1 - first) / (self.ends[-1] - self.ends[first])
        lags = self.lags[first:updates]
        return Simulated(rate, sum(lags) / len(lags), min(1.0, rate * self.update))
