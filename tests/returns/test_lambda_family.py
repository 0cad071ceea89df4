"""TDLambda and DecoupledGAE: hand-computed chains, what they are cases of, and what is refused."""

import pytest
import torch
from hypothesis import given
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

from a3c.batch import RolloutBatch
from a3c.returns import GAE, DecoupledGAE, NStep, Targets, TDLambda

FOUR_FIFTHS = {  # γ = ½, λ = ⅘: G = r + 0.1·V' + 0.4·G'; a cut gives r + ½·V'
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.1 * 20 + 0.4 * 2, 2.0],
    ("terminated", 3): [1 + 0.1 * 20 + 0.4 * 6.6, 2 + 0.1 * 30 + 0.4 * 4, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.1 * 20 + 0.4 * 17, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.1 * 20 + 0.4 * 14.6, 2 + 0.1 * 30 + 0.4 * 24, 4 + 0.5 * 40],
}
LONG = {  # λ = 1
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * 2, 2.0],
    ("terminated", 3): [1 + 0.5 * 4, 2 + 0.5 * 4, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * 17, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * 14, 2 + 0.5 * 24, 4 + 0.5 * 40],
}


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_td_lambda_gives_the_critic_the_hand_computed_lambda_returns_on_every_split(end, steps):
    batch, values = chain(end, steps)
    advantages, targets, _ = estimate(TDLambda(9, 0.8), batch, values, HALF)
    expected = FOUR_FIFTHS["truncated" if end == "cut" else end, steps]
    assert_numbers(targets[:steps, 0], expected)
    assert_numbers(advantages[:steps, 0], [g - v for g, v in zip(expected, CHAIN_VALUES, strict=False)])


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_decoupled_gae_takes_advantages_and_targets_from_the_tables_of_two_lambdas(end, steps):
    batch, values = chain(end, steps)
    advantages, targets, _ = estimate(DecoupledGAE(9, lambda_actor=0.8, lambda_critic=1.0), batch, values, HALF)
    key = ("truncated" if end == "cut" else end, steps)
    assert_numbers(targets[:steps, 0], LONG[key])
    assert_numbers(advantages[:steps, 0], [g - v for g, v in zip(FOUR_FIFTHS[key], CHAIN_VALUES, strict=False)])
    if end != "cut":  # the next episode's step: reward 8, from a state valued 50 to one valued 60
        assert_numbers(targets[steps + 1 :, 0], [8 + 0.5 * 60])
        assert_numbers(advantages[steps + 1 :, 0], [8 + 0.5 * 60 - 50])


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_td_lambda_is_gae_of_the_same_lambda(rollout, discount, lambda_):
    batch, values, _ = rollout
    gae = estimate(GAE(8, lambda_), batch, values, discount)
    td = estimate(TDLambda(8, lambda_), batch, values, discount)
    assert all(torch.equal(a[batch.mask], b[batch.mask]) for a, b in zip(td[:2], gae[:2], strict=True))


@random_rollouts
@given(rollouts(), fractions)
def test_td_lambda_with_1_is_n_step_and_with_0_is_td_0(rollout, discount):
    batch, values, _ = rollout
    n_step = estimate(NStep(batch.length), batch, values, discount)
    assert_same_where_real(estimate(TDLambda(8, 1.0), batch, values, discount), n_step, batch.mask)
    td_0 = estimate(NStep(1), batch, values, discount)
    assert_same_where_real(estimate(TDLambda(8, 0.0), batch, values, discount), td_0, batch.mask)


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_decoupled_gae_of_equal_lambdas_is_gae(rollout, discount, lambda_):
    batch, values, _ = rollout
    gae = estimate(GAE(8, lambda_), batch, values, discount)
    assert_same_where_real(estimate(DecoupledGAE(8, lambda_, lambda_), batch, values, discount), gae, batch.mask)


def lambda_return(batch: RolloutBatch, values, column: int, t: int, last: int, discount: float, lambda_: float):
    """(1 − λ)·Σₙ λⁿ⁻¹·Gₜ:ₜ₊ₙ + λ^(h−t−1)·Gₜ:ₕ, Sutton & Barto eq. 12.9, of n-step returns written out."""

    def n_step(n: int) -> float:
        total = sum(discount**i * batch.rewards[t + i, column].item() for i in range(n))
        return total + discount**n * after(batch, values, column, t + n - 1)

    longest = last - t + 1
    mixed = sum((1 - lambda_) * lambda_ ** (n - 1) * n_step(n) for n in range(1, longest))
    return mixed + lambda_ ** (longest - 1) * n_step(longest)


@random_rollouts
@given(rollouts(), fractions, fractions, fractions)
def test_both_halves_match_the_weighted_sum_of_n_step_returns(rollout, discount, lambda_actor, lambda_critic):
    batch, values, _ = rollout

    def step(column, t, last):
        actor = lambda_return(batch, values, column, t, last, discount, lambda_actor)
        return actor - values[t, column].item(), lambda_return(batch, values, column, t, last, discount, lambda_critic)

    expected = reference(batch, values, step)
    decoupled = estimate(DecoupledGAE(8, lambda_actor, lambda_critic), batch, values, discount)
    assert_same_where_real(decoupled, expected, batch.mask)
    td = estimate(TDLambda(8, lambda_critic), batch, values, discount)
    critic = expected.value_targets
    assert_same_where_real(td, Targets(critic - values[:-1], critic), batch.mask)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TDLambda(0), "n_steps: got 0, must be at least 1"),
        (lambda: TDLambda(lambda_=1.1), "lambda_: got 1.1, must be between 0 and 1"),
        (lambda: DecoupledGAE(2.5), "n_steps: got 2.5, must be a whole number"),
        (lambda: DecoupledGAE(lambda_actor=-0.1), "lambda_actor: got -0.1, must be between 0 and 1"),
        (lambda: DecoupledGAE(lambda_critic=float("nan")), "lambda_critic: got nan, must be between 0 and 1"),
    ],
)
def test_what_is_out_of_range_raises_with_its_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()
