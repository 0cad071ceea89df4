"""Rollouts to test estimators on, a chain to reckon by hand and random ones, and what slow references share."""

import numpy as np
import torch
from builders import discounts_of, make_batch, time_major
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns import ReturnEstimator, Targets


def estimate(
    estimator: ReturnEstimator, batch: RolloutBatch, values: Tensor, discount: float, log_probs: Tensor | None = None
) -> Targets:
    """Asks an estimator; without log_probs the policy is the one that acted."""
    log_probs = batch.behaviour_log_probs if log_probs is None else log_probs
    return estimator(batch, values, log_probs, discounts_of(batch, discount))


def assert_numbers(tensor: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(tensor, torch.tensor(expected, dtype=tensor.dtype), rtol=1e-6, atol=1e-6)


# The chain: rewards 1, 2, 4 for leaving states valued 10, 20, 30; the last step leads to a state
# valued 40; γ = ½. It ends after 1, 2 or 3 steps, in one of three ways.

CHAIN_REWARDS, CHAIN_VALUES, HALF = [1.0, 2.0, 4.0], [10.0, 20.0, 30.0, 40.0], 0.5
ENDS = [(end, steps) for steps in (1, 2, 3) for end in ("terminated", "truncated", "cut")]


def chain(end: str, steps: int) -> tuple[RolloutBatch, Tensor]:
    """Gives the chain ended after `steps`; past an end come a reset step and one step of the next episode.

    The next episode's step has reward 8 and leads to a state valued 60. At a cut the fragment stops.
    """
    rewards, values = CHAIN_REWARDS[:steps], CHAIN_VALUES[: steps + 1]
    if end == "cut":
        return make_batch(rewards), time_major(values, torch.float32)
    flags = [t == steps - 1 for t in range(steps + 2)]
    mask = [t != steps for t in range(steps + 2)]
    batch = make_batch([*rewards, 1e6, 8.0], **{end: flags}, mask=mask)
    return batch, time_major([*values, 50.0, 60.0], torch.float32)


@st.composite
def rollouts(draw) -> tuple[RolloutBatch, Tensor, Tensor]:
    """Gives (batch, values, log_probs) of random columns, in float64.

    A column may begin with a reset step, ends episodes anywhere, has a reset step after each end,
    and may be shorter than the batch. What stands at masked steps is NaN, and so are the values of
    observations that no real step led to or acted in.
    """
    length, columns = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flags = {name: np.zeros((length, columns), dtype=bool) for name in ("terminated", "truncated", "mask")}
    ends = ["", "", "", "terminated", "truncated", "terminated truncated"]
    values = np.full((length + 1, columns), np.nan)
    for column in range(columns):
        real_length = draw(st.sampled_from([length, length, draw(st.integers(1, length))]))
        reset = draw(st.booleans())
        for t in range(real_length):
            flags["mask"][t, column] = not reset
            end = "" if reset else draw(st.sampled_from(ends))
            for name in end.split():
                flags[name][t, column] = True
            reset = bool(end)
        values[: real_length + 1, column] = rng.normal(size=real_length + 1)
    rewards = rng.normal(size=(length, columns)) * np.where(flags["mask"], 1, np.nan)
    log_probs, behaviour_log_probs = -rng.exponential(size=(2, length, columns)) * np.where(flags["mask"], 1, np.nan)
    batch = make_batch(
        torch.from_numpy(rewards),
        **{name: torch.from_numpy(flag) for name, flag in flags.items()},
        behaviour_log_probs=torch.from_numpy(behaviour_log_probs),
        dtype=torch.float64,
    )
    return batch, torch.from_numpy(values), torch.from_numpy(log_probs)


fractions = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
random_rollouts = settings(max_examples=60, deadline=None)


def assert_same_where_real(targets: Targets, expected: Targets, mask: Tensor) -> None:
    for given_, wanted in zip(targets[:2], expected[:2], strict=True):
        torch.testing.assert_close(given_[mask], wanted[mask], rtol=1e-9, atol=1e-9)


def last_step(batch: RolloutBatch, column: int, t: int) -> int:
    """Index of the last step of the run of steps that t belongs to."""
    while not (
        batch.terminated[t, column]
        or batch.truncated[t, column]
        or t == batch.length - 1
        or not batch.mask[t + 1, column]
    ):
        t += 1
    return t


def after(batch: RolloutBatch, values: Tensor, column: int, t: int) -> float:
    """The critic's V(xₜ₊₁), which is 0 beyond a terminal state."""
    return 0.0 if batch.terminated[t, column] else values[t + 1, column].item()


def reference(batch: RolloutBatch, values: Tensor, step) -> Targets:
    """Asks step(column, t, last) → (advantage, target) for every real step."""
    advantages, targets = torch.zeros_like(batch.rewards), torch.zeros_like(batch.rewards)
    for t, column in batch.mask.nonzero().tolist():
        advantages[t, column], targets[t, column] = step(column, t, last_step(batch, column, t))
    return Targets(advantages, targets)
