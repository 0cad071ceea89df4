"""SlidingNStep and Compound: hand-computed chains, what they are cases of, and forward sums."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rollout_cases import (
    CHAIN_VALUES,
    ENDS,
    HALF,
    after,
    assert_numbers,
    assert_same_where_real,
    chain,
    estimate,
    fractions,
    random_rollouts,
    reference,
    rollouts,
)

from a3c.returns import Compound, FullEpisode, NStep, SlidingNStep, Targets, sliding_returns

# Two steps ahead from every step, where the chain is as long; γ = ½, the states are worth 10, 20, 30, 40.
TWO_AHEAD = {
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * 2, 2.0],
    ("terminated", 3): [1 + 0.5 * 2 + 0.25 * 30, 2 + 0.5 * 4, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * 2 + 0.25 * 30, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * 2 + 0.25 * 30, 2 + 0.5 * 4 + 0.25 * 40, 4 + 0.5 * 40],
}
ONE_AHEAD = {
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * 20, 2.0],
    ("terminated", 3): [1 + 0.5 * 20, 2 + 0.5 * 30, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * 20, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * 20, 2 + 0.5 * 30, 4 + 0.5 * 40],
}
MIXED = {key: [0.75 * a + 0.25 * b for a, b in zip(ONE_AHEAD[key], TWO_AHEAD[key], strict=True)] for key in ONE_AHEAD}


@pytest.mark.parametrize(("end", "steps"), ENDS)
@pytest.mark.parametrize(
    ("estimator", "table"),
    [(SlidingNStep(9, 2), TWO_AHEAD), (SlidingNStep(9, 1), ONE_AHEAD), (Compound(9, 1, 2, 0.25), MIXED)],
    ids=["2_ahead", "1_ahead", "quarter_of_2"],
)
def test_every_split_of_the_chain_gives_the_hand_computed_targets(estimator, table, end, steps):
    batch, values = chain(end, steps)
    advantages, targets, _ = estimate(estimator, batch, values, HALF)
    expected = table["truncated" if end == "cut" else end, steps]
    assert_numbers(targets[:steps, 0], expected)
    assert_numbers(advantages[:steps, 0], [g - v for g, v in zip(expected, CHAIN_VALUES, strict=False)])
    if end != "cut":
        assert_numbers(targets[steps + 1 :, 0], [8 + 0.5 * 60])


def test_every_step_looks_equally_far_where_n_step_looks_less_and_less():
    rewards, values = torch.ones(4, 1), torch.tensor([[10.0], [20.0], [30.0], [40.0]])
    cuts = torch.tensor([[False], [False], [False], [True]])
    returns = sliding_returns(rewards, torch.ones(4, 1), values, cuts, 2)
    assert_numbers(returns[:, 0], [2 + 20, 2 + 30, 2 + 40, 1 + 40])


@random_rollouts
@given(rollouts(), fractions, st.integers(0, 3))
def test_a_lookahead_of_the_whole_rollout_is_n_step_without_inner_cuts(rollout, discount, beyond):
    batch, values, _ = rollout
    n_steps = batch.length + beyond
    sliding = estimate(SlidingNStep(n_steps, n_steps), batch, values, discount)
    assert_same_where_real(sliding, estimate(NStep(n_steps), batch, values, discount), batch.mask)
    assert_same_where_real(sliding, estimate(FullEpisode(), batch, values, discount), batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_a_lookahead_of_1_is_td_0(rollout, discount):
    batch, values, _ = rollout
    sliding = estimate(SlidingNStep(8, 1), batch, values, discount)
    assert_same_where_real(sliding, estimate(NStep(1), batch, values, discount), batch.mask)


@random_rollouts
@given(rollouts(), fractions, st.integers(1, 8), st.integers(1, 8))
def test_a_compound_of_weight_0_or_1_or_of_one_length_is_a_sliding_return(rollout, discount, one, other):
    batch, values, _ = rollout
    short, long = sorted((one, other))
    for compound, lookahead in [
        (Compound(8, short, long, 0.0), short),
        (Compound(8, short, long, 1.0), long),
        (Compound(8, long, long, 0.3), long),
    ]:
        sliding = estimate(SlidingNStep(8, lookahead), batch, values, discount)
        assert_same_where_real(estimate(compound, batch, values, discount), sliding, batch.mask)


def n_step_return(batch, values, column, t, last, discount, lookahead):
    """G = r₀ + γ·r₁ + … + γⁿ·Vₙ, Sutton & Barto eq. 7.1, of n steps or as many as there are."""
    steps = min(lookahead, last - t + 1)
    total = sum(discount**i * batch.rewards[t + i, column].item() for i in range(steps))
    return total + discount**steps * after(batch, values, column, t + steps - 1)


@random_rollouts
@given(rollouts(), fractions, st.integers(1, 8), st.integers(1, 8), fractions)
def test_both_match_their_forward_sums(rollout, discount, one, other, weight):
    batch, values, _ = rollout
    short, long = sorted((one, other))

    def targets(*parts):
        def step(column, t, last):
            total = sum(w * n_step_return(batch, values, column, t, last, discount, n) for n, w in parts)
            return total - values[t, column].item(), total

        return reference(batch, values, step)

    sliding = estimate(SlidingNStep(8, long), batch, values, discount)
    assert_same_where_real(sliding, targets((long, 1.0)), batch.mask)
    compound = estimate(Compound(8, short, long, weight), batch, values, discount)
    assert_same_where_real(compound, targets((short, 1 - weight), (long, weight)), batch.mask)


@pytest.mark.parametrize("estimator", [SlidingNStep(8, 3), Compound(8, 1, 4)])
def test_targets_less_values_are_the_advantages(estimator):
    batch, values = chain("truncated", 3)
    targets: Targets = estimate(estimator, batch, values, HALF)
    assert torch.equal(targets.advantages, targets.value_targets - values[:-1])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SlidingNStep(0, 1), "n_steps: got 0, must be at least 1"),
        (lambda: SlidingNStep(8, 9), "lookahead: got 9, must be between 1 and 8"),
        (lambda: SlidingNStep(8, 0), "lookahead: got 0, must be between 1 and 8"),
        (lambda: SlidingNStep(8, 2.0), "lookahead: got 2.0, must be a whole number"),
        (lambda: Compound(8, 1, 9), "long: got 9, must be between 1 and 8"),
        (lambda: Compound(8, 5, 4), "short: got 5, must be between 1 and 4"),
        (lambda: Compound(8, True, 4), "short: got True, must be a whole number"),
        (lambda: Compound(weight=1.5), "weight: got 1.5, must be between 0 and 1"),
    ],
)
def test_what_is_out_of_range_raises_with_its_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()
