"""Return estimators: hand-computed chains, equivalences, and slow references written from the papers."""

import math

import pytest
import torch
from builders import discounts_of, make_batch, time_major
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
from torch import Tensor

from a3c.batch import RolloutBatch, join_columns
from a3c.returns import (
    GAE,
    UPGO,
    AdvantageNormalised,
    AverageReward,
    Compound,
    DecoupledGAE,
    FullEpisode,
    GroupBaseline,
    ImportanceSampled,
    L2Normalised,
    LeakyVTrace,
    NStep,
    PositiveOnly,
    Retrace,
    SlidingNStep,
    Targets,
    TDLambda,
    ValueRescaled,
    VTrace,
    discounted_sum,
    lambda_returns,
    linear_recursion,
    trace_cuts,
)

WITH_LOG_PROBS = [
    *(VTrace(32, 0.9, 0.8), VTrace(32, lambda_=0.7), LeakyVTrace(32, 0.9, 0.8), Retrace(32, 0.9), UPGO(32)),
    *(ImportanceSampled(32, correction) for correction in ("untruncated", "one_step", "none")),
]
OF_ONE_COLUMN = [
    *(FullEpisode(), NStep(2), NStep(32), GAE(32, 0.7), TDLambda(32, 0.7), DecoupledGAE(32, 0.7, 0.9)),
    *(SlidingNStep(32, 2), Compound(32, 1, 3), AverageReward(32, 0.7), *WITH_LOG_PROBS),
    *(L2Normalised(NStep(2)), ValueRescaled(GAE(32)), PositiveOnly(VTrace(32))),
]
OF_THE_BATCH = [ImportanceSampled(32, "weighted"), GroupBaseline(), AdvantageNormalised(GAE(32))]
ALL = [*OF_ONE_COLUMN, *OF_THE_BATCH]
BY_NAME = {"ids": lambda estimator: type(estimator).__name__}


FULL = {
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * 2, 2.0],
    ("terminated", 3): [1 + 0.5 * 4, 2 + 0.5 * 4, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * 17, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * 14, 2 + 0.5 * 24, 4 + 0.5 * 40],
}
TWO_STEP = {  # the trace is cut after the second step, where the critic says 30
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * 2, 2.0],
    ("terminated", 3): [1 + 0.5 * 17, 2 + 0.5 * 30, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * 17, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * 17, 2 + 0.5 * 30, 4 + 0.5 * 40],
}
ONE_STEP = {
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * 20, 2.0],
    ("terminated", 3): [1 + 0.5 * 20, 2 + 0.5 * 30, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * 20, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * 20, 2 + 0.5 * 30, 4 + 0.5 * 40],
}
HALF_LAMBDA = {  # G = r + ½·(½·V' + ½·G')
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.25 * 20 + 0.25 * 2, 2.0],
    ("terminated", 3): [1 + 0.25 * 20 + 0.25 * 10.5, 2 + 0.25 * 30 + 0.25 * 4, 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.25 * 20 + 0.25 * 17, 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.25 * 20 + 0.25 * 15.5, 2 + 0.25 * 30 + 0.25 * 24, 4 + 0.5 * 40],
}


@pytest.mark.parametrize(("end", "steps"), ENDS)
@pytest.mark.parametrize(
    ("estimator", "table"),
    [
        (FullEpisode(), FULL),
        (NStep(9), FULL),
        (NStep(2), TWO_STEP),
        (NStep(1), ONE_STEP),
        (GAE(9, 0.5), HALF_LAMBDA),
        (VTrace(9), FULL),
    ],
    ids=["full_episode", "9_step", "2_step", "1_step", "gae_half", "vtrace_on_policy"],
)
def test_every_split_of_the_chain_gives_the_hand_computed_targets(estimator, table, end, steps):
    batch, values = chain(end, steps)
    advantages, targets, _ = estimate(estimator, batch, values, HALF)
    expected = table["truncated" if end == "cut" else end, steps]  # both take the rest from the critic
    assert_numbers(targets[:steps, 0], expected)
    assert_numbers(
        advantages[:steps, 0], [target - value for target, value in zip(expected, CHAIN_VALUES, strict=False)]
    )
    if end != "cut":
        assert_numbers(targets[steps + 1 :, 0], [8 + 0.5 * 60])  # the next episode knows nothing of this one
        assert_numbers(advantages[steps + 1 :, 0], [8 + 0.5 * 60 - 50])


