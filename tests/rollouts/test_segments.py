"""SegmentJoiner: however a stream is cut to fragments, the same segments come out."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import cut_streams, piece, stream, streams

from a3c.batch import TIME_FIELDS, RolloutBatch
from a3c.rollouts.segments import SegmentJoiner


def add(joiner: SegmentJoiner, fragment: RolloutBatch) -> None:
    """Hands a fragment in and overwrites its memory, as the next rollout does."""
    joiner.add(fragment)
    for field in fragment:
        field.fill_(1)


class Segment(NamedTuple):
    env_id: int
    ordinal: int
    rows: list[int]  # where its steps are in the stream


def expected_segments(batch: RolloutBatch, horizon: int | None) -> list[Segment]:
    """Walks the whole stream a step at a time, and closes segments as they are completed."""
    segments: list[Segment] = []
    columns = batch.env_ids.tolist()
    open_rows: dict[int, list[int]] = {env_id: [] for env_id in columns}
    for t in range(batch.length):
        for column, env_id in enumerate(columns):
            if not batch.mask[t, column]:
                continue
            open_rows[env_id].append(t)
            ended = batch.terminated[t, column] or batch.truncated[t, column]
            if ended or len(open_rows[env_id]) == horizon:
                ordinal = sum(segment.env_id == env_id for segment in segments)
                segments.append(Segment(env_id, ordinal, open_rows[env_id]))
                open_rows[env_id] = []
    return segments


def assert_column(taken: RolloutBatch, column: int, segment: Segment, batch: RolloutBatch) -> None:
    """A column holds exactly the segment's steps, then the state after them, then masked zeros."""
    source, length = batch.env_ids.tolist().index(segment.env_id), len(segment.rows)
    assert (taken.env_ids[column], taken.segment_ids[column]) == (segment.env_id, segment.ordinal)
    assert taken.mask[:, column].tolist() == [t < length for t in range(taken.length)]
    for name in TIME_FIELDS:
        rows = [*segment.rows, segment.rows[-1] + 1] if name == "observations" else segment.rows
        field = getattr(taken, name)[:, column]
        assert torch.equal(field[: len(rows)], getattr(batch, name)[rows, source])
        assert not field[len(rows) :].any()


horizons = st.one_of(st.none(), st.integers(1, 6))
random_streams = settings(max_examples=150, deadline=None)


@random_streams
@given(cut_streams(), horizons, st.data())
def test_fragments_cut_anywhere_join_to_the_segments_of_the_whole_stream(cut_stream, horizon, data):
    batch, fragments = cut_stream
    waiting = expected_segments(batch, horizon)
    joiner = SegmentJoiner(horizon)
    fed = trained = 0
    seen: list[int] = []
    for fragment in fragments:
        fed += int(fragment.mask.sum())
        add(joiner, fragment)
        while len(joiner) and data.draw(st.booleans(), label="take now"):
            taken = joiner.take(data.draw(st.integers(1, len(joiner)), label="how many"))
            segments, waiting = waiting[: taken.columns], waiting[taken.columns :]
            assert taken.length == max(len(segment.rows) for segment in segments)
            for column, segment in enumerate(segments):
                assert_column(taken, column, segment, batch)
            trained += int(taken.mask.sum())
            seen += taken.actions[taken.mask].tolist()
        assert fed == trained + joiner.steps_held  # each real step was taken or is held
    assert len(joiner) == len(waiting)
    assert len(set(seen)) == len(seen)  # and none twice
    if waiting:
        taken = joiner.take(len(waiting))
        for column, segment in enumerate(waiting):
            assert_column(taken, column, segment, batch)


@random_streams
@given(cut_streams(), horizons)
def test_fragments_join_to_the_same_batch_as_one_long_fragment(cut_stream, horizon):
    batch, fragments = cut_stream
    in_pieces, at_once = SegmentJoiner(horizon), SegmentJoiner(horizon)
    for fragment in fragments:
        add(in_pieces, fragment)
    add(at_once, batch.copy())
    assert len(in_pieces) == len(at_once)
    assert in_pieces.steps_held == at_once.steps_held
    if len(at_once):
        for field, whole in zip(in_pieces.take(len(in_pieces)), at_once.take(len(at_once)), strict=True):
            assert torch.equal(field, whole)


