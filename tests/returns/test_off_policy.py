"""Retrace and ImportanceSampled: hand-computed cases, what they are cases of, and literal references."""

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

from a3c.returns import GAE, ImportanceSampled, NStep, Retrace, Targets, VTrace

# Ratios 2, ½, ¼ and λ = ½: min(1, w) = 1, ½, ¼ and c = ½, ¼, ⅛. g = r + ½·(V' + c'·(g' − V')).
RETRACE_G = {
    ("terminated", 1): [1.0],
    ("terminated", 2): [1 + 0.5 * (20 + 0.25 * (2 - 20)), 2.0],
    ("terminated", 3): [1 + 0.5 * (20 + 0.25 * (15.375 - 20)), 2 + 0.5 * (30 + 0.125 * (4 - 30)), 4.0],
    ("truncated", 1): [1 + 0.5 * 20],
    ("truncated", 2): [1 + 0.5 * (20 + 0.25 * (17 - 20)), 2 + 0.5 * 30],
    ("truncated", 3): [1 + 0.5 * (20 + 0.25 * (16.625 - 20)), 2 + 0.5 * (30 + 0.125 * (24 - 30)), 4 + 0.5 * 40],
}


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_retrace_gives_the_hand_computed_targets_on_every_split(end, steps):
    batch, values = chain(end, steps)
    log_probs = torch.zeros_like(batch.rewards)
    log_probs[:steps, 0] = torch.tensor([2.0, 0.5, 0.25])[:steps].log()
    advantages, targets, _ = estimate(Retrace(9, 0.5), batch, values, HALF, log_probs)
    returns = RETRACE_G["truncated" if end == "cut" else end, steps]
    expected = [w * (g - v) for w, g, v in zip([1, 0.5, 0.25], returns, CHAIN_VALUES, strict=False)]
    assert_numbers(advantages[:steps, 0], expected)
    assert_numbers(targets[:steps, 0], [v + a for v, a in zip(CHAIN_VALUES, expected, strict=False)])
    if end != "cut":
        assert_numbers(targets[steps + 1 :, 0], [8 + 0.5 * 60])


# Two steps, γ = 1, rewards 1 and 2, values 10, 20, 30: δ = 1 + 20 − 10 = 11 and 2 + 30 − 20 = 12. Ratios 3 and 2.
IMPORTANCE_SAMPLED = {
    "untruncated": ([3 * (1 + (20 + 2 * 12) - 10), 2 * 12], [10 + 3 * 11 + 3 * 2 * 12, 20 + 2 * 12]),
    # their mean is 2½, so 1.2 and 0.8 stand in for them
    "weighted": ([1.2 * (1 + (20 + 0.8 * 12) - 10), 0.8 * 12], [10 + 1.2 * 11 + 1.2 * 0.8 * 12, 20 + 0.8 * 12]),
    "one_step": ([3 * (1 + 2 + 30 - 10), 2 * (2 + 30 - 20)], [1 + 2 + 30, 2 + 30]),
    "none": ([1 + 2 + 30 - 10, 2 + 30 - 20], [1 + 2 + 30, 2 + 30]),
}


@pytest.mark.parametrize("correction", IMPORTANCE_SAMPLED)
def test_each_correction_gives_the_hand_computed_targets(correction):
    batch = make_batch([1.0, 2.0])
    values = torch.tensor([[10.0], [20.0], [30.0]])
    log_probs = torch.tensor([[3.0], [2.0]]).log()
    advantages, targets, _ = estimate(ImportanceSampled(2, correction), batch, values, 1.0, log_probs)
    assert_numbers(advantages[:, 0], IMPORTANCE_SAMPLED[correction][0])
    assert_numbers(targets[:, 0], IMPORTANCE_SAMPLED[correction][1])


