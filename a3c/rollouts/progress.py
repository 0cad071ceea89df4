"""Counters and clock of a run: what was trained, what was dropped, and how long it took."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, zip_longest
from statistics import fmean
from typing import Any

from a3c.batch import Episode
from a3c.peers.agreement import exchange, gather, size

WINDOW = 50  # episodes of the running means
REASONS = ("max_lag", "inject_lag", "bad_update", "bad_values", "worker_death")  # for which env steps are dropped
LONG_WINDOW = 350  # 50 episodes of each of the book's 7 workers, as in its plots


class TrainClock:
    """Seconds of training: from its start on, with the pauses left out."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those of a resumed run's past included."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def start(self) -> None:
        """Start or go on."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Stop; the seconds stay."""
        self._before, self._started = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside, evaluation for one."""
        running = self._started is not None
        self.stop()
        try:
            yield
        finally:
            if running:
                self.start()


class Progress:
    """What a run has used of its budget.

    Always ``collected = trained + dropped + in flight``: every step handed over by a collector is
    in one of the three. Of several learners each counts its own steps; what they count by then becomes what all
    have counted when they `share`.

    Attributes:
        trained: env steps that an update has used.
        update_steps: of them, those of the update at hand.
        dropped: env steps discarded, by reason.
        collected: env steps handed over by collectors.
        episodes: whole episodes seen.
        worker_deaths: workers that died, or were killed since they hung.
        worker_restarts: those of them that were replaced.
        clock: seconds of training.
    """

    def __init__(self) -> None:
        self.trained = self.update_steps = 0
        self.dropped: Counter[str] = Counter()
        self.collected = 0
        self.episodes = 0
        self.worker_deaths = self.worker_restarts = 0
        self.clock = TrainClock()
        self._recent: deque[Episode] = deque(maxlen=LONG_WINDOW)
        self._rate_mark = (0.0, 0)
        self._new: deque[Episode] = deque(maxlen=LONG_WINDOW)  # that no other learner knows of yet
        self._agreed = self._counts()

    @property
    def env_steps(self) -> int:
        """Env steps used of the budget, and every x-axis: trained and dropped ones."""
        return self.trained + self.dropped.total()

    @property
    def in_flight(self) -> int:
        """Env steps collected, but neither trained nor dropped yet."""
        return self.collected - self.env_steps

    def reject(self, env_steps: int) -> None:
        """Take trained steps back, as dropped: their update was skipped."""
        self.trained -= env_steps
        self.dropped["bad_update"] += env_steps

    def add_episodes(self, episodes: list[Episode]) -> None:
        """Count whole episodes, in time order."""
        self.episodes += len(episodes)
        self._recent.extend(episodes)
        self._new.extend(episodes)

    def share(self, *more: float) -> list[list[float]]:
        """Take in what all other learners have counted since the last time; return further numbers of each learner."""
        if size() == 1:
            return [list(more)]
        before, now = self._agreed, self._counts()
        rows = exchange([*(now[name] - before[name] for name in now), *more])
        sums = [int(sum(column)) for column in zip(*rows, strict=True)]
        self._agreed = {name: before[name] + total for name, total in zip(now, sums, strict=False)}
        for name, value in self._agreed.items():
            if name in REASONS:
                self.dropped[name] = value
            else:
                setattr(self, name, value)
        return [row[len(now) :] for row in rows]

    def share_episodes(self) -> None:
        """Have the running means speak of the episodes of all learners, in turn."""
        mine, self._new = list(self._new), deque(maxlen=LONG_WINDOW)
        before = list(self._recent)[: max(0, len(self._recent) - len(mine))]
        in_turn = chain.from_iterable(zip_longest(*gather(mine)))
        self._recent = deque((*before, *(each for each in in_turn if each is not None)), maxlen=LONG_WINDOW)

    def _counts(self) -> dict[str, int]:
        names = ("trained", "collected", "episodes", "worker_deaths", "worker_restarts")
        return {name: getattr(self, name) for name in names} | {reason: self.dropped[reason] for reason in REASONS}

    def metrics(self) -> dict[str, float]:
        """Return the counters and the running means of the last episodes, by metric key."""
        metrics = {
            "env_steps": float(self.env_steps),
            "rollout/episodes": float(self.episodes),
            "time/train_seconds": self.clock.seconds,
            "rollout/dropped_env_steps": float(self.dropped.total()),
            "workers/deaths": float(self.worker_deaths),
            "workers/restarts": float(self.worker_restarts),
        }
        if recent := self.last_episodes(WINDOW):
            metrics["rollout/episode_return"] = fmean(episode.episode_return for episode in recent)
            metrics["rollout/episode_length"] = fmean(episode.length for episode in recent)
        return metrics

    def last_episodes(self, count: int) -> list[Episode]:
        """Return up to `count` of the last whole episodes, in time order; 350 of them are kept."""
        return list(self._recent)[-count:]

    @property
    def long_run_episode_length(self) -> float | None:
        """Mean length of the last 350 episodes; None before the first one."""
        return fmean(episode.length for episode in self._recent) if self._recent else None

    def take_rate(self) -> float:
        """Return env steps a second of training since the last call; 0 if no time has passed."""
        seconds, steps = self.clock.seconds, self.env_steps
        mark_seconds, mark_steps = self._rate_mark
        self._rate_mark = (seconds, steps)
        return (steps - mark_steps) / (seconds - mark_seconds) if seconds > mark_seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; what was in flight is lost with the workers."""
        return {
            "trained": self.trained,
            "dropped": dict(self.dropped),
            "episodes": self.episodes,
            "worker_deaths": self.worker_deaths,
            "worker_restarts": self.worker_restarts,
            "train_seconds": self.clock.seconds,
            "recent": [tuple(episode) for episode in self._recent],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.trained = state["trained"]
        self.dropped = Counter(state["dropped"])
        self.collected = self.env_steps
        self.episodes = state["episodes"]
        self.worker_deaths, self.worker_restarts = state["worker_deaths"], state["worker_restarts"]
        self.clock = TrainClock(state["train_seconds"])
        self._recent = deque((Episode(*episode) for episode in state["recent"]), maxlen=LONG_WINDOW)
        self._rate_mark = (self.clock.seconds, self.env_steps)
        self._agreed = self._counts()
