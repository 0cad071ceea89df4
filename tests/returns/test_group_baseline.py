"""GroupBaseline: hand-computed groups of episodes, a literal reference, and what it asks of no critic."""

import pytest
import torch
from builders import make_batch
from hypothesis import given
from rollout_cases import ENDS, HALF, assert_numbers, chain, estimate, fractions, last_step, random_rollouts, rollouts

from a3c.batch import join_columns
from a3c.learner.losses import MaskedReduction, value_loss
from a3c.returns import GroupBaseline


def test_each_episode_is_compared_with_the_mean_of_the_others_step_by_step():
    # γ = ½. Rewards to go: 1 + ½·2 + ¼·4 = 3, 4, 4; 6 + ½·2 = 7, 2; 5. The shorter ones are padded below.
    batch = make_batch(
        [[1.0, 6.0, 5.0], [2.0, 2.0, 0.0], [4.0, 0.0, 0.0]],
        terminated=[[0, 0, 1], [0, 1, 0], [1, 0, 0]],
        mask=[[1, 1, 1], [1, 1, 0], [1, 0, 0]],
    )
    advantages = estimate(GroupBaseline(), batch, torch.full((4, 3), 9.0), HALF).advantages
    assert_numbers(advantages[:, 0], [3 - (7 + 5) / 2, 4 - (2 + 0) / 2, 4 - 0])
    assert_numbers(advantages[:2, 1], [7 - (3 + 5) / 2, 2 - (4 + 0) / 2])
    assert_numbers(advantages[:1, 2], [5 - (3 + 7) / 2])


REWARDS_TO_GO = {1: [1.0], 2: [1 + 0.5 * 2, 2.0], 3: [1 + 0.5 * 4, 2 + 0.5 * 4, 4.0]}


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_a_single_column_has_no_baseline_and_no_end_is_bootstrapped(end, steps):
    batch, values = chain(end, steps)
    advantages = estimate(GroupBaseline(), batch, values, HALF).advantages
    assert_numbers(advantages[:steps, 0], REWARDS_TO_GO[steps])
    if end != "cut":
        assert_numbers(advantages[steps + 1 :, 0], [8.0])


def test_equal_episodes_have_no_advantage():
    batch = make_batch([[1.0, 1.0], [2.0, 2.0]], terminated=[[0, 0], [1, 1]])
    assert not estimate(GroupBaseline(), batch, torch.zeros(3, 2), 0.9).advantages.any()


def test_of_two_columns_one_gains_what_the_other_loses():
    batch = make_batch([[1.0, 4.0], [2.0, 1.0]], truncated=[[0, 0], [1, 1]])
    advantages = estimate(GroupBaseline(), batch, torch.zeros(3, 2), 0.9).advantages
    torch.testing.assert_close(advantages[:, 0], -advantages[:, 1])


@random_rollouts
@given(rollouts(), fractions)
def test_it_matches_the_leave_one_out_mean_written_out(rollout, discount):
    batch, values, _ = rollout
    to_go = torch.zeros_like(batch.rewards)
    for t, column in batch.mask.nonzero().tolist():
        last = last_step(batch, column, t)
        to_go[t, column] = sum(discount ** (i - t) * batch.rewards[i, column].item() for i in range(t, last + 1))
    expected = to_go.clone()
    for t, column in batch.mask.nonzero().tolist():
        others = [to_go[t, other].item() for other in range(batch.columns) if other != column]
        expected[t, column] -= sum(others) / len(others) if others else 0.0
    advantages, targets, _ = estimate(GroupBaseline(), batch, values, discount)
    torch.testing.assert_close(advantages[batch.mask], expected[batch.mask], rtol=1e-9, atol=1e-9)
    assert torch.equal(targets[batch.mask], values[:-1][batch.mask])


def test_no_column_is_part_of_its_own_baseline():
    first = make_batch([[1.0, 6.0], [2.0, 2.0]], terminated=[[0, 0], [1, 1]])
    other = make_batch([[1.0, 60.0], [2.0, 20.0]], terminated=[[0, 0], [1, 1]])
    before, after_ = (estimate(GroupBaseline(), batch, torch.zeros(3, 2), 1.0).advantages for batch in (first, other))
    assert_numbers(after_[:, 1] - before[:, 1], [60 + 20 - 8, 20 - 2])  # its own rewards alone
    assert_numbers(after_[:, 0] - before[:, 0], [-(60 + 20 - 8), -(20 - 2)])


def test_episodes_joined_to_a_batch_begin_in_its_first_row():
    short, long = make_batch([1.0], terminated=[1]), make_batch([2.0, 4.0, 8.0], terminated=[0, 0, 1])
    joined = join_columns([short, long])
    advantages = estimate(GroupBaseline(), joined, torch.zeros(4, 2), 1.0).advantages
    assert_numbers(advantages[:1, 0], [1.0 - 14])
    assert_numbers(advantages[:, 1], [14 - 1.0, 12.0, 8.0])


def test_the_critic_has_neither_a_say_nor_a_gradient():
    batch = make_batch([[1.0, 4.0], [2.0, 1.0]], terminated=[[0, 0], [1, 1]])
    values = torch.randn(3, 2, requires_grad=True)
    advantages, targets, _ = estimate(GroupBaseline(), batch, values, 0.9)
    assert torch.equal(advantages, estimate(GroupBaseline(), batch, torch.zeros(3, 2), 0.9).advantages)
    value_loss(values[:-1], targets, MaskedReduction(batch.mask, "mean")).backward()
    assert not values.grad.any()


def test_it_takes_whole_episodes_and_its_values_are_no_returns():
    estimator = GroupBaseline()
    assert (estimator.horizon, estimator.end_at_episode, estimator.says_its_horizon) == (None, True, True)
    assert estimator.target_units == "own"
