"""AverageReward: hand-computed differential returns, GAE as a case of it, and how the average follows."""

import pytest
import torch
from builders import make_batch
from hypothesis import given
from rollout_cases import (
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

from a3c.returns import GAE, AverageReward, ValueRescaled
from a3c.returns.labels import label_of

# The average is 1: rewards 1, 2, 4 count as 0, 1, 3; the states are worth 10, 20, 30, 40; γ is 1, not ½; λ = 1.
DIFFERENTIAL = {
    ("terminated", 1): [0.0],
    ("terminated", 2): [0 + 1, 1.0],
    ("terminated", 3): [0 + 1 + 3, 1 + 3, 3.0],
    ("truncated", 1): [0 + 20.0],
    ("truncated", 2): [0 + 1 + 30, 1 + 30.0],
    ("truncated", 3): [0 + 1 + 3 + 40, 1 + 3 + 40, 3 + 40.0],
}


def with_average(average: float, *arguments: float) -> AverageReward:
    estimator = AverageReward(9, *arguments)
    estimator.average_reward.fill_(average)
    return estimator


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_every_split_of_the_chain_gives_the_hand_computed_differential_returns(end, steps):
    batch, values = chain(end, steps)
    advantages, targets, _ = estimate(with_average(1.0, 1.0), batch, values, HALF)
    expected = DIFFERENTIAL["truncated" if end == "cut" else end, steps]
    assert_numbers(targets[:steps, 0], expected)
    assert_numbers(advantages[:steps, 0], [g - v for g, v in zip(expected, [10, 20, 30], strict=False)])
    if end != "cut":
        assert_numbers(targets[steps + 1 :, 0], [8 - 1 + 60])


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_before_it_has_learned_it_is_gae_without_a_discount(rollout, discount, lambda_):
    batch, values, _ = rollout
    average = estimate(AverageReward(8, lambda_), batch, values, discount)
    assert_same_where_real(average, estimate(GAE(8, lambda_), batch, values, 1.0), batch.mask)


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_it_matches_the_sum_of_differential_errors(rollout, average, lambda_):
    """Σₗ λˡ·δₜ₊ₗ with δ = r − r̄ + V' − V, Sutton & Barto section 13.6."""
    batch, values, _ = rollout

    def error(column, t):
        return batch.rewards[t, column].item() - average + after(batch, values, column, t) - values[t, column].item()

    def step(column, t, last):
        advantage = sum(lambda_ ** (i - t) * error(column, i) for i in range(t, last + 1))
        return advantage, advantage + values[t, column].item()

    expected = reference(batch, values, step)
    assert_same_where_real(estimate(with_average(average, lambda_), batch, values, 0.9), expected, batch.mask)


def take_in(estimator, batch, values):
    estimator.take_in(batch, values, torch.zeros_like(batch.rewards), torch.full_like(batch.rewards, 0.5))


def test_the_average_moves_by_the_rate_times_the_mean_error_of_real_steps():
    # r̄ = 1: errors 4 − 1 + 20 − 10 = 13, 2 − 1 + 0 − 20 = −19 (terminal), 7 − 1 + 60 − 50 = 16 and
    # 9 − 1 + 5 − 60 = −47 (truncated).
    mask = [1, 1, 0, 1, 1]
    batch = make_batch([4.0, 2.0, 1e6, 7.0, 9.0], terminated=[0, 1, 0, 0, 0], truncated=[0, 0, 0, 0, 1], mask=mask)
    values = torch.tensor([[10.0], [20.0], [-3.0], [50.0], [60.0], [5.0]])
    estimator = with_average(1.0, 0.95, 0.1)
    take_in(estimator, batch, values)
    assert estimator.average_reward.item() == pytest.approx(1 + 0.1 * (13 - 19 + 16 - 47) / 4)


def test_the_average_reaches_the_reward_a_step_of_a_task_that_goes_on_for_ever():
    estimator, values = AverageReward(4, rate=0.1), torch.zeros(5, 1)
    for _ in range(200):
        take_in(estimator, make_batch([1.0, 2.0, 3.0, 4.0]), values)
    assert estimator.average_reward.item() == pytest.approx(2.5, abs=1e-6)


def test_rewards_of_which_all_are_the_average_are_worth_nothing():
    batch = make_batch([2.0, 2.0, 2.0])
    assert_numbers(estimate(with_average(2.0), batch, torch.zeros(4, 1), 0.9).advantages[:, 0], [0.0, 0.0, 0.0])


def test_only_take_in_moves_the_average():
    estimator = with_average(1.0)
    batch = make_batch([5.0, 6.0])
    estimate(estimator, batch, torch.zeros(3, 1), 0.9)
    assert estimator.average_reward.item() == 1.0
    average = estimator.average_reward
    take_in(estimator, batch, torch.zeros(3, 1))
    assert estimator.average_reward is average  # in place: workers share its memory
    assert average.item() != 1.0


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["rewards", "values"])
def test_an_update_that_is_not_finite_moves_nothing(poison, where):
    estimator, batch, values = with_average(1.0), make_batch([5.0, 6.0]), torch.zeros(3, 1)
    (batch.rewards if where == "rewards" else values)[1] = poison
    take_in(estimator, batch, values)
    assert estimator.average_reward.item() == 1.0


def test_what_stands_at_masked_steps_moves_nothing_and_a_batch_of_them_neither():
    estimator, plain = with_average(1.0), with_average(1.0)
    nan = float("nan")
    take_in(estimator, make_batch([5.0, nan, nan], mask=[1, 0, 0]), torch.tensor([[1.0], [2.0], [nan], [nan]]))
    take_in(plain, make_batch([5.0]), torch.tensor([[1.0], [2.0]]))
    assert estimator.average_reward == plain.average_reward
    take_in(estimator, make_batch([5.0], mask=[0]), torch.zeros(2, 1))
    assert estimator.average_reward == plain.average_reward


def test_the_average_is_a_statistic_that_another_one_goes_on_from():
    first, second = with_average(1.5), AverageReward(9)
    assert {name: (x.dtype, x.shape) for name, x in first.statistics.items()} == {
        "average_reward": (torch.float64, torch.Size())
    }
    assert first.statistics["average_reward"] is first.average_reward
    kept = second.average_reward
    second.load_state_dict(first.state_dict())
    assert second.average_reward is kept
    assert kept.item() == 1.5
    assert label_of(second) == "AverageReward:n_steps=9"  # what it has learned is no argument


def test_rescaled_values_move_the_average_as_their_originals_would():
    plain, within = with_average(1.0), with_average(1.0)
    rescaled = ValueRescaled(within, epsilon=0.0)
    batch = make_batch([5.0, 6.0])
    take_in(plain, batch, torch.tensor([[3.0], [8.0], [15.0]]))
    take_in(rescaled, batch, torch.tensor([[1.0], [2.0], [3.0]]))  # √(x + 1) − 1
    assert plain.average_reward.item() != 1.0
    assert within.average_reward.item() == pytest.approx(plain.average_reward.item())
    assert rescaled.statistics["average_reward"] is within.average_reward


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AverageReward(0), "n_steps: got 0, must be at least 1"),
        (lambda: AverageReward(lambda_=2), "lambda_: got 2, must be between 0 and 1"),
        (lambda: AverageReward(rate=-0.1), "rate: got -0.1, must be between 0 and 1"),
        (lambda: AverageReward(rate=float("nan")), "rate: got nan, must be between 0 and 1"),
    ],
)
def test_what_is_out_of_range_raises_with_its_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()
