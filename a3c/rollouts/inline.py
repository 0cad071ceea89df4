"""One collector in this process: the source of rollouts where nobody else collects."""

from __future__ import annotations

from a3c.batch import BatchShape, Rollout, empty_batch
from a3c.rollouts.collector import Collector, CollectorSpec


class InlineSource:
    """Collects only when asked, with the newest weights: nothing is ever stale.

    Args:
        spec: the collector to build.
        shape: size of a fragment.
        buffers: fragments that are read at the same time.
        worker: number of the collector.

    Attributes:
        collector: the collector, once started.
    """

    def __init__(self, spec: CollectorSpec, shape: BatchShape, buffers: int, worker: int = 0) -> None:
        self._spec = spec
        self._free = [empty_batch(shape) for _ in range(buffers)]
        self._worker = worker
        self.collector: Collector | None = None
        self.exhausted = False

    def start(self) -> None:
        """Makes the environments. Idempotent."""
        if self.collector is None:
            self.collector = self._spec.build(self._worker)

    def get(self, timeout: float) -> Rollout | None:
        """Collects the next rollout; never waits."""
        assert self.collector is not None, "start() comes first"
        buffer = self._free.pop()
        fragment = self.collector.collect(buffer)
        self.exhausted = fragment.is_last
        return Rollout(
            buffer.first(fragment.length),
            fragment.episodes,
            self._worker,
            fragment.is_last,
            lambda: self._free.append(buffer),
        )

    def close(self) -> None:
        """Closes the environments. Idempotent."""
        if self.collector is not None:
            self.collector.close()
            self.collector = None
