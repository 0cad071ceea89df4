"""What workers that learn by themselves have done so far, and the flag on which they hold still."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, get_args

import torch

from a3c.rollouts.workers.shared_memory import shared_zeros

CELLS = 16  # int64 a worker: two cache lines, so that no two workers write to the same
# Updates made and skipped, gradient steps made, and env steps: that workers have collected; that an update has used;
# and that none has, since the gradient was too old, the update was skipped, the worker died, or they were not finite.
Counter = Literal[
    "updates", "skipped", "gradient_steps", "collected", "trained", "dropped", "rejected", "lost", "discarded"
]
PLACES: dict[str, int] = {name: place for place, name in enumerate(get_args(Counter))}
USED = [PLACES[name] for name in ("trained", "dropped", "rejected", "lost", "discarded")]
STEPPING = len(PLACES)  # the mark of a worker inside a step
POLL_SECONDS = 0.0005  # between two looks of a worker that is held
SETTLE_SECONDS = 0.001  # until a raised flag is certainly seen by all cores
HOLD_SECONDS = 5.0  # longest wait for workers inside a step


class Tally:
    """Counters of all workers in shared memory, without a lock.

    A worker writes the cells of its own row alone, so no increment is lost; totals are sums over
    the rows. Whoever reads while others write gets a total that was true at some moment. What a
    worker left when it died is written off by the parent, before another one takes its row.

    Workers are held from the start, until `release`.

    Args:
        workers: number of workers.
        env_steps_before: env steps that a resumed run had used before.
    """

    def __init__(self, workers: int, env_steps_before: int = 0) -> None:
        self._env_steps_before = env_steps_before
        self._rows = shared_zeros(workers, CELLS, dtype=torch.int64)
        self._held = shared_zeros(1, dtype=torch.int64)
        self._map()
        self._flag[0] = 1

    def _map(self) -> None:
        self._cells, self._flag = self._rows.numpy(), self._held.numpy()

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("_env_steps_before", "_rows", "_held")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    def total(self, counter: Counter) -> int:
        """Return a count of all workers together."""
        return int(self._cells[:, PLACES[counter]].sum())

    @property
    def updates(self) -> int:
        """Updates made."""
        return self.total("updates")

    @property
    def env_steps(self) -> int:
        """Env steps used of the budget, those of a resumed run's past included."""
        return self._env_steps_before + int(self._cells[:, USED].sum())

    def add(self, worker: int, **counts: int) -> None:
        """Add to a worker's counts; that worker only.

        Args:
            worker: its number.
            counts: by `Counter`.
        """
        row = self._cells[worker]
        for counter, count in counts.items():
            row[PLACES[counter]] += count

    def write_off(self, worker: int, env_steps: int) -> None:
        """Count as lost what a dead worker had collected and not used; the parent only.

        Args:
            worker: which one; it is gone, and its successor has not begun.
            env_steps: those of the fragment that it was writing.
        """
        row = self._cells[worker]
        collected = PLACES["collected"]
        row[collected] += env_steps
        row[PLACES["lost"]] += row[collected] - row[USED].sum()
        row[STEPPING] = 0

    def enter_step(self, worker: int, should_stop: Callable[[], bool]) -> bool:
        """Begin a step on the shared weights, after waiting while the workers are held.

        The mark is set before the flag is read, and `hold` raises the flag before it reads the
        marks: so either the worker sees the flag, or `hold` sees the mark. (A core may delay a
        store behind a later load; `hold` waits far longer than that takes.)

        Returns:
            False if told to stop while waiting; no step has begun then.
        """
        while True:
            self._cells[worker, STEPPING] = 1
            if not self._flag[0]:
                return True
            self._cells[worker, STEPPING] = 0
            if should_stop():
                return False
            time.sleep(POLL_SECONDS)

    def leave_step(self, worker: int) -> None:
        """End a step on the shared weights."""
        self._cells[worker, STEPPING] = 0

    def wait_for_release(self, should_stop: Callable[[], bool]) -> None:
        """Wait while the workers are held."""
        while self._flag[0] and not should_stop():
            time.sleep(POLL_SECONDS)

    def hold(self, is_alive: Callable[[int], bool] = lambda worker: True, timeout: float = HOLD_SECONDS) -> list[int]:
        """Hold the workers before their next step, and wait until none is inside one.

        Args:
            is_alive: whether a worker's process runs; one that died inside its step never leaves it.
            timeout: seconds.

        Returns:
            The workers that are inside a step still: dead, or stuck until the time ran out.
        """
        self._flag[0] = 1
        time.sleep(SETTLE_SECONDS)
        deadline = time.monotonic() + timeout
        while (inside := self._inside()) and any(map(is_alive, inside)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return inside

    def _inside(self) -> list[int]:
        steps = self._cells[:, STEPPING].copy()  # the others go on writing, which NumPy takes for an error
        return [int(worker) for worker in steps.nonzero()[0]]

    def release(self) -> None:
        """Let the workers go on."""
        self._flag[0] = 0
