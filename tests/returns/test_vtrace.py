"""VTrace with λ, and LeakyVTrace: hand-computed cases, what they are cases of, and equation 1."""

import math

import pytest
import torch
from builders import make_batch
from hypothesis import given
from hypothesis import strategies as st
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

from a3c.returns import GAE, ImportanceSampled, LeakyVTrace, VTrace

clips = st.floats(0, 3)

# Ratios 2, ½, 1 with clips of 1 and λ = ½: ρ = 1, ½, 1 and c = ½, ¼, ½; δ = r + ½V' − V.
HALF_TARGETS = {
    ("terminated", 1): [10 + (1 - 10)],
    ("terminated", 2): [10 + 1 + 0.25 * (11 - 20), 20 + 0.5 * (2 - 20)],
    ("terminated", 3): [10 + 1 + 0.25 * (15.25 - 20), 20 + 0.5 * (17 - 20) + 0.125 * (4 - 30), 30 + (4 - 30)],
    ("truncated", 1): [10 + (11 - 10)],
    ("truncated", 2): [10 + 1 + 0.25 * (18.5 - 20), 20 + 0.5 * (17 - 20)],
    ("truncated", 3): [10 + 1 + 0.25 * (17.75 - 20), 20 + 0.5 * (17 - 20) + 0.125 * (24 - 30), 30 + (24 - 30)],
}
HALF_ADVANTAGES = {  # ρ·(r + ½·(½V' + ½v') − V), where at the end of what is known V' stands alone
    ("terminated", 1): [1 - 10],
    ("terminated", 2): [1 + 0.25 * (20 + 11) - 10, 0.5 * (2 - 20)],
    ("terminated", 3): [1 + 0.25 * (20 + 15.25) - 10, 0.5 * (2 + 0.25 * (30 + 4) - 20), 4 - 30],
    ("truncated", 1): [1 + 0.5 * 20 - 10],
    ("truncated", 2): [1 + 0.25 * (20 + 18.5) - 10, 0.5 * (2 + 0.5 * 30 - 20)],
    ("truncated", 3): [1 + 0.25 * (20 + 17.75) - 10, 0.5 * (2 + 0.25 * (30 + 24) - 20), 4 + 0.5 * 40 - 30],
}


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_vtrace_with_lambda_half_gives_the_hand_computed_targets_on_every_split(end, steps):
    batch, values = chain(end, steps)
    log_probs = torch.zeros_like(batch.rewards)
    log_probs[:steps, 0] = torch.tensor([2.0, 0.5, 1.0])[:steps].log()
    advantages, targets, _ = estimate(VTrace(9, lambda_=0.5), batch, values, HALF, log_probs)
    key = ("truncated" if end == "cut" else end, steps)
    assert_numbers(targets[:steps, 0], HALF_TARGETS[key])
    assert_numbers(advantages[:steps, 0], HALF_ADVANTAGES[key])
    if end != "cut":
        assert_numbers(targets[steps + 1 :, 0], [8 + 0.5 * 60])


def test_leaky_vtrace_lets_a_part_of_each_ratio_through():
    # Two steps, γ = 1, rewards 1 and 1, all values 0: δ = 1, 1. Ratios 3 and 3, ρ̄ = 2, c̄ = 1.
    batch = make_batch([1.0, 1.0])
    log_probs = torch.full((2, 1), math.log(3.0))
    leaky = LeakyVTrace(2, alpha_rho=0.75, alpha_c=0.5, rho_clip=2.0, c_clip=1.0, lambda_=0.5)
    rho, c = 0.75 * 2 + 0.25 * 3, 0.5 * (0.5 * 1 + 0.5 * 3)  # 2.25 and 1
    advantages, targets, _ = estimate(leaky, batch, torch.zeros(3, 1), 1.0, log_probs)
    assert_numbers(targets[:, 0], [rho * 1 + c * rho, rho * 1])
    assert_numbers(advantages[:, 0], [rho * (1 + 0.5 * rho), rho * 1])


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_leaky_vtrace_cuts_its_traces_as_vtrace_does(end, steps):
    batch, values = chain(end, steps)
    log_probs = torch.tensor([2.0, 0.5, 1.0, 3.0, 4.0])[: batch.length, None].log()
    leaky = estimate(LeakyVTrace(9, 1.0, 1.0), batch, values, HALF, log_probs)
    assert_same_where_real(leaky, estimate(VTrace(9), batch, values, HALF, log_probs), batch.mask)


@random_rollouts
@given(rollouts(), fractions, fractions, st.floats(1, 4), st.floats(1, 4))
def test_vtrace_of_lambda_with_the_policy_that_acted_is_gae(rollout, discount, lambda_, rho_clip, c_clip):
    batch, values, _ = rollout
    vtrace = estimate(VTrace(8, rho_clip, c_clip, lambda_), batch, values, discount)
    assert_same_where_real(vtrace, estimate(GAE(8, lambda_), batch, values, discount), batch.mask)