# Ratios 2, ½, 1 with both clips at 1: ρ = c = 1, ½, 1; δ = r + ½V' − V.
VTRACE_TARGETS = {
    ("terminated", 1): [10 + (1 - 10)],
    ("terminated", 2): [10 + 1 + 0.5 * (11 - 20), 20 + 0.5 * (2 - 20)],
    ("terminated", 3): [10 + 1 + 0.5 * (12 - 20), 20 + 0.5 * (17 - 20) + 0.25 * (4 - 30), 30 + (4 - 30)],
    ("truncated", 1): [10 + (11 - 10)],
    ("truncated", 2): [10 + 1 + 0.5 * (18.5 - 20), 20 + 0.5 * (17 - 20)],
    ("truncated", 3): [10 + 1 + 0.5 * (17 - 20), 20 + 0.5 * (17 - 20) + 0.25 * (24 - 30), 30 + (24 - 30)],
}
VTRACE_ADVANTAGES = {  # ρ·(r + ½v' − V), where v' is the critic's V' at the end of what is known
    ("terminated", 1): [1 - 10],
    ("terminated", 2): [1 + 0.5 * 11 - 10, 0.5 * (2 - 20)],
    ("terminated", 3): [1 + 0.5 * 12 - 10, 0.5 * (2 + 0.5 * 4 - 20), 4 - 30],
    ("truncated", 1): [1 + 0.5 * 20 - 10],
    ("truncated", 2): [1 + 0.5 * 18.5 - 10, 0.5 * (2 + 0.5 * 30 - 20)],
    ("truncated", 3): [1 + 0.5 * 17 - 10, 0.5 * (2 + 0.5 * 24 - 20), 4 + 0.5 * 40 - 30],
}


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_vtrace_off_policy_gives_the_hand_computed_targets_on_every_split(end, steps):
    batch, values = chain(end, steps)
    log_ratios = torch.zeros_like(batch.rewards)
    log_ratios[:steps, 0] = torch.tensor([2.0, 0.5, 1.0])[:steps].log()
    advantages, targets, _ = estimate(VTrace(9), batch, values, HALF, batch.behaviour_log_probs + log_ratios)
    key = ("truncated" if end == "cut" else end, steps)
    assert_numbers(targets[:steps, 0], VTRACE_TARGETS[key])
    assert_numbers(advantages[:steps, 0], VTRACE_ADVANTAGES[key])


def test_vtrace_clips_the_errors_and_the_traces_by_themselves():
    # Two steps, γ = 1, rewards 1 and 1, all values 0: δ = 1, 1. Ratios 3 and 3, ρ̄ = 2, c̄ = ½.
    batch = make_batch([1.0, 1.0])
    log_probs = torch.full((2, 1), math.log(3.0))
    advantages, targets, _ = estimate(VTrace(2, rho_clip=2.0, c_clip=0.5), batch, torch.zeros(3, 1), 1.0, log_probs)
    assert_numbers(targets[:, 0], [2 * 1 + 0.5 * 2, 2 * 1])
    assert_numbers(advantages[:, 0], [2 * (1 + 2), 2 * 1])


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_l2_normalised_divides_the_chains_returns_by_their_norm(end, steps):
    batch, values = chain(end, steps)
    advantages, targets, _ = estimate(L2Normalised(FullEpisode()), batch, values, HALF)
    returns = FULL["truncated" if end == "cut" else end, steps]
    following = [] if end == "cut" else [8 + 0.5 * 60]  # the next episode's step is in the same column
    norm = math.sqrt(sum(x * x for x in returns + following))
    assert_numbers(targets[:steps, 0], [x / norm for x in returns])
    assert_numbers(advantages[:steps, 0], [x / norm - value for x, value in zip(returns, CHAIN_VALUES, strict=False)])


