"""Staleness as something that is set: rollouts held back until they are exactly so old."""

from __future__ import annotations

from collections import deque
from typing import Any

from a3c.batch import RolloutBatch


class DelayLine:
    """Holds each update's batch back until the weights are exactly so many versions on.

    Args:
        lag: versions, ≥ 0.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self._line: deque[tuple[int, RolloutBatch]] = deque()

    @property
    def newest(self) -> int | None:
        """Version at which the last batch was collected; None where none is held."""
        return self._line[-1][0] if self._line else None

    @property
    def steps_held(self) -> int:
        """Real steps in the batches that are held."""
        return sum(int(batch.mask.sum()) for _, batch in self._line)

    def state_dict(self) -> dict[str, Any]:
        """Return the batches that are held, as plain values."""
        return {"line": [(version, list(batch)) for version, batch in self._line]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what another line of the same lag gave."""
        self._line = deque((version, RolloutBatch(*fields)) for version, fields in state["line"])

    def add(self, version: int, batch: RolloutBatch) -> None:
        """Take in the batch that was collected at a version; its memory may be reused afterwards."""
        self._line.append((version, batch.copy()))

    def take(self, version: int) -> RolloutBatch | None:
        """Return the batch that is due at a version; None in the warm-up, when none is old enough."""
        if self._line and self._line[0][0] + self.lag == version:
            return self._line.popleft()[1]
        return None
