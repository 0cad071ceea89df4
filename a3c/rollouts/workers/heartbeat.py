"""A worker's signs of life, and how far it has come in the fragment at hand, in shared memory."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.rollouts.workers.shared_memory import shared_zeros

CELLS = 8  # int64 a worker: one cache line, so that no two workers write to the same
BEATS, SLOT, WRITTEN, EPISODES = range(4)
NO_SLOT = -1


class Heartbeat:
    """The cells of one worker, which it alone writes; its successor goes on with them.

    Args:
        cells: int64, [CELLS], shared.
    """

    def __init__(self, cells: Tensor) -> None:
        self._row = cells
        self._map()

    def _map(self) -> None:
        self._cells = self._row.numpy().data  # an item of it is set in a quarter of the time of an array's

    def __getstate__(self) -> dict[str, object]:
        return {"_row": self._row}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    @staticmethod
    def allocate(workers: int) -> list[Heartbeat]:
        """Return a heartbeat for each worker, all in one shared block."""
        return [Heartbeat(row) for row in shared_zeros(workers, CELLS, dtype=torch.int64)]

    def beat(self) -> None:
        """Say that the worker is alive."""
        self._cells[BEATS] += 1

    def begin(self, slot: int) -> None:
        """Say that a fragment is begun in a slot.

        The count is reset before the slot is named: whoever reads in between finds a fragment with
        no steps, never an old count with a new slot.
        """
        self._cells[WRITTEN] = 0
        self._cells[SLOT] = slot
        self._cells[BEATS] += 1

    def step(self, written: int) -> None:
        """Say that so many time steps stand in the slot; in the hot loop."""
        self._cells[WRITTEN] = written

    def end(self) -> None:
        """Say that the fragment is handed over: what happens now loses nothing of it."""
        self._cells[SLOT] = NO_SLOT

    def count_episodes(self, episodes: int) -> None:
        """Count episodes that were handed over."""
        self._cells[EPISODES] += episodes

    @property
    def beats(self) -> tuple[int, int]:
        """What every sign of life changes."""
        return self._cells[BEATS], self._cells[WRITTEN]

    @property
    def fragment(self) -> tuple[int, int] | None:
        """Slot and time steps of the fragment that is being written; None between two."""
        slot = self._cells[SLOT]
        return None if slot == NO_SLOT else (slot, self._cells[WRITTEN])

    @property
    def episodes(self) -> int:
        """Episodes handed over so far."""
        return self._cells[EPISODES]