def test_terminated_and_truncated_at_once_counts_as_terminated():
    batch = make_batch([1.0, 2.0], terminated=[0, 1], truncated=[0, 1])
    values = time_major([10.0, 20.0, 30.0], torch.float32)
    assert_numbers(estimate(FullEpisode(), batch, values, HALF).value_targets[:, 0], [1 + 0.5 * 2, 2.0])


def test_a_column_that_begins_with_a_reset_step_counts_from_the_step_after_it():
    batch = make_batch([1e6, 2.0, 4.0], mask=[0, 1, 1], terminated=[0, 0, 1])
    targets = estimate(FullEpisode(), batch, torch.zeros(4, 1), HALF).value_targets
    assert_numbers(targets[1:, 0], [2 + 0.5 * 4, 4.0])


# Program 5.10 of the book: its loop runs down to index 1, so each game's first reward is left out.


@pytest.mark.parametrize(
    ("rewards", "bootstrap_value", "expected"),
    [
        ([1.0, 1.0, -1.0], 0.0, 0.01),  # 1 + 0.99·(−1)
        ([1.0, 1.0, 1.0], 0.0, 1.99),  # 1 + 0.99·1
        ([1.0, 1.0, -1.0], 1.0, 0.9901),  # 1 + 0.99·(−1 + 0.99·1)
        ([1.0, 1.0, 1.0], 1.0, 2.9701),  # 1 + 0.99·(1 + 0.99·1)
    ],
)
def test_the_books_bootstrapping_example_gives_its_four_numbers(rewards, bootstrap_value, expected):
    last_two = torch.tensor(rewards, dtype=torch.float64)[1:, None]
    returns = discounted_sum(last_two, torch.full_like(last_two, 0.99), torch.tensor([bootstrap_value]))
    assert returns[0].item() == pytest.approx(expected, abs=1e-12)


def test_discounted_sum_leaves_its_arguments_as_they_were():
    rewards = torch.tensor([[1.0], [2.0]])
    discounted_sum(rewards, torch.full((2, 1), 0.5), torch.tensor([8.0]))
    assert_numbers(rewards[:, 0], [1.0, 2.0])


def test_linear_recursion_begins_from_nothing():
    # x₂ = 3, x₁ = 2 + 10·3, x₀ = 1 + 100·32; the last factor meets no x.
    solved = linear_recursion(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[100.0], [10.0], [7.0]]))
    assert_numbers(solved[:, 0], [3201.0, 32.0, 3.0])


def test_lambda_returns_mix_the_critic_and_the_longer_return():
    # G₁ = 2 + ½·8; G₀ = 1 + ½·(¾·4 + ¼·6)
    returns = lambda_returns(
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[0.5], [0.5]]),
        torch.tensor([[4.0], [8.0]]),
        torch.tensor([[0.25], [0.0]]),
    )
    assert_numbers(returns[:, 0], [3.25, 6.0])


def test_traces_are_cut_at_truncation_before_masked_steps_at_the_end_and_every_n_steps():
    batch = make_batch([0.0] * 7, truncated=[0, 0, 1, 0, 0, 0, 0], mask=[1, 1, 1, 1, 0, 1, 1])
    assert trace_cuts(batch)[:, 0].tolist() == [False, False, True, True, False, False, True]
    assert trace_cuts(batch, 2)[:, 0].tolist() == [False, True, True, True, False, True, True]
    assert batch.truncated.sum() == 1  # the batch itself is left alone


# Equivalences, on random rollouts