@settings(max_examples=40, deadline=None)
@given(streams(12, 2), streams(12, 1, first_env_id=2), horizons)
def test_fragments_of_several_collectors_interleave_without_mixing(left, right, horizon):
    joiner, expected = SegmentJoiner(horizon), {}
    for batch in (left, right):
        for segment in expected_segments(batch, horizon):
            expected[segment.env_id, segment.ordinal] = segment, batch
    for start in range(0, 12, 4):
        add(joiner, piece(left, start, start + 4))
        add(joiner, piece(right, start, start + 4))
    assert len(joiner) == len(expected)
    if expected:
        taken = joiner.take(len(joiner))
        keys = list(zip(taken.env_ids.tolist(), taken.segment_ids.tolist(), strict=True))
        assert sorted(keys) == sorted(expected)
        for column, key in enumerate(keys):
            assert_column(taken, column, *expected[key])


# Cases small enough to read


def actions(taken: RolloutBatch) -> list[list[int]]:
    """The real steps' actions of each column: their places in the stream."""
    return [taken.actions[taken.mask[:, column], column].tolist() for column in range(taken.columns)]


def test_an_episode_over_three_fragments_comes_out_whole_with_its_final_observation():
    batch = stream([["", "", "", "", "", "terminated", "", ""]])
    joiner = SegmentJoiner(None)
    for start, end in [(0, 2), (2, 4), (4, 8)]:
        assert len(joiner) == 0
        add(joiner, piece(batch, start, end))
    taken = joiner.take(1)
    assert actions(taken) == [[0, 1, 2, 3, 4, 5]]
    assert taken.observations.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert taken.terminated.flatten().tolist() == [False] * 5 + [True]
    assert joiner.steps_held == 1  # row 6 is the reset step, row 7 the next episode's first


def test_a_horizon_cuts_every_n_steps_and_anew_after_an_episodes_end():
    batch = stream([["", "", "", "", "truncated", "", "", "", ""]])
    joiner = SegmentJoiner(2)
    add(joiner, batch.copy())
    taken = joiner.take(3)
    assert actions(taken) == [[0, 1], [2, 3], [4]]
    assert taken.observations[:, :, 0].T.tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 0]]
    assert taken.segment_ids.tolist() == [0, 1, 2]
    assert actions(joiner.take(1)) == [[6, 7]]
    assert joiner.steps_held == 1


def test_an_episode_that_ends_at_the_horizon_is_one_segment():
    joiner = SegmentJoiner(2)
    add(joiner, stream([["", "terminated", "", ""]]))
    assert len(joiner) == 1
    assert actions(joiner.take(1)) == [[0, 1]]


def test_a_skipped_reset_step_begins_the_next_segment_and_loses_nothing():
    batch = stream([["", "terminated", "", "", "terminated"]])
    assert not batch.mask[2, 0]
    joiner = SegmentJoiner(None)
    add(joiner, piece(batch, 0, 2))
    fragment = piece(batch, 3, 5)
    assert fragment.mask.all()
    add(joiner, fragment)
    taken = joiner.take(2)
    assert actions(taken) == [[0, 1], [3, 4]]
    assert taken.observations[:, :, 0].T.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_fragment_that_is_one_reset_step_adds_nothing():
    batch = stream([["terminated", "", ""]])
    joiner = SegmentJoiner(None)
    add(joiner, piece(batch, 0, 1))
    add(joiner, piece(batch, 1, 2))
    assert joiner.steps_held == 1
    assert len(joiner) == 1


def test_segments_come_out_in_the_order_of_their_completion():
    # Environment 1 ends first, then both at once (the lower column first), then environment 0.
    batch = stream([["", "", "", "terminated", "", "", "terminated"], ["", "terminated", "", "terminated", "", "", ""]])
    joiner = SegmentJoiner(None)
    add(joiner, batch.copy())
    taken = joiner.take(4)
    assert taken.env_ids.tolist() == [1, 0, 1, 0]
    assert taken.segment_ids.tolist() == [0, 0, 1, 1]


def test_steps_held_counts_complete_and_open_segments_alike():
    joiner = SegmentJoiner(None)
    add(joiner, stream([["", "terminated", "", "", ""], ["", "", "", "", ""]]))
    assert joiner.steps_held == (2 + 2) + 5
    joiner.take(1)
    assert joiner.steps_held == 2 + 5


def test_joined_observations_keep_their_shape_and_dtype():
    batch = stream([["", "terminated"]])
    pixels = batch._replace(observations=torch.arange(3 * 2 * 2).reshape(3, 1, 2, 2).to(torch.uint8))
    joiner = SegmentJoiner(None)
    joiner.add(pixels)
    observations = joiner.take(1).observations
    assert observations.dtype == torch.uint8
    assert torch.equal(observations, pixels.observations)


def test_taking_more_segments_than_are_complete_raises():
    joiner = SegmentJoiner(None)
    add(joiner, stream([["", "terminated", "", ""]]))
    with pytest.raises(IndexError):
        joiner.take(2)
