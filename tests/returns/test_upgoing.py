"""UPGO and PositiveOnly: hand-computed cases, what they are cases of, and a literal reference."""

import math

import pytest
import torch
from builders import make_batch
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

from a3c.returns import GAE, UPGO, FullEpisode, NStep, PositiveOnly, SlidingNStep, Targets, TDLambda, VTrace

# γ = 1, values 0, 1, 2, 3, 4; rewards 1, 5, 0, 7. One-step returns: 2, 7, 3, 11, of states worth 0, 1, 2, 3: the
# last three do at least as well as expected, so each is followed. With a reward of −2 in the third step, that one
# has 1 < 2: the second step takes the critic's 2.
VALUES = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])


def test_upgo_follows_a_rollout_that_goes_better_than_expected():
    targets = estimate(UPGO(4), make_batch([1.0, 5.0, 0.0, 7.0]), VALUES, 1.0)
    assert_numbers(targets.advantages[:, 0], [1 + 5 + 0 + 7 + 4 - 0, 5 + 0 + 7 + 4 - 1, 0 + 7 + 4 - 2, 7 + 4 - 3])


def test_upgo_takes_the_critics_word_for_what_goes_worse():
    targets = estimate(UPGO(4), make_batch([1.0, 5.0, -2.0, 7.0]), VALUES, 1.0)
    assert_numbers(targets.advantages[:, 0], [1 + 5 + 2 - 0, 5 + 2 - 1, -2 + 7 + 4 - 2, 7 + 4 - 3])


def test_upgo_follows_what_goes_exactly_as_expected():
    # The second step: 1 + 2 = 3, as expected. With reward 0 in the third, following it makes a difference of 8 − 2.
    values = torch.tensor([[0.0], [3.0], [2.0], [8.0]])
    targets = estimate(UPGO(3), make_batch([1.0, 1.0, 0.0]), values, 1.0)
    assert_numbers(targets.advantages[:, 0], [1 + 1 + 8 - 0, 1 + 8 - 3, 8 - 2])


def test_upgo_clips_ratios_at_1_and_has_the_critic_learn_without_them():
    log_probs = torch.tensor([[3.0], [0.25]]).log()
    targets = estimate(UPGO(2, 0.5), make_batch([1.0, 5.0]), VALUES[:3], 1.0, log_probs)
    assert_numbers(targets.advantages[:, 0], [1 + 5 + 2 - 0, 0.25 * (5 + 2 - 1)])
    assert_numbers(targets.value_targets[:, 0], [1 + 0.5 * 1 + 0.5 * 7, 5 + 2])


UPGOING = {  # each state of the chain does worse than expected: 2 < 20 or 2 + 15 < 20; 4 + 20 < 30
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * 20, 2.0],
    ("terminated", 3): [1 + 0.5 * 20, 2 + 0.5 * 30, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * 20, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * 20, 2 + 0.5 * 30, 4 + 0.5 * 40],
}


@pytest.mark.parametrize(("end", "steps"), ENDS)
@pytest.mark.parametrize("estimator", [UPGO(9), PositiveOnly(NStep(1))], ids=["upgo", "positive_only"])
def test_on_the_disappointing_chain_each_step_looks_one_step_ahead(estimator, end, steps):
    batch, values = chain(end, steps)
    advantages = estimate(estimator, batch, values, HALF).advantages[:steps, 0]
    expected = [g - v for g, v in zip(UPGOING["truncated" if end == "cut" else end, steps], CHAIN_VALUES, strict=False)]
    if isinstance(estimator, PositiveOnly):
        expected = [max(0.0, x) for x in expected]
    assert_numbers(advantages, expected)


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_upgo_of_a_critic_that_expects_nothing_good_is_the_full_episode_and_the_other_way_td_0(
    rollout, discount, lambda_
):
    batch, values, _ = rollout
    for expects, plain in ((-1e3, FullEpisode()), (1e3, NStep(1))):
        shifted = batch._replace(rewards=batch.rewards - expects * (discount - 1))  # V + e is then as right as V was
        shifted = shifted._replace(rewards=shifted.rewards - expects / 10)  # and each step better or worse than it
        upgo = estimate(UPGO(8, lambda_), shifted, values + expects, discount)
        wanted = estimate(plain, shifted, values + expects, discount)
        critic = estimate(TDLambda(8, lambda_), shifted, values + expects, discount)
        assert_same_where_real(
            upgo, Targets(wanted.advantages, critic.value_targets), batch.mask & ~near_the_end(batch)
        )


