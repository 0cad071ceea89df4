"""Streams of steps, and fragments of them, in which every number tells where it belongs."""

import torch
from hypothesis import strategies as st

from a3c.batch import RolloutBatch


def stream(ends: list[list[str]], first_env_id: int = 0) -> RolloutBatch:
    """Gives a stream of all environments' steps as one fragment, each with a reset step after an end.

    ends[env][t] is "terminated", "truncated" or ""; an end at a reset step is left out. Observation
    t of an environment is 1000·env_id + t, and so is its action; no two are alike.
    """
    length, columns = len(ends[0]), len(ends)
    env_ids = torch.arange(first_env_id, first_env_id + columns)
    numbers = 1000 * env_ids + torch.arange(length + 1).unsqueeze(1)
    flags = {name: torch.zeros(length, columns, dtype=torch.bool) for name in ("terminated", "truncated")}
    mask = torch.ones(length, columns, dtype=torch.bool)
    for env, row in enumerate(ends):
        for t, end in enumerate(row):
            if t > 0 and (flags["terminated"] | flags["truncated"])[t - 1, env]:
                mask[t, env] = False
            elif end:
                flags[end][t, env] = True
    steps = numbers[:-1]
    return RolloutBatch(
        observations=numbers.unsqueeze(-1).float(),
        actions=steps.clone(),
        rewards=steps + 0.5,
        mask=mask,
        behaviour_log_probs=-steps.float(),
        policy_versions=steps * 2,
        states=torch.zeros(length, columns, 0),
        env_ids=env_ids,
        segment_ids=torch.full((columns,), 77),
        **flags,
    )


def piece(batch: RolloutBatch, start: int, end: int) -> RolloutBatch:
    """Gives steps start to end as a fragment with memory of its own."""
    rows = (field[start:end] for field in batch[1:9])
    return RolloutBatch(batch.observations[start : end + 1], *rows, batch.env_ids, batch.segment_ids).copy()


def fragments_of(batch: RolloutBatch, cuts: list[int], skip_resets: bool) -> list[RolloutBatch]:
    """Cuts a stream before the rows `cuts`.

    With skip_resets a fragment starts after a reset step that all environments share, as a
    collector's does.
    """
    fragments = []
    for start, end in zip([0, *cuts], [*cuts, batch.length], strict=True):
        if skip_resets and not batch.mask[start].any():
            start += 1
        if start < end:
            fragments.append(piece(batch, start, end))
    return fragments


@st.composite
def streams(draw, length: int | None = None, columns: int | None = None, first_env_id: int = 0) -> RolloutBatch:
    length = draw(st.integers(1, 24)) if length is None else length
    columns = draw(st.integers(1, 3)) if columns is None else columns
    end = st.sampled_from(["", "", "", "terminated", "truncated"])
    ends = [draw(st.lists(end, min_size=length, max_size=length)) for _ in range(columns)]
    return stream(ends, first_env_id)


@st.composite
def cut_streams(draw) -> tuple[RolloutBatch, list[RolloutBatch]]:
    batch = draw(streams())
    cuts = sorted(draw(st.sets(st.integers(1, batch.length - 1), max_size=8))) if batch.length > 1 else []
    return batch, fragments_of(batch, cuts, skip_resets=draw(st.booleans()))
