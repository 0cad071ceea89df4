"""What workers that learn by themselves have done so far, and the flag on which they hold still."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from a3c.rollouts.workers.shared_memory import shared_zeros

CELLS = 16  # int64 a worker: two cache lines, so that no two workers write to the same
UPDATES, TRAINED, DROPPED, COLLECTED, STEPPING, REJECTED, LOST, DISCARDED, SKIPPED = range(9)
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

    def _total(self, cell: int) -> int:
        return int(self._cells[:, cell].sum())

    @property
    def updates(self) -> int:
        """Updates made."""
        return self._total(UPDATES)

    @property
    def trained(self) -> int:
        """Env steps that an update has used."""
        return self._total(TRAINED)

    @property
    def dropped(self) -> int:
        """Env steps whose gradient was too old to be applied."""
        return self._total(DROPPED)

    @property
    def rejected(self) -> int:
        """Env steps whose update was skipped."""
        return self._total(REJECTED)

    @property
    def skipped(self) -> int:
        """Updates that were skipped, since their loss or gradient was not finite."""
        return self._total(SKIPPED)

    @property
    def collected(self) -> int:
        """Env steps that workers have collected."""
        return self._total(COLLECTED)

    @property
    def env_steps(self) -> int:
        """Env steps used of the budget, those of a resumed run's past included."""
        return self._env_steps_before + self.trained + self.dropped + self.rejected + self.lost + self.discarded

    @property
    def lost(self) -> int:
        """Env steps that workers had collected, and not used, when they died."""
        return self._total(LOST)

    @property
    def discarded(self) -> int:
        """Env steps whose rewards or observations were not finite."""
        return self._total(DISCARDED)

    def count_collected(self, worker: int, env_steps: int, discarded: int = 0) -> None:
        """Count env steps that a worker has collected, and those of them that it discarded; that worker only."""
        self._cells[worker, COLLECTED] += env_steps
        self._cells[worker, DISCARDED] += discarded

    def write_off(self, worker: int, env_steps: int) -> None:
        """Count as lost what a dead worker had collected and not used; the parent only.

        Args:
            worker: which one; it is gone, and its successor has not begun.
            env_steps: those of the fragment that it was writing.
        """
        row = self._cells[worker]
        row[COLLECTED] += env_steps
        row[LOST] += row[COLLECTED] - row[[TRAINED, DROPPED, REJECTED, LOST, DISCARDED]].sum()
        row[STEPPING] = 0

    def count_update(self, worker: int, env_steps: int) -> None:
        """Count an update and its env steps; that worker only."""
        self._cells[worker, UPDATES] += 1
        self._cells[worker, TRAINED] += env_steps

    def count_dropped(self, worker: int, env_steps: int) -> None:
        """Count env steps that were dropped; that worker only."""
        self._cells[worker, DROPPED] += env_steps

    def count_rejected(self, worker: int, env_steps: int) -> None:
        """Count a skipped update and its env steps; that worker only."""
        self._cells[worker, SKIPPED] += 1
        self._cells[worker, REJECTED] += env_steps

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
        return [int(worker) for worker in self._cells[:, STEPPING].nonzero()[0]]

    def release(self) -> None:
        """Let the workers go on."""
        self._flag[0] = 0
