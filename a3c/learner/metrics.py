"""Sums of metrics between two lines of the log, and the run's record of policy lags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

LARGEST, SMALLEST = "/largest_ratio", "/smallest_ratio"  # ends of the keys of which the extreme is kept


class Sum(NamedTuple):
    """Of one metric's values: their sum, or the extreme where that is kept, and how many there were."""

    total: float
    number: int


class MetricSums:
    """Sums metrics over gradient steps; they stay tensors until they are taken.

    To log each step would take longer than a small network's step itself. A metric need not be there every time.
    Of the largest and the smallest ratio the extreme is kept, not the sum.

    Attributes:
        updates: how many were counted.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._numbers: Counter[str] = Counter()
        self._sums: dict[str, Sum] = {}
        self.updates = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add metrics, scalar tensors."""
        for key, value in metrics.items():
            if key not in self._tensors:
                self._tensors[key] = value
            elif key.endswith(LARGEST):
                self._tensors[key] = torch.maximum(self._tensors[key], value)
            elif key.endswith(SMALLEST):
                self._tensors[key] = torch.minimum(self._tensors[key], value)
            else:
                self._tensors[key] = self._tensors[key] + value
            self._numbers[key] += 1

    def add_sums(self, sums: Mapping[str, Sum], updates: int) -> None:
        """Add what another one has summed over its updates."""
        for key, theirs in sums.items():
            if (ours := self._sums.get(key)) is None:
                self._sums[key] = theirs
                continue
            totals = ours.total, theirs.total
            total = max(totals) if key.endswith(LARGEST) else min(totals) if key.endswith(SMALLEST) else sum(totals)
            self._sums[key] = Sum(total, ours.number + theirs.number)
        self.updates += updates

    def take(self) -> tuple[dict[str, Sum], int]:
        """Return the sums and the number of updates, and begin anew."""
        if self._tensors:
            values = torch.stack(list(self._tensors.values())).tolist()  # one read for all
            keyed = zip(self._tensors, values, strict=True)
            self.add_sums({key: Sum(value, self._numbers[key]) for key, value in keyed}, 0)
        sums, updates = self._sums, self.updates
        self._tensors, self._numbers, self._sums, self.updates = {}, Counter(), {}, 0
        return sums, updates

    def take_means(self) -> dict[str, float]:
        """Return the means, of ratios' extremes the extremes, and begin anew."""
        return {
            key: total if key.endswith((LARGEST, SMALLEST)) else total / number
            for key, (total, number) in self.take()[0].items()
        }


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

    def join(self, windows: Sequence[Mapping[int, int]], mine: int) -> None:
        """Add what all learners have taken from their windows; one of them was taken from this record."""
        for number, window in enumerate(windows):
            self._window.update(window)
            if number != mine:
                self.counts.update(window)

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
