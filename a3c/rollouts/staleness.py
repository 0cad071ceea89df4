"""Staleness as something that is set: rollouts held back until they are exactly so old."""

from __future__ import annotations

from collections import deque

from a3c.batch import RolloutBatch


class DelayLine:
    """Holds each update's batch back until the weights are exactly so many versions on.

    Args:
        lag: versions, ≥ 0.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self._line: deque[tuple[int, RolloutBatch]] = deque()

    def __contains__(self, version: int) -> bool:
        """Whether a batch that was collected at a version, the newest one, waits here."""
        return bool(self._line) and self._line[-1][0] == version

    def add(self, version: int, batch: RolloutBatch) -> None:
        """Takes in the batch that was collected at a version; its memory may be reused afterwards."""
        self._line.append((version, batch.copy()))

    def take(self, version: int) -> RolloutBatch | None:
        """Gives the batch that is due at a version; None in the warm-up, when none is old enough."""
        if self._line and self._line[0][0] + self.lag == version:
            return self._line.popleft()[1]
        return None