@random_rollouts
@given(rollouts(), fractions, st.integers(0, 5))
def test_n_steps_no_shorter_than_the_fragment_are_the_full_episode(rollout, discount, beyond):
    batch, values, _ = rollout
    n_step = estimate(NStep(batch.length + beyond), batch, values, discount)
    assert_same_where_real(n_step, estimate(FullEpisode(), batch, values, discount), batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_gae_with_lambda_1_is_n_step(rollout, discount):
    batch, values, _ = rollout
    gae = estimate(GAE(batch.length, 1.0), batch, values, discount)
    assert_same_where_real(gae, estimate(NStep(batch.length), batch, values, discount), batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_gae_with_lambda_0_and_n_step_with_n_1_are_the_one_step_error(rollout, discount):
    batch, values, _ = rollout
    one_step = batch.rewards + discounts_of(batch, discount) * values[1:]
    expected = Targets(one_step - values[:-1], one_step)
    for estimator in (GAE(8, 0.0), NStep(1)):
        assert_same_where_real(estimate(estimator, batch, values, discount), expected, batch.mask)


@random_rollouts
@given(rollouts(), fractions, st.floats(1, 4), st.floats(1, 4))
def test_vtrace_with_the_policy_that_acted_is_n_step(rollout, discount, rho_clip, c_clip):
    batch, values, _ = rollout
    vtrace = estimate(VTrace(batch.length, rho_clip, c_clip), batch, values, discount)
    assert_same_where_real(vtrace, estimate(NStep(batch.length), batch, values, discount), batch.mask)


@random_rollouts
@given(rollouts(), fractions, st.integers(1, 4))
def test_n_step_on_a_longer_fragment_is_n_step_on_its_parts_of_n_steps(rollout, discount, n_steps):
    batch, values, _ = rollout
    starts = range(0, batch.length, n_steps)
    parts = []
    for start in starts:
        rows = slice(start, start + n_steps)
        part = RolloutBatch(
            batch.observations[start : start + n_steps + 1],
            *(field[rows] for field in batch[1:9]),
            batch.env_ids,
            batch.segment_ids,
        )
        parts.append(estimate(FullEpisode(), part, values[start : start + n_steps + 1], discount))
    joined = Targets(*(torch.cat(fields) for fields in zip(*(part[:2] for part in parts), strict=True)))
    assert_same_where_real(estimate(NStep(n_steps), batch, values, discount), joined, batch.mask)


@pytest.mark.parametrize("estimator", OF_ONE_COLUMN, **BY_NAME)
def test_padded_columns_have_the_targets_that_they_have_alone(estimator):
    generator = torch.Generator().manual_seed(3)
    batches, all_values = [], []
    for length in (2, 5, 3):
        rewards = torch.randn(length, 1, generator=generator)
        behaviour_log_probs = -torch.rand(length, 1, generator=generator)
        batches.append(make_batch(rewards, behaviour_log_probs=behaviour_log_probs))
        all_values.append(torch.randn(length + 1, 1, generator=generator))
    joined = join_columns(batches)
    values = torch.full((6, 3), 1e6)  # what the critic says of padding is nonsense
    for column, own_values in enumerate(all_values):
        values[: len(own_values), column : column + 1] = own_values
    together = estimate(estimator, joined, values, 0.9, torch.full((5, 3), -0.4))
    for column, (batch, own_values) in enumerate(zip(batches, all_values, strict=True)):
        alone = estimate(estimator, batch, own_values, 0.9, torch.full((batch.length, 1), -0.4))
        for field, own_field in zip(together[:2], alone[:2], strict=True):
            torch.testing.assert_close(field[: batch.length, column], own_field[:, 0])


# Literal references: forward sums over each column, as the papers write them


def n_step_reference(batch: RolloutBatch, values: Tensor, discount: float, n_steps: int) -> Targets:
    """R = Σᵢ γⁱ·rₜ₊ᵢ + γᵏ·V(xₜ₊ₖ), arXiv:1602.01783 section 3, with k up to the next multiple of n."""

    def step(column: int, t: int, last: int) -> tuple[float, float]:
        last = min(last, (t // n_steps + 1) * n_steps - 1)
        total = sum(discount ** (i - t) * batch.rewards[i, column].item() for i in range(t, last + 1))
        total += discount ** (last + 1 - t) * after(batch, values, column, last)
        return total - values[t, column].item(), total

    return reference(batch, values, step)


def gae_reference(batch: RolloutBatch, values: Tensor, discount: float, lambda_: float) -> Targets:
    """Âₜ = Σₗ (γλ)ˡ·δₜ₊ₗ, arXiv:1506.02438 eq. 16."""

    def error(column: int, t: int) -> float:
        following = discount * after(batch, values, column, t)
        return batch.rewards[t, column].item() + following - values[t, column].item()

    def step(column: int, t: int, last: int) -> tuple[float, float]:
        advantage = sum((discount * lambda_) ** (i - t) * error(column, i) for i in range(t, last + 1))
        return advantage, advantage + values[t, column].item()

    return reference(batch, values, step)


def vtrace_reference(
    batch: RolloutBatch, values: Tensor, log_probs: Tensor, discount: float, rho_clip: float, c_clip: float
) -> Targets:
    """vₛ = V(xₛ) + Σₜ γᵗ⁻ˢ·(Πᵢ cᵢ)·ρₜ·(rₜ + γV(xₜ₊₁) − V(xₜ)), arXiv:1802.01561 eq. 1; then section 4.2."""
    ratios = [
        [math.exp(new - old) for new, old in zip(*row, strict=True)]
        for row in zip(log_probs.tolist(), batch.behaviour_log_probs.tolist(), strict=True)
    ]

    def target(column: int, s: int, last: int) -> float:
        total = values[s, column].item()
        for t in range(s, last + 1):
            product = math.prod(min(c_clip, ratios[i][column]) for i in range(s, t))
            error = batch.rewards[t, column].item() + discount * after(batch, values, column, t)
            error -= values[t, column].item()
            total += discount ** (t - s) * product * min(rho_clip, ratios[t][column]) * error
        return total

    def step(column: int, s: int, last: int) -> tuple[float, float]:
        following = after(batch, values, column, s) if s == last else target(column, s + 1, last)
        error = batch.rewards[s, column].item() + discount * following - values[s, column].item()
        return min(rho_clip, ratios[s][column]) * error, target(column, s, last)

    return reference(batch, values, step)


@random_rollouts
@given(rollouts(), fractions, st.integers(1, 9))
def test_n_step_matches_its_forward_sum(rollout, discount, n_steps):
    batch, values, _ = rollout
    expected = n_step_reference(batch, values, discount, n_steps)
    assert_same_where_real(estimate(NStep(n_steps), batch, values, discount), expected, batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_full_episode_matches_the_forward_sum_to_the_episodes_end(rollout, discount):
    batch, values, _ = rollout
    expected = n_step_reference(batch, values, discount, n_steps=10**6)
    assert_same_where_real(estimate(FullEpisode(), batch, values, discount), expected, batch.mask)


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_gae_matches_its_forward_sum_of_errors(rollout, discount, lambda_):
    batch, values, _ = rollout
    expected = gae_reference(batch, values, discount, lambda_)
    assert_same_where_real(estimate(GAE(8, lambda_), batch, values, discount), expected, batch.mask)


@random_rollouts
@given(rollouts(), fractions, st.floats(0, 3), st.floats(0, 3))
def test_vtrace_matches_equation_1(rollout, discount, rho_clip, c_clip):
    batch, values, log_probs = rollout
    expected = vtrace_reference(batch, values, log_probs, discount, rho_clip, c_clip)
    targets = estimate(VTrace(8, rho_clip, c_clip), batch, values, discount, log_probs)
    assert_same_where_real(targets, expected, batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_l2_normalised_targets_have_norm_1_in_each_column_and_keep_their_proportions(rollout, discount):
    batch, values, _ = rollout
    returns = n_step_reference(batch, values, discount, n_steps=10**6).value_targets
    advantages, targets, _ = estimate(L2Normalised(FullEpisode()), batch, values, discount)
    for column in range(batch.columns):
        real = batch.mask[:, column]
        if not real.any():
            continue
        norm = math.sqrt(sum(x * x for x in returns[real, column].tolist()))
        torch.testing.assert_close(targets[real, column], returns[real, column] / norm, rtol=1e-9, atol=1e-9)
        assert targets[real, column].square().sum().item() == pytest.approx(1)
    torch.testing.assert_close(advantages, targets - values[:-1], equal_nan=True)


# What leaks nowhere


def test_l2_norm_ignores_masked_steps():
    # Returns 3 and 4 (γ = 0), norm 5; the reset step's reward of 10⁶ is no part of it.
    batch = make_batch([3.0, 1e6, 4.0], terminated=[1, 0, 1], mask=[1, 0, 1])
    targets = estimate(L2Normalised(FullEpisode()), batch, torch.zeros(4, 1), 0.0).value_targets
    assert_numbers(targets[[0, 2], 0], [3 / 5, 4 / 5])


def test_l2_norm_is_each_columns_own():
    batch = make_batch([[3.0, 30.0], [4.0, 40.0]])
    targets = estimate(L2Normalised(FullEpisode()), batch, torch.zeros(3, 2), 0.0).value_targets
    assert_numbers(targets[:, 0], [3 / 5, 4 / 5])
    assert_numbers(targets[:, 1], [3 / 5, 4 / 5])


def test_l2_normalised_returns_of_zero_stay_zero():
    batch = make_batch([0.0, 0.0], terminated=[0, 1])
    assert_numbers(estimate(L2Normalised(FullEpisode()), batch, torch.ones(3, 1), 1.0).value_targets[:, 0], [0.0, 0.0])


@pytest.mark.parametrize("estimator", ALL, **BY_NAME)
def test_huge_numbers_at_masked_steps_change_no_real_step(estimator):
    mask = torch.tensor([1, 0, 1, 1, 0]).bool()
    plain = make_batch([1.0, 0.0, 2.0, 3.0, 0.0], terminated=[1, 0, 0, 0, 0], mask=mask)
    values = time_major([0.5, 0.6, 0.7, 0.8, 0.9, 0.0], torch.float32)
    spoilt = plain.copy()
    spoilt.rewards[~mask] = 1e30
    spoilt_values = values.clone()
    spoilt_values[-1] = -1e30  # only padding led here
    clean = estimate(estimator, plain, values, 0.9)
    for field, clean_field in zip(estimate(estimator, spoilt, spoilt_values, 0.9)[:2], clean[:2], strict=True):
        assert torch.equal(field[mask], clean_field[mask])


@pytest.mark.parametrize("estimator", ALL, **BY_NAME)
def test_what_stands_at_masked_steps_changes_no_real_step(estimator):
    for seed in range(20):
        batch, values, log_probs, mask = masked_case(seed)
        plain = estimate(estimator, batch, values, 0.9, log_probs)
        spoilt = batch.copy()
        for field in (spoilt.rewards, spoilt.behaviour_log_probs, log_probs):
            field[~mask] = math.nan
        known = torch.cat((mask, torch.zeros_like(mask[:1])))
        known[1:] |= mask  # observations that a real step was made in or led to
        given_ = estimate(estimator, spoilt, values.masked_fill(~known, math.nan), 0.9, log_probs)
        assert all(torch.equal(a[mask], b[mask]) for a, b in zip(given_[:2], plain[:2], strict=True))
        assert all(field[mask].isfinite().all() for field in given_[:2])


def masked_case(seed: int) -> tuple[RolloutBatch, Tensor, Tensor, Tensor]:
    """Gives (batch, values, log_probs, mask): episodes that end in either way, reset steps, padding below."""
    generator = torch.Generator().manual_seed(seed)
    shape = (9, 3)
    ends = torch.rand(shape, generator=generator) < 0.3
    ends[1:] &= ~ends[:-1]
    mask = torch.ones(shape, dtype=torch.bool)
    mask[1:] = ~ends[:-1]
    mask[6:, 2] = False
    ends &= mask
    terminated = ends & (torch.rand(shape, generator=generator) < 0.5)
    rewards, behaviour_log_probs, log_probs = torch.randn(3, *shape, generator=generator)
    batch = make_batch(
        rewards,
        terminated=terminated,
        truncated=ends & ~terminated,
        mask=mask,
        behaviour_log_probs=behaviour_log_probs,
    )
    return batch, torch.randn(10, 3, generator=generator), log_probs, mask


@pytest.mark.parametrize("estimator", [each for each in OF_ONE_COLUMN if type(each) is not L2Normalised], **BY_NAME)
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_what_lies_beyond_an_episodes_end_changes_nothing_before_it(estimator, end):
    checked = 0
    for seed in range(20):
        batch, values, log_probs, _ = masked_case(seed)
        plain = estimate(estimator, batch, values, 0.9, log_probs)
        for t, column in getattr(batch, end).nonzero().tolist():
            other, other_values, other_log_probs = batch.copy(), values.clone(), log_probs.clone()
            beyond = slice(t + 1, None), column
            for field in (other.rewards, other.behaviour_log_probs, other_log_probs):
                field[beyond] = -3 * field[beyond] + 100
            other.terminated[beyond] = other.truncated[beyond] = False
            # Truncated, the state that the last step led to is worth what the critic says; terminated, nothing.
            first = t + 1 if end == "terminated" else t + 2
            other_values[first:, column] = -3 * other_values[first:, column] + 100
            given_ = estimate(estimator, other, other_values, 0.9, other_log_probs)
            before = batch.mask[: t + 1, column]
            for a, b in zip(given_[:2], plain[:2], strict=True):
                assert torch.equal(a[: t + 1, column][before], b[: t + 1, column][before])
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("estimator", ALL, **BY_NAME)
def test_neither_advantages_nor_targets_carry_a_gradient(estimator):
    batch = make_batch([1.0, 2.0, 3.0], truncated=[0, 1, 0])
    values = torch.randn(4, 1, requires_grad=True)
    log_probs = torch.randn(3, 1, requires_grad=True)
    advantages, targets, _ = estimate(estimator, batch, values, 0.9, log_probs)
    assert not advantages.requires_grad
    assert not targets.requires_grad


# What is refused


@pytest.mark.parametrize("estimator", ALL, **BY_NAME)
@pytest.mark.parametrize("shape", [(3, 2), (5, 2), (4, 1), (4,), (4, 2, 1)])
def test_values_of_another_shape_than_t_plus_1_by_b_raise(estimator, shape):
    batch = make_batch([[1.0, 1.0]] * 3)
    with pytest.raises(ValueError, match=r"values: got shape .* must be \[T\+1, B\] = \(4, 2\)"):
        estimator(batch, torch.zeros(shape), torch.zeros(3, 2), torch.ones(3, 2))


@pytest.mark.parametrize("estimator", ALL, **BY_NAME)
@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (2,), ()])
def test_discounts_of_another_shape_than_t_by_b_raise(estimator, shape):
    batch = make_batch([[1.0, 1.0]] * 3)
    with pytest.raises(ValueError, match=r"discounts: got shape .* must be \[T, B\] = \(3, 2\)"):
        estimator(batch, torch.zeros(4, 2), torch.zeros(3, 2), torch.ones(shape))


@pytest.mark.parametrize("estimator", [*WITH_LOG_PROBS, ImportanceSampled(32, "weighted")], **BY_NAME)
@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (2,)])
def test_log_probs_of_another_shape_than_t_by_b_raise_where_ratios_are_made_of_them(estimator, shape):
    batch = make_batch([[1.0, 1.0]] * 3)
    with pytest.raises(ValueError, match=r"log_probs: got shape .* must be \[T, B\] = \(3, 2\)"):
        estimator(batch, torch.zeros(4, 2), torch.zeros(shape), torch.ones(3, 2))


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (3, 1)])
def test_recursions_refuse_discounts_of_another_shape_than_the_rewards(shape):
    with pytest.raises(ValueError, match="shape"):
        linear_recursion(torch.zeros(3, 2), torch.zeros(shape))
    with pytest.raises(ValueError, match="shape"):
        discounted_sum(torch.zeros(3, 2), torch.zeros(shape), torch.zeros(2))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: NStep(-3), "n_steps: got -3"),
        (lambda: NStep(math.nan), "n_steps: got nan"),
        (lambda: NStep(0), r"n_steps: got 0, must be at least 1$"),
        (lambda: NStep(2.5), r"n_steps: got 2.5, must be a whole number, at least 1$"),
        (lambda: NStep(True), "n_steps: got True, must be a whole number"),
        (lambda: GAE(8.0), "n_steps: got 8.0, must be a whole number"),
        (lambda: VTrace(2.5), "n_steps: got 2.5, must be a whole number"),
        (lambda: GAE(0), "n_steps: got 0"),
        (lambda: GAE(lambda_=1.5), "lambda_: got 1.5"),
        (lambda: GAE(lambda_=-0.1), "lambda_: got -0.1"),
        (lambda: GAE(lambda_=math.nan), "lambda_: got nan"),
        (lambda: VTrace(0), "n_steps: got 0"),
        (lambda: VTrace(rho_clip=-1), "rho_clip: got -1"),
        (lambda: VTrace(rho_clip=math.nan), "rho_clip: got nan"),
        (lambda: VTrace(c_clip=-0.5), "c_clip: got -0.5"),
    ],
)
def test_a_parameter_out_of_range_raises_with_its_name_and_what_was_given(build, name):
    with pytest.raises(ValueError, match=name):
        build()


