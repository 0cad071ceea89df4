"""Sums of metrics between two lines of the log, and the run's record of policy lags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class MetricSums:
    """Sums metrics over updates; they stay tensors until they are taken.

    To log each update would take longer than a small network's update itself.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._sums: dict[str, float] = {}
        self.updates = 0

    def add(self, metrics: Mapping[str, Tensor], updates: int = 1) -> None:
        """Add one update's metrics, scalar tensors; with 0 updates, what belongs to the last one."""
        for key, value in metrics.items():
            self._tensors[key] = self._tensors[key] + value if key in self._tensors else value
        self.updates += updates

    def add_sums(self, sums: Mapping[str, float], updates: int) -> None:
        """Add what another one has summed over its updates."""
        for key, value in sums.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self.updates += updates

    def take(self) -> tuple[dict[str, float], int]:
        """Return the sums and the number of updates, and begin anew."""
        sums, updates = self._sums, self.updates
        if self._tensors:
            values = torch.stack(list(self._tensors.values())).tolist()  # one read for all
            for key, value in zip(self._tensors, values, strict=True):
                sums[key] = sums.get(key, 0.0) + value
        self._tensors, self._sums, self.updates = {}, {}, 0
        return sums, updates


class LagRecord:
    """How many columns were trained on with which policy lag, in updates.

    Attributes:
        counts: columns by lag, since the run began.
    """

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self._window: Counter[int] = Counter()

    def add(self, lags: Mapping[int, int]) -> None:
        """Add numbers of columns by lag."""
        self.counts.update(lags)
        self._window.update(lags)

    def take_window(self) -> dict[int, int]:
        """Return the columns by lag since the last call, in the order of the lags."""
        window, self._window = self._window, Counter()
        return dict(sorted(window.items()))

    @property
    def mean(self) -> float | None:
        """Mean lag of a column; None before the first one."""
        return mean_lag(self.counts)

    @property
    def largest(self) -> int:
        """Largest lag; 0 before the first column."""
        return max(self.counts, default=0)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts; keys are strings, as in JSON."""
        return {str(lag): count for lag, count in sorted(self.counts.items())}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a checkpoint."""
        self.counts = Counter({int(lag): count for lag, count in state.items()})


def column_lags(version: int, policy_versions: Tensor) -> Counter[int]:
    """Count a batch's columns by how many updates old the weights were that their first step acted with.

    Args:
        version: of the weights that are about to be updated.
        policy_versions: [T, B].
    """
    return Counter((version - policy_versions[0]).tolist())


def mean_lag(counts: Mapping[int, int]) -> float | None:
    """Return the mean of lags that are given as counts; None for none."""
    columns = sum(counts.values())
    return sum(lag * count for lag, count in counts.items()) / columns if columns else None