def test_weighted_ratios_are_divided_by_the_mean_of_real_steps_in_all_columns():
    # One-step columns with values 0: the advantages are the ratios in use. 1, 2 and 3 have mean 2; 100 is masked.
    batch = make_batch([[1.0, 1.0, 1.0, 1.0]], terminated=[[1, 1, 1, 1]], mask=[[1, 1, 1, 0]])
    log_probs = torch.tensor([[1.0, 2.0, 3.0, 100.0]]).log()
    weighted = estimate(ImportanceSampled(1, "weighted"), batch, torch.zeros(2, 4), 1.0, log_probs)
    assert_numbers(weighted.advantages[0, :3], [0.5, 1.0, 1.5])


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_retrace_is_vtrace_with_clips_of_1(rollout, discount, lambda_):
    batch, values, log_probs = rollout
    vtrace = estimate(VTrace(8, 1.0, 1.0, lambda_), batch, values, discount, log_probs)
    assert_same_where_real(estimate(Retrace(8, lambda_), batch, values, discount, log_probs), vtrace, batch.mask)


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_retrace_with_the_policy_that_acted_is_gae(rollout, discount, lambda_):
    batch, values, _ = rollout
    gae = estimate(GAE(8, lambda_), batch, values, discount)
    assert_same_where_real(estimate(Retrace(8, lambda_), batch, values, discount), gae, batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_every_correction_with_the_policy_that_acted_is_n_step(rollout, discount):
    batch, values, _ = rollout
    n_step = estimate(NStep(batch.length), batch, values, discount)
    for correction in IMPORTANCE_SAMPLED:
        corrected = estimate(ImportanceSampled(8, correction), batch, values, discount)
        assert_same_where_real(corrected, n_step, batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_untruncated_is_vtrace_without_clips(rollout, discount):
    batch, values, log_probs = rollout
    vtrace = estimate(VTrace(8, math.inf, math.inf), batch, values, discount, log_probs)
    untruncated = estimate(ImportanceSampled(8, "untruncated"), batch, values, discount, log_probs)
    assert_same_where_real(untruncated, vtrace, batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_weighted_knows_no_factor_on_all_ratios(rollout, discount):
    batch, values, log_probs = rollout
    weighted = estimate(ImportanceSampled(8, "weighted"), batch, values, discount, log_probs)
    shifted = estimate(ImportanceSampled(8, "weighted"), batch, values, discount, log_probs + 3)
    assert_same_where_real(shifted, weighted, batch.mask)


def ratios_of(batch, log_probs, column, t):
    return math.exp(log_probs[t, column].item() - batch.behaviour_log_probs[t, column].item())


@random_rollouts
@given(rollouts(), fractions, fractions)
def test_retrace_matches_its_sum_of_errors(rollout, discount, lambda_):
    """gₜ − V(xₜ) = Σₛ γˢ⁻ᵗ·(Πᵢ cᵢ, i from t + 1 to s)·(rₛ + γV(xₛ₊₁) − V(xₛ)), arXiv:1606.02647 eq. 3."""
    batch, values, log_probs = rollout

    def step(column, t, last):
        total = 0.0
        for s in range(t, last + 1):
            trace = math.prod(lambda_ * min(1, ratios_of(batch, log_probs, column, i)) for i in range(t + 1, s + 1))
            error = batch.rewards[s, column].item() + discount * after(batch, values, column, s)
            total += discount ** (s - t) * trace * (error - values[s, column].item())
        advantage = min(1, ratios_of(batch, log_probs, column, t)) * total
        return advantage, values[t, column].item() + advantage

    expected = reference(batch, values, step)
    assert_same_where_real(estimate(Retrace(8, lambda_), batch, values, discount, log_probs), expected, batch.mask)


@random_rollouts
@given(rollouts(), fractions)
def test_importance_sampled_matches_returns_weighted_step_by_step(rollout, discount):
    batch, values, log_probs = rollout
    ratios = {(t, b): ratios_of(batch, log_probs, b, t) for t, b in batch.mask.nonzero().tolist()}
    mean = sum(ratios.values()) / max(len(ratios), 1)

    def corrected(scale):
        """Vₜ + Σₛ γˢ⁻ᵗ·(wₜ⋯wₛ)·δₛ, and wₜ·(rₜ + γ·vₜ₊₁ − Vₜ)."""

        def target(column, t, last):
            total = values[t, column].item()
            for s in range(t, last + 1):
                product = math.prod(ratios[i, column] / scale for i in range(t, s + 1))
                error = batch.rewards[s, column].item() + discount * after(batch, values, column, s)
                total += discount ** (s - t) * product * (error - values[s, column].item())
            return total

        def step(column, t, last):
            following = after(batch, values, column, t) if t == last else target(column, t + 1, last)
            error = batch.rewards[t, column].item() + discount * following - values[t, column].item()
            return ratios[t, column] / scale * error, target(column, t, last)

        return reference(batch, values, step)

    def uncorrected(with_ratios):
        def step(column, t, last):
            total = sum(discount ** (i - t) * batch.rewards[i, column].item() for i in range(t, last + 1))
            total += discount ** (last + 1 - t) * after(batch, values, column, last)
            return (ratios[t, column] if with_ratios else 1) * (total - values[t, column].item()), total

        return reference(batch, values, step)

    expected: dict[str, Targets] = {
        "untruncated": corrected(1.0),
        "weighted": corrected(mean),
        "one_step": uncorrected(True),
        "none": uncorrected(False),
    }
    for correction, targets in expected.items():
        given_ = estimate(ImportanceSampled(8, correction), batch, values, discount, log_probs)
        assert_same_where_real(given_, targets, batch.mask)


@pytest.mark.parametrize("correction", IMPORTANCE_SAMPLED)
def test_a_ratio_beyond_all_floats_makes_finite_targets(correction):
    batch = make_batch([1.0, 1.0, 1.0], behaviour_log_probs=[0.0, -1e4, 0.0])
    targets = estimate(ImportanceSampled(3, correction), batch, torch.zeros(4, 1), 1.0, torch.zeros(3, 1))
    assert targets.advantages.isfinite().all()
    assert targets.value_targets.isfinite().all()


@pytest.mark.parametrize("log_ratio", [-1e4, 1e4])
def test_weighted_ratios_that_are_all_beyond_floats_are_1(log_ratio):
    batch = make_batch([1.0, 2.0, 4.0], terminated=[1, 0, 0], mask=[1, 0, 1])
    values = torch.zeros(4, 1)
    weighted = estimate(ImportanceSampled(3, "weighted"), batch, values, 1.0, torch.full((3, 1), log_ratio))
    assert_numbers(weighted.value_targets[[0, 2], 0], [1.0, 4.0])


def test_only_those_that_multiply_by_ratios_say_so():
    assert {name: ImportanceSampled(4, name).carries_ratios for name in IMPORTANCE_SAMPLED} == {
        "untruncated": True,
        "weighted": True,
        "one_step": True,
        "none": False,
    }
    assert Retrace().carries_ratios


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Retrace(0), "n_steps: got 0, must be at least 1"),
        (lambda: Retrace(lambda_=2), "lambda_: got 2, must be between 0 and 1"),
        (lambda: ImportanceSampled(0), "n_steps: got 0, must be at least 1"),
        (
            lambda: ImportanceSampled(correction="clipped"),
            "correction: got 'clipped', must be one of untruncated, weighted, one_step, none",
        ),
    ],
)
def test_what_is_out_of_range_raises_with_its_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()