def test_the_bounds_of_each_parameter_are_allowed():
    assert NStep(1).n_steps == 1
    assert GAE(1, 0.0).lambda_ == 0
    assert GAE(1, 1.0).lambda_ == 1
    assert VTrace(1, 0.0, 0.0).rho_clip == 0


def test_l2_normalised_refuses_vtrace():
    with pytest.raises(ValueError, match="estimator: got VTrace"):
        L2Normalised(VTrace())


def test_an_estimator_says_how_its_rollouts_are_cut():
    assert (FullEpisode().horizon, FullEpisode().end_at_episode) == (None, True)
    assert (NStep(7).horizon, NStep(7).end_at_episode) == (7, False)
    assert NStep(7, end_at_episode=True).end_at_episode
    assert GAE(5).horizon == 5
    assert VTrace(6).horizon == 6
    for inner in (FullEpisode(), NStep(7), NStep(7, end_at_episode=True)):
        outer = L2Normalised(inner)
        assert (outer.horizon, outer.end_at_episode) == (inner.horizon, inner.end_at_episode)


def test_an_estimator_says_in_which_units_its_targets_are():
    assert {estimator.target_units for estimator in (FullEpisode(), NStep(), GAE(), VTrace())} == {"scaled_rewards"}
    assert L2Normalised(NStep()).target_units == "own"


