"""One collector in this process: the source of rollouts where nobody else collects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from a3c.batch import Lost, Rollout, RolloutBatch
from a3c.rollouts.collector import Collector, CollectorSpec

log = logging.getLogger(__name__)


class InlineSource:
    """Collects only when asked, with the newest weights: nothing is ever stale.

    Args:
        spec: the collector to build.
        buffers: memory of the fragments that are read at the same time.
        worker: number of the collector.
        restarts: workers that had this number before, and died.
        episodes: those that they have used of the episode budget.
        on_begin: told in which buffer a fragment begins.
        on_step: told how many time steps stand in it.

    Attributes:
        collector: the collector, once started.
    """

    def __init__(
        self,
        spec: CollectorSpec,
        buffers: Sequence[RolloutBatch],
        worker: int = 0,
        restarts: int = 0,
        episodes: int = 0,
        on_begin: Callable[[int], None] = lambda buffer: None,
        on_step: Callable[[int], None] = lambda written: None,
    ) -> None:
        self._spec = spec
        self._buffers = buffers
        self._free = list(range(len(buffers)))
        self._worker, self._restarts, self._episodes = worker, restarts, episodes
        self._on_begin, self._on_step = on_begin, on_step
        self.collector: Collector | None = None
        self.exhausted = False

    def start(self) -> None:
        """Makes the environments. Idempotent."""
        if self.collector is None:
            self.collector = self._spec.build(self._worker, self._restarts, self._episodes, self._on_step)

    def get(self, timeout: float) -> Rollout | Lost | None:
        """Collects the next rollout; never waits."""
        assert self.collector is not None, "start() comes first"
        place = self._free.pop()
        buffer = self._buffers[place]
        self._on_begin(place)
        fragment = self.collector.collect(buffer)
        if fragment.discarded is not None:
            log.warning("a rollout is discarded: %s", fragment.discarded)
            self._free.append(place)
            return Lost(self._worker, buffer.real_steps(fragment.length), "bad_values")
        self.exhausted = fragment.is_last
        return Rollout(
            buffer.first(fragment.length),
            fragment.episodes,
            self._worker,
            fragment.is_last,
            lambda: self._free.append(place),
        )

    def close(self) -> None:
        """Closes the environments. Idempotent."""
        if self.collector is not None:
            self.collector.close()
            self.collector = None
