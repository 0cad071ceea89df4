"""The dataset over a source of rollouts: what one update after another trains on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import IterableDataset

from a3c.batch import Lost, Rollout, RolloutBatch, join_columns
from a3c.rollouts.delay_line import DelayLine
from a3c.rollouts.device.copies import Copies
from a3c.rollouts.progress import Progress
from a3c.rollouts.segments import SegmentJoiner

Update = tuple[RolloutBatch, list[Rollout]]
POLL_SECONDS = 0.2  # how often a dataset that waits for rollouts looks whether it should stop


class RolloutSource(Protocol):
    """Where rollouts come from: a pool of processes, or one inline collector."""

    @property
    def exhausted(self) -> bool:
        """Nothing more will come."""

    def start(self) -> None:
        """Start collecting."""

    def get(self, timeout: float) -> Rollout | Lost | None:
        """Return the next rollout, or what was lost in its stead, or None after the timeout."""

    def close(self) -> None:
        """Stop collecting. Idempotent."""


class Batching(NamedTuple):
    """How rollouts become the batches of successive updates, and until when.

    Attributes:
        rollouts_per_update: rollouts that one update trains on.
        max_env_steps: budget in env steps, or None.
        segmented: fragments are joined to segments.
        horizon: most steps of a segment, or None for whole episodes.
        segments_per_rollout: segments that count as one rollout.
        max_lag: rollouts whose first step is more versions old are dropped; None for no limit.
        inject_lag: every update trains on rollouts exactly so many versions old, but for the first
            ones, which warm up on fresh ones, and those in the place of updates that were skipped;
            None for as old as they are.
    """

    rollouts_per_update: int = 1
    max_env_steps: int | None = None
    segmented: bool = False
    horizon: int | None = None
    segments_per_rollout: int = 1
    max_lag: int | None = None
    inject_lag: int | None = None


class RolloutDataset(IterableDataset[RolloutBatch]):
    """Joins rollouts to the batches of successive updates, until the budget is used up.

    It has a length, since Lightning prefetches a batch, an update stale, from a loader without
    one. And it calls `on_last_batch` before it yields the last batch: a fit does not end when an
    iterable does, and told later Lightning would ask for one more.

    Args:
        source: where rollouts come from.
        progress: counters, kept up to date here.
        batching: how they become batches; one rollout an update without it.
        version: returns the version of the weights, the number of updates made to them.
        on_last_batch: called before the last batch is yielded, or when there is none.
        should_stop: asked while waiting for rollouts.
        copies: to the device that batches are to be on; None for the CPU.
        looks_ahead: rollouts that are there when an update begins are taken in for the next one, so that they are on
            their way to the device meanwhile.

    Attributes:
        warming_up: whether the last update trains on fresh rollouts where lag is to be injected.
    """

    def __init__(
        self,
        source: RolloutSource,
        progress: Progress,
        batching: Batching | None = None,
        *,
        version: Callable[[], int] = lambda: 0,
        on_last_batch: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
        copies: Copies | None = None,
        looks_ahead: bool = False,
    ) -> None:
        self._source = source
        self._progress = progress
        self._batching = batching = batching or Batching()
        self._joiner = SegmentJoiner(batching.horizon) if batching.segmented else None
        self._segments_per_update = batching.segments_per_rollout * batching.rollouts_per_update
        self._version = version
        self._line = None if batching.inject_lag is None else DelayLine(batching.inject_lag)
        self._env_ids: dict[int, list[int]] = {}  # of the last rollout of each worker
        self._on_last_batch = on_last_batch
        self._should_stop = should_stop
        self._copies, self._looks_ahead = copies, looks_ahead
        self._pending: list[Rollout] = []  # received for the next update
        self._sent: list[list[Tensor]] = []  # of these the fields, on their way to the device
        self.warming_up = False

    def __len__(self) -> int:
        return sys.maxsize

    def __iter__(self) -> Iterator[RolloutBatch]:
        try:
            if not self._spent():
                if not self._should_stop():
                    self._source.start()
                self._progress.clock.start()
                while (agreed := self._agree_on(self._next_update())) is not None:
                    (batch, used), last = agreed
                    if last:
                        self._on_last_batch()
                    yield self._on_device(batch)
                    for rollout in used:
                        rollout.release()
                    if last:
                        return
            self._on_last_batch()
        finally:
            self._progress.clock.stop()
            self._source.close()

    def _agree_on(self, update: Update | None) -> tuple[Update, bool] | None:
        """Count an update that all learners make, and say whether it is the last; None if one of them makes none."""
        steps = 0 if update is None else int(update[0].mask.sum())
        self._progress.trained += steps
        nothing_joined = self._joiner is None or len(self._joiner) == 0
        everyones = self._progress.share(steps, update is None, self._source.exhausted and nothing_joined)
        all_steps, has_none, has_no_other = (sum(column) for column in zip(*everyones, strict=True))
        self._progress.update_steps = int(all_steps)
        if not has_none:
            assert update is not None, "it would have none"
            return update, self._spent() or has_no_other > 0
        if steps:
            self._progress.trained -= steps  # it is in flight again
        self._progress.share()
        return None

    def _spent(self) -> bool:
        budget = self._batching.max_env_steps
        return budget is not None and self._progress.env_steps >= budget

    def _next_update(self) -> Update | None:
        """Return a batch and the rollouts to release after it is trained on; None when no more will come."""
        if self._line is not None:
            return self._delayed_update(self._line)
        update = self._fresh_update()
        if self._looks_ahead and update is not None:
            self._look_ahead()
        return update

    def _delayed_update(self, line: DelayLine) -> Update | None:
        """Return the update that is due now, in exchange for a fresh one of the weights at hand.

        Without a fresh one of every version there would be none to train on so many versions
        later. The fresh one's memory is kept until the update is made: a worker that waits for it
        then begins with the next version, and wastes nothing.
        """
        version = self._version()
        if line.newest != version:  # it is the same after a request to stop between the two halves of a warm-up
            fresh = self._fresh_update()
            if fresh is None:
                return None
            line.add(version, fresh[0])
            due = line.take(version)
            self.warming_up = due is None
            if due is not None:
                return due, fresh[1]
            for rollout in fresh[1]:
                rollout.release()
        self.warming_up = True
        return self._fresh_update()  # something must be learned for there to be a next version

    def _fresh_update(self) -> Update | None:
        if self._joiner is not None:
            return self._next_segments(self._joiner)
        while len(self._pending) < self._batching.rollouts_per_update:
            rollout = self._receive()
            if rollout is None:
                break
            self._take(rollout)
        if not self._pending or self._should_stop():
            return None  # on a request to stop they stay pending: a checkpoint of `sync` carries them
        rollouts, self._pending = self._pending, []
        return join_columns(self._arrived(rollouts)), rollouts

    def _look_ahead(self) -> None:
        """Take in what has come for the update after the one at hand, whose weights will be a version newer."""
        while self._joiner is None and len(self._pending) < self._batching.rollouts_per_update:
            rollout = self._receive(ahead=1)
            if rollout is None:
                return
            self._take(rollout)

    def _take(self, rollout: Rollout) -> None:
        self._pending.append(rollout)
        if self._looks_ahead and self._copies is not None:
            self._sent.append(self._copies.send(rollout.batch))

    def _arrived(self, rollouts: list[Rollout]) -> list[RolloutBatch]:
        """Return the batches of rollouts: those that were sent to the device there."""
        if self._copies is None or not self._sent:
            return [rollout.batch for rollout in rollouts]
        sent, self._sent = self._sent, []
        self._copies.arrive([field for fields in sent for field in fields])
        return [RolloutBatch(*fields) for fields in sent]

    def _on_device(self, batch: RolloutBatch) -> RolloutBatch:
        if self._copies is None or batch.mask.device == self._copies.device:
            return batch
        fields = self._copies.send(batch)
        self._copies.arrive(fields)
        return RolloutBatch(*fields)

    def _next_segments(self, joiner: SegmentJoiner) -> Update | None:
        self._drop_old_segments(joiner)
        while len(joiner) < self._segments_per_update:
            rollout = self._receive()
            if rollout is None:
                break
            joiner.add(rollout.batch)
            rollout.release()
            self._drop_old_segments(joiner)
        count = min(len(joiner), self._segments_per_update)
        return (joiner.take(count), []) if count and not self._should_stop() else None

    @property
    def steps_held(self) -> int:
        """Env steps that wait to be trained on: in segments, in the delay line and for the next update."""
        held = sum(int(rollout.batch.mask.sum()) for rollout in self._pending)
        held += 0 if self._joiner is None else self._joiner.steps_held
        return held + (0 if self._line is None else self._line.steps_held)

    def state_dict(self) -> dict[str, Any]:
        """Return what waits to be trained on, as plain values.

        The reason stands under "lost" instead if an exception came between a rollout's collection and
        its place here.
        """
        if self._progress.in_flight != self.steps_held:
            return {"lost": "an exception ended the run before a rollout was put in its place"}
        return {
            "pending": [list(rollout.batch.copy()) for rollout in self._pending],
            "joiner": None if self._joiner is None else self._joiner.state_dict(),
            "line": None if self._line is None else self._line.state_dict(),
            "env_ids": dict(self._env_ids),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a dataset of the same arguments gave; the counters are loaded before."""
        self._pending = [Rollout(RolloutBatch(*fields), [], 0, False, _nothing) for fields in state["pending"]]
        self._env_ids = dict(state["env_ids"])
        if self._joiner is not None:
            self._joiner.load_state_dict(state["joiner"])
        if self._line is not None:
            self._line.load_state_dict(state["line"])
        self._progress.collected = self._progress.env_steps + self.steps_held

    def _drop_old_segments(self, joiner: SegmentJoiner) -> None:
        max_lag = self._batching.max_lag
        if max_lag is not None:
            self._progress.dropped["max_lag"] += joiner.drop_before(self._version() - max_lag)

    def _receive(self, ahead: int = 0) -> Rollout | None:
        """Wait for the next rollout that is not too old; None when no more will come, or to stop.

        Args:
            ahead: updates before the one that it is for; then nothing is waited for.
        """
        while not self._source.exhausted and not self._should_stop() and not self._spent():
            rollout = self._source.get(0.0 if ahead else POLL_SECONDS)
            if rollout is None:
                if ahead:
                    return None
                continue
            if isinstance(rollout, Lost):
                self._count_lost(rollout)
                continue
            steps = int(rollout.batch.mask.sum())
            self._progress.collected += steps
            if self._joiner is not None:
                self._env_ids[rollout.worker] = rollout.batch.env_ids.tolist()
            self._progress.add_episodes(list(rollout.episodes))
            reason = self._reason_to_drop(rollout.batch, ahead)
            if reason is None:
                return rollout
            self._progress.dropped[reason] += steps
            rollout.release()
        return None

    def _count_lost(self, lost: Lost) -> None:
        """Drop what was lost, and the unfinished segments that it leaves behind."""
        self._progress.collected += lost.env_steps
        dropped = lost.env_steps
        if self._joiner is not None:
            dropped += self._joiner.forget(self._env_ids.pop(lost.worker, []))
        self._progress.dropped[lost.reason] += dropped

    def _reason_to_drop(self, batch: RolloutBatch, ahead: int) -> str | None:
        """Explain why a fragment, all of one version, is too old; whole segments are judged when joined."""
        if self._joiner is not None:
            return None
        lag = self._version() + ahead - int(batch.policy_versions[0, 0])
        if self._line is not None and lag > 0:
            return "inject_lag"
        max_lag = self._batching.max_lag
        return "max_lag" if max_lag is not None and lag > max_lag else None


def _nothing() -> None:
    """Release memory that is no source's."""