class RunningBaseline(NStep):
    """Keeps the mean of all rewards; gives weights too."""

    mean = 0.0

    def __call__(self, *args):
        targets = super().__call__(*args)
        self.mean = float(args[0].rewards.mean())
        return targets._replace(weights=torch.full_like(targets.advantages, 2.0))

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]


def test_what_an_estimator_has_learned_goes_on_in_another_one_also_from_within():
    inner, outer = RunningBaseline(1), L2Normalised(RunningBaseline(1))
    batch = make_batch([1.0, 2.0])
    inner(batch, torch.zeros(3, 1), torch.zeros(2, 1), torch.ones(2, 1))
    outer.load_state_dict(inner.state_dict())
    assert outer.state_dict() == {"mean": 1.5}


def test_an_estimator_without_state_says_so_and_refuses_that_of_another():
    assert GAE().state_dict() == {}
    GAE().load_state_dict({})
    with pytest.raises(ValueError, match="GAE keeps no state, and got one with mean"):
        GAE().load_state_dict({"mean": 1.0})


def test_normalised_targets_keep_the_weights_of_their_steps():
    batch = make_batch([1.0, 2.0])
    targets = L2Normalised(RunningBaseline(1))(batch, torch.zeros(3, 1), torch.zeros(2, 1), torch.ones(2, 1))
    assert targets.weights.tolist() == [[2.0], [2.0]]
