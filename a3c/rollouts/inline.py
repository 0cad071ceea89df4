"""One collector in this process: the source of rollouts in `sync` mode."""

from __future__ import annotations

from a3c.batch import BatchShape, Rollout, empty_batch
from a3c.rollouts.collector import Collector, CollectorSpec


class InlineSource:
    """Collects only when asked, with the newest weights: nothing is ever stale.

    Args:
        spec: the collector to build.
        shape: size of a fragment.
        buffers: fragments that are read at the same time.
    """

    def __init__(self, spec: CollectorSpec, shape: BatchShape, buffers: int) -> None:
        self._spec = spec
        self._shape = shape
        self._free = [empty_batch(shape) for _ in range(buffers)]
        self._collector: Collector | None = None
        self.exhausted = False

    def start(self) -> None:
        """Makes the environments."""
        self._collector = self._spec.build(worker=0)

    def get(self, timeout: float) -> Rollout | None:
        """Collects the next rollout; never waits."""
        assert self._collector is not None, "start() comes first"
        buffer = self._free.pop()
        fragment = self._collector.collect(buffer)
        self.exhausted = fragment.is_last
        return Rollout(
            buffer.first(fragment.length), fragment.episodes, 0, fragment.is_last, lambda: self._free.append(buffer)
        )

    def close(self) -> None:
        """Closes the environments. Idempotent."""
        if self._collector is not None:
            self._collector.close()
            self._collector = None
