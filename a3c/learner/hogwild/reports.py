"""The stream of what workers report that learn by themselves: the Trainer only watches."""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset

from a3c.batch import Episode, Lost
from a3c.learner.hogwild.tally import Counter, Tally
from a3c.learner.metrics import Sum
from a3c.rollouts.dataset import POLL_SECONDS
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.pool import WorkerPool

# Why steps are dropped, and the counter of it.
REASONS: dict[str, Counter] = {
    "max_lag": "dropped",
    "worker_death": "lost",
    "bad_values": "discarded",
    "bad_update": "rejected",
}


class UpdateReport(NamedTuple):
    """What a worker did since its last report.

    Attributes:
        worker: which one.
        updates: updates that it made.
        sums: metrics by key, summed over those updates' steps.
        lags: policy lags, and how many columns had each.
        episodes: episodes that ended meanwhile.
        is_last: nothing more comes from this worker.
    """

    worker: int
    updates: int
    sums: Mapping[str, Sum]
    lags: Mapping[int, int]
    episodes: Sequence[Episode]
    is_last: bool


class ReportStream(IterableDataset[UpdateReport]):
    """Yields the workers' reports until all of them have ended.

    For its length, and for `on_last_batch`, see `RolloutDataset`.

    Args:
        pool: workers that report, and end by themselves when the budget is used up.
        progress: counters, kept up to date here.
        tally: what the workers have counted.
        spent: the budget is used up already: nothing is started.
        on_last_batch: called before the last report is yielded, or when there is none.
        should_stop: asked while waiting.
    """

    def __init__(
        self,
        pool: WorkerPool,
        progress: Progress,
        tally: Tally,
        spent: bool = False,
        on_last_batch: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool = pool
        self._progress = progress
        self._tally = tally
        self._before = progress.trained, collections.Counter(progress.dropped), progress.collected
        self._spent = spent
        self._on_last_batch = on_last_batch
        self._should_stop = should_stop

    def __len__(self) -> int:
        return sys.maxsize

    def __iter__(self) -> Iterator[UpdateReport]:
        try:
            if not self._spent:
                self._pool.start()
                self._progress.clock.start()
                self._tally.release()
                while not self._pool.exhausted and not self._should_stop():
                    report = self._pool.get(POLL_SECONDS)
                    if report is None or isinstance(report, Lost):  # the tally knows of it
                        continue
                    self._take_in(report)
                    if self._pool.exhausted:
                        self._on_last_batch()
                    yield report
            self._on_last_batch()
        finally:
            self._progress.clock.stop()
            self._pool.close()

    def _take_in(self, report: UpdateReport) -> None:
        self._progress.add_episodes(list(report.episodes))
        self.refresh()

    def refresh(self) -> None:
        """Set the counters to what the workers have counted by now."""
        trained, dropped, collected = self._before
        # In this order: what is trained was counted as collected earlier, so no difference is negative.
        self._progress.trained = trained + self._tally.total("trained")
        for reason, counter in REASONS.items():
            self._progress.dropped[reason] = dropped[reason] + self._tally.total(counter)
        self._progress.collected = collected + self._tally.total("collected")

    def remaining(self) -> Iterator[UpdateReport]:
        """Stop the workers and return the reports that nobody has read yet."""
        self._pool.close()
        report: Any
        while (report := self._pool.get(0)) is not None:
            self._take_in(report)
            yield report
        self.refresh()
