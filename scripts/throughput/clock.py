"""A clock that leaves out what other programs on the machine take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple


class Lap(NamedTuple):
    """A stretch of this thread's time, in seconds.

    Attributes:
        wall: without what it waited for a core that others had.
        core: that the process was on cores, all threads together.
    """

    wall: float
    core: float


class Clock:
    """Times stretches of this thread; other programs on the machine count as little as can be."""

    def __init__(self) -> None:
        self._begun = self._read()

    @staticmethod
    def _read() -> tuple[float, float]:
        """Return the wall's and the process's seconds, the former without those spent in the kernel's queue."""
        try:
            queued = int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) * 1e-9
        except OSError:  # not on Linux
            queued = 0.0
        return time.perf_counter() - queued, time.process_time()

    def lap(self) -> Lap:
        """Return the stretch since the last call, or since the beginning."""
        before, self._begun = self._begun, self._read()
        return Lap(self._begun[0] - before[0], self._begun[1] - before[1])
