"""What becomes of workers that fail, whatever they run on: they are replaced, until there is no point in it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

FRUITLESS = 3  # failures in a row of one worker that never handed anything over: there is no point in more
WORKER_DEATH, BAD_VALUES = "worker_death", "bad_values"  # reasons for which steps are dropped


class WorkerError(RuntimeError):
    """A worker failed, and is not replaced: with its traceback, or the name of its signal."""


@dataclass(frozen=True)
class RestartPolicy:
    """What becomes of workers that die or hang.

    Attributes:
        timeout: seconds without a sign of life after which a busy worker is killed, > 0; None for ever.
        restart: replace it; False ends the run.
        max_restarts: that many within the window, one more ends the run, ≥ 0.
        window: seconds, > 0.
    """

    timeout: float | None = None
    restart: bool = False
    max_restarts: int = 10
    window: float = 60.0


class Death(NamedTuple):
    """The end of a worker that was not asked to end.

    Attributes:
        worker: its number.
        env_steps: real steps of the fragment that it was writing.
        restarted: whether another one takes its place.
    """

    worker: int
    env_steps: int
    restarted: bool


@dataclass(frozen=True)
class Failure:
    """How a worker failed.

    Attributes:
        what: in words, to follow the worker's name.
        raised: whether its task raised, so that it ends by itself.
        fatal: whether another one would fail like it.
    """

    what: str
    raised: bool = False
    fatal: bool = False

    @classmethod
    def of(cls, message: tuple[Any, ...]) -> Failure:
        """Return the failure that a worker reported."""
        _, text, fatal = message
        return cls(f"failed:\n{text.rstrip()}", True, fatal)


class Failures:
    """Counts failures, and says when a worker is not replaced any more.

    Args:
        policy: what becomes of workers that die or hang.
        workers: number of them.
    """

    def __init__(self, policy: RestartPolicy, workers: int) -> None:
        self._policy, self._count = policy, workers
        self._restarts: deque[float] = deque()  # when there were any, within the window
        self.begin()

    def begin(self) -> None:
        """Begin anew with workers that have handed nothing over yet."""
        self._fruitless = [0] * self._count

    def forget(self, worker: int) -> None:
        """Take note that a worker has handed something over."""
        self._fruitless[worker] = 0

    def reason_to_give_up(self, worker: int, failure: Failure, was_ready: bool) -> str | None:
        """Explain why a worker is not replaced, as the beginning of the error's text; None, and counted, if it is.

        Args:
            worker: its number.
            failure: how it failed.
            was_ready: its set-up, or that of an earlier one of its number, was over.
        """
        policy, now = self._policy, time.monotonic()
        while self._restarts and now - self._restarts[0] > policy.window:
            self._restarts.popleft()
        self._fruitless[worker] += 1
        if failure.fatal or (failure.raised and not was_ready) or not policy.restart:
            return ""
        if len(self._restarts) >= policy.max_restarts:
            return f"workers were replaced {len(self._restarts)} times within {policy.window:g} s; now "
        if self._fruitless[worker] >= FRUITLESS:
            return f"{FRUITLESS} times in a row, before anything was handed over: "
        self._restarts.append(now)
        return None
