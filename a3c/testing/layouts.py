"""Which columns an estimator is given in training: fragments of running episodes, or segments of one each."""

from __future__ import annotations

from a3c.returns import ReturnEstimator
from a3c.testing.columns import Columns, below

LONGEST = 512  # rows; a longer horizon is left to training
EPISODE = 6  # steps of a whole episode, where the horizon allows as many

FRAGMENTS: tuple[Columns, ...] = (
    (".......",),
    ("...T-..t-..", "-.b-T-t-...", "t-........T", "-.........."),
    below(("-..T-.....t", "T-t-b-.....", ".......", "...T-..", "....t", "-")),
    (".", "T", "t", "b", "-"),
    (".",),
    ("-",),
)


def layouts_for(estimator: ReturnEstimator) -> list[Columns]:
    """Return what it is to be asked about, of several sizes, the horizon's among them."""
    return _segments(estimator.horizon) if estimator.needs_segments else _fragments(estimator.horizon)


def leak_layouts(estimator: ReturnEstimator, end: str) -> list[Columns]:
    """Return fragments whose first column goes on after an episode's end; none where columns end with their episode."""
    if estimator.needs_segments:
        return []
    return [(f"...{end}-....",), (f"{end}-...T-..", ".........", "...t-....")]


def _fragments(horizon: int | None) -> list[Columns]:
    if horizon is None or horizon > LONGEST:
        return list(FRAGMENTS)
    episodes = ("..T-...t-.b-" * horizon)[:horizon]
    return [*FRAGMENTS, ("." * horizon, episodes), (episodes,)]


def _segments(horizon: int | None) -> list[Columns]:
    longest = min(EPISODE, horizon or EPISODE)
    half = (longest + 1) // 2
    found = [
        (_episode(longest, "T"),),
        (_episode(longest, "t"),),
        ("T",),
        below([_episode(longest, "t"), _episode(half, "T"), "T", _episode(half, "b"), "t"]),
    ]
    if horizon is not None and horizon <= LONGEST:  # a segment may end before its episode, but none is shorter then
        found += [("." * horizon,), below(["." * horizon, _episode(half, "T"), "t"])]
    return found


def _episode(steps: int, end: str) -> str:
    return "." * (steps - 1) + end
