"""Joins the fragments of an environment to segments: whole episodes, or at most n steps of one.

Collectors give fragments of a fixed size, in which episodes begin and end anywhere. An estimator
that needs whole episodes, or rollouts that stop at an episode's end, is served from here; an
unfinished segment is carried over, so no step is wasted.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from a3c.batch import TIME_FIELDS, BatchShape, RolloutBatch, empty_batch

Arrays = tuple[NDArray[Any], ...]  # the time fields of one fragment
VERSIONS = TIME_FIELDS.index("policy_versions")


class _Piece(NamedTuple):
    """Steps start to end of one column of a fragment."""

    fragment: Arrays
    column: int
    start: int
    end: int


class _Segment(NamedTuple):
    """A complete segment: the pieces it is made of, in time order."""

    pieces: list[_Piece]
    env_id: int
    ordinal: int
    length: int


def _length(pieces: list[_Piece]) -> int:
    return sum(piece.end - piece.start for piece in pieces)


class SegmentJoiner:
    """Cuts each environment's stream of steps at episode ends and, if asked, after n steps.

    Segments come out in the order in which they were completed.

    Args:
        horizon: most steps of a segment, or None for whole episodes.
    """

    def __init__(self, horizon: int | None) -> None:
        self._horizon = horizon
        self._open: dict[int, list[_Piece]] = defaultdict(list)
        self._ordinals: dict[int, int] = defaultdict(int)
        self._complete: deque[_Segment] = deque()

    def __len__(self) -> int:
        """Number of complete segments that wait to be taken."""
        return len(self._complete)

    @property
    def steps_held(self) -> int:
        """Steps in segments that are complete or still open."""
        waiting = sum(segment.length for segment in self._complete)
        return waiting + sum(map(_length, self._open.values()))

    def state_dict(self) -> dict[str, Any]:
        """Return the segments and the counts of those before them, as plain values.

        All segments lie in one column, a row apart: for the state that the last step of each led to.
        """
        open_ = [
            _Segment(pieces, env_id, -1, _length(pieces)) for env_id, pieces in sorted(self._open.items()) if pieces
        ]
        segments = [*self._complete, *open_]
        fields = []
        for index in range(len(TIME_FIELDS)) if segments else ():
            rows = []
            for segment in segments:
                pieces = segment.pieces
                rows += [piece.fragment[index][piece.start : piece.end, piece.column] for piece in pieces]
                last = pieces[-1]
                field = last.fragment[index]
                # Only observations have a row for the state after the last step; elsewhere it is a gap.
                rows.append(field[last.end if index == 0 else last.end - 1, last.column][None])
            fields.append(torch.from_numpy(np.concatenate(rows)))
        return {
            "fields": fields,
            "complete": [(segment.env_id, segment.ordinal, segment.length) for segment in self._complete],
            "open": [(segment.env_id, segment.length) for segment in open_],
            "ordinals": sorted(self._ordinals.items()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what another joiner of the same horizon gave."""
        fragment: Arrays = tuple(field.numpy()[:, None].copy() for field in state["fields"])
        start = 0

        def next_piece(length: int) -> list[_Piece]:
            nonlocal start
            piece = _Piece(fragment, 0, start, start + length)
            start += length + 1
            return [piece]

        self._complete = deque(
            _Segment(next_piece(length), env_id, ordinal, length) for env_id, ordinal, length in state["complete"]
        )
        self._open = defaultdict(list, {env_id: next_piece(length) for env_id, length in state["open"]})
        self._ordinals = defaultdict(int, state["ordinals"])

    def add(self, batch: RolloutBatch) -> None:
        """Take in the next fragment of its environments; its memory may be reused afterwards."""
        fragment: Arrays = tuple(getattr(batch, name).numpy().copy() for name in TIME_FIELDS)
        fields = dict(zip(TIME_FIELDS, fragment, strict=True))
        ended, mask = fields["terminated"] | fields["truncated"], fields["mask"]
        found: list[tuple[int, int, _Segment]] = []
        for column, env_id in enumerate(batch.env_ids.tolist()):
            ends = ended[:, column].nonzero()[0].tolist()
            start = 0 if mask[0, column] else 1
            for stop in [*(end + 1 for end in ends), batch.length]:
                self._extend(found, env_id, fragment, column, start, stop, stop - 1 in ends)
                start = stop + 1  # past the reset step
        found.sort(key=lambda item: item[:2])
        self._complete.extend(segment for _, _, segment in found)

    def _extend(
        self,
        found: list[tuple[int, int, _Segment]],
        env_id: int,
        fragment: Arrays,
        column: int,
        start: int,
        stop: int,
        ended: bool,
    ) -> None:
        """Add steps start to stop to an environment's open segment, and close what is full."""
        pieces = self._open[env_id]
        while start < stop:
            held = _length(pieces)
            end = stop if self._horizon is None else min(stop, start + self._horizon - held)
            pieces.append(_Piece(fragment, column, start, end))
            length = held + end - start
            if length == self._horizon or (ended and end == stop):
                found.append((end, column, _Segment(pieces, env_id, self._ordinals[env_id], length)))
                self._ordinals[env_id] += 1
                self._open[env_id] = pieces = []
            start = end

    def forget(self, env_ids: Iterable[int]) -> int:
        """Drop the open segments of environments that are gone; complete ones stay.

        Returns:
            The number of steps dropped.
        """
        gone = [piece for env_id in env_ids for piece in self._open.pop(env_id, [])]
        return sum(piece.end - piece.start for piece in gone)

    def drop_before(self, version: int) -> int:
        """Drop complete segments whose first step acted with weights older than a version.

        Returns:
            The number of steps dropped.
        """
        kept, dropped = deque[_Segment](), 0
        for segment in self._complete:
            first = segment.pieces[0]
            if first.fragment[VERSIONS][first.start, first.column] < version:
                dropped += segment.length
            else:
                kept.append(segment)
        self._complete = kept
        return dropped

    def take(self, count: int) -> RolloutBatch:
        """Return the oldest `count` complete segments side by side, padded below with masked zeros.

        Raises:
            IndexError: fewer are complete; none is taken then.
        """
        if not 0 < count <= len(self._complete):
            raise IndexError(f"{count} segments wanted, {len(self._complete)} complete")
        segments = [self._complete.popleft() for _ in range(count)]
        like = dict(zip(TIME_FIELDS, map(torch.from_numpy, segments[0].pieces[0].fragment), strict=True))
        length = max(segment.length for segment in segments)
        batch = empty_batch(BatchShape.like(like, length, count))
        rows = [getattr(batch, name).numpy() for name in TIME_FIELDS]
        for column, segment in enumerate(segments):
            offset = 0
            for piece in segment.pieces:
                steps = piece.end - piece.start
                # One row more of the observations: the state after the piece's last step.
                rows[0][offset : offset + steps + 1, column] = piece.fragment[0][
                    piece.start : piece.end + 1, piece.column
                ]
                for row, field in zip(rows[1:], piece.fragment[1:], strict=True):
                    row[offset : offset + steps, column] = field[piece.start : piece.end, piece.column]
                offset += steps
            batch.env_ids[column] = segment.env_id
            batch.segment_ids[column] = segment.ordinal
        return batch