@random_rollouts
@given(rollouts(), fractions, clips, clips, fractions)
def test_leaky_vtrace_with_alphas_of_1_is_vtrace(rollout, discount, rho_clip, c_clip, lambda_):
    batch, values, log_probs = rollout
    leaky = estimate(LeakyVTrace(8, 1.0, 1.0, rho_clip, c_clip, lambda_), batch, values, discount, log_probs)
    vtrace = estimate(VTrace(8, rho_clip, c_clip, lambda_), batch, values, discount, log_probs)
    assert_same_where_real(leaky, vtrace, batch.mask)


@random_rollouts
@given(rollouts(), fractions, clips, clips)
def test_leaky_vtrace_with_alphas_of_0_is_untruncated_importance_sampling(rollout, discount, rho_clip, c_clip):
    batch, values, log_probs = rollout
    leaky = estimate(LeakyVTrace(8, 0.0, 0.0, rho_clip, c_clip), batch, values, discount, log_probs)
    untruncated = estimate(ImportanceSampled(8, "untruncated"), batch, values, discount, log_probs)
    assert_same_where_real(leaky, untruncated, batch.mask)


@random_rollouts
@given(rollouts(), fractions, fractions, fractions, fractions)
def test_leaky_vtrace_with_the_policy_that_acted_is_gae(rollout, discount, alpha_rho, alpha_c, lambda_):
    batch, values, _ = rollout
    leaky = estimate(LeakyVTrace(8, alpha_rho, alpha_c, lambda_=lambda_), batch, values, discount)
    assert_same_where_real(leaky, estimate(GAE(8, lambda_), batch, values, discount), batch.mask)


@random_rollouts
@given(rollouts(), fractions, fractions, fractions, clips, clips, fractions)
def test_leaky_vtrace_matches_equation_1(rollout, discount, alpha_rho, alpha_c, rho_clip, c_clip, lambda_):
    """vₛ = V(xₛ) + Σₜ γᵗ⁻ˢ·(Πᵢ cᵢ)·ρₜ·δₜ, arXiv:1802.01561 eq. 1, with the weights of arXiv:2002.12928."""
    batch, values, log_probs = rollout

    def weights(column, t):
        ratio = math.exp(log_probs[t, column].item() - batch.behaviour_log_probs[t, column].item())
        rho = alpha_rho * min(rho_clip, ratio) + (1 - alpha_rho) * ratio
        return rho, lambda_ * (alpha_c * min(c_clip, ratio) + (1 - alpha_c) * ratio)

    def target(column, s, last):
        total = values[s, column].item()
        for t in range(s, last + 1):
            product = math.prod(weights(column, i)[1] for i in range(s, t))
            error = batch.rewards[t, column].item() + discount * after(batch, values, column, t)
            total += discount ** (t - s) * product * weights(column, t)[0] * (error - values[t, column].item())
        return total

    def step(column, s, last):
        following = after(batch, values, column, s)
        if s < last:
            following = (1 - lambda_) * following + lambda_ * target(column, s + 1, last)
        error = batch.rewards[s, column].item() + discount * following - values[s, column].item()
        return weights(column, s)[0] * error, target(column, s, last)

    leaky = LeakyVTrace(8, alpha_rho, alpha_c, rho_clip, c_clip, lambda_)
    expected = reference(batch, values, step)
    assert_same_where_real(estimate(leaky, batch, values, discount, log_probs), expected, batch.mask)


def test_a_ratio_that_would_overflow_is_clipped_like_any_other():
    batch = make_batch([1.0, 1.0])
    huge = estimate(VTrace(2), batch, torch.zeros(3, 1), 1.0, torch.full((2, 1), 1e4))
    assert_numbers(huge.value_targets[:, 0], [2.0, 1.0])
    unclipped = estimate(VTrace(2, math.inf, 1.0), batch, torch.zeros(3, 1), 1.0, torch.full((2, 1), 1e4))
    assert unclipped.value_targets.isfinite().all()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: VTrace(lambda_=1.5), "lambda_: got 1.5, must be between 0 and 1"),
        (lambda: LeakyVTrace(0), "n_steps: got 0, must be at least 1"),
        (lambda: LeakyVTrace(alpha_rho=1.5), "alpha_rho: got 1.5, must be between 0 and 1"),
        (lambda: LeakyVTrace(alpha_c=-1), "alpha_c: got -1, must be between 0 and 1"),
        (lambda: LeakyVTrace(rho_clip=-1), "rho_clip: got -1, must be at least 0"),
        (lambda: LeakyVTrace(c_clip=math.nan), "c_clip: got nan, must be at least 0"),
        (lambda: LeakyVTrace(lambda_=-0.5), "lambda_: got -0.5, must be between 0 and 1"),
    ],
)
def test_what_is_out_of_range_raises_with_its_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()