def near_the_end(batch):
    """Steps whose episode terminates in them or later: a terminal state is worth 0, whatever the critic expects."""
    near, later = torch.zeros_like(batch.mask), torch.zeros_like(batch.mask[0])
    for t in reversed(range(batch.length)):
        later = (later | batch.terminated[t]) & batch.mask[t]
        near[t] = later
    return near


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_upgo_matches_its_definition(rollout, discount, lambda_):
    batch, values, log_probs = rollout

    def one_step(column, t):
        return batch.rewards[t, column].item() + discount * after(batch, values, column, t)

    def upgoing(column, t, last):
        if t == last or one_step(column, t + 1) < values[t + 1, column].item():
            return one_step(column, t)
        return batch.rewards[t, column].item() + discount * upgoing(column, t + 1, last)

    def critic(column, t, last):
        if t == last:
            return one_step(column, t)
        mixed = (1 - lambda_) * values[t + 1, column].item() + lambda_ * critic(column, t + 1, last)
        return batch.rewards[t, column].item() + discount * mixed

    def step(column, t, last):
        ratio = math.exp(log_probs[t, column].item() - batch.behaviour_log_probs[t, column].item())
        advantage = min(1, ratio) * (upgoing(column, t, last) - values[t, column].item())
        return advantage, critic(column, t, last)

    expected = reference(batch, values, step)
    assert_same_where_real(estimate(UPGO(8, lambda_), batch, values, discount, log_probs), expected, batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_upgo_is_never_below_the_one_step_advantage_of_the_policy_that_acted(rollout, discount):
    batch, values, _ = rollout
    upgo = estimate(UPGO(8), batch, values, discount).advantages[batch.mask]
    assert (upgo >= estimate(SlidingNStep(8, 1), batch, values, discount).advantages[batch.mask] - 1e-9).all()


@random_rollouts
@given(rollouts(), fractions)
@pytest.mark.parametrize("inner", [GAE(8, 0.9), VTrace(8), NStep(2)], ids=["gae", "vtrace", "n_step"])
def test_positive_only_clamps_advantages_and_leaves_targets_alone(inner, rollout, discount):
    batch, values, log_probs = rollout
    plain = estimate(inner, batch, values, discount, log_probs)
    clamped = estimate(PositiveOnly(inner), batch, values, discount, log_probs)
    expected = [[max(0.0, x) for x in row] for row in plain.advantages.tolist()]
    expected_targets = Targets(torch.tensor(expected, dtype=torch.float64).view_as(values[:-1]), plain.value_targets)
    assert_same_where_real(clamped, expected_targets, batch.mask)


def test_positive_only_keeps_3_and_0_and_makes_0_of_minus_2():
    batch = make_batch([3.0, 0.0, -2.0], terminated=[1, 1, 1])
    targets = estimate(PositiveOnly(NStep(3)), batch, torch.zeros(4, 1), 1.0)
    assert_numbers(targets.advantages[:, 0], [3.0, 0.0, 0.0])
    assert_numbers(targets.value_targets[:, 0], [3.0, 0.0, -2.0])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: UPGO(0), "n_steps: got 0, must be at least 1"),
        (lambda: UPGO(lambda_=-1), "lambda_: got -1, must be between 0 and 1"),
        (lambda: PositiveOnly("GAE"), "estimator: got 'GAE', must be a return estimator"),
    ],
)
def test_what_is_out_of_range_raises_with_its_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()
