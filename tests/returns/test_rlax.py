"""Estimators against rlax, where it has the same one: random fragments without time limits, to 10⁻⁵."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from builders import discounts_of, make_batch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns import (
    GAE,
    AverageReward,
    Compound,
    DecoupledGAE,
    FullEpisode,
    ImportanceSampled,
    LeakyVTrace,
    NStep,
    Retrace,
    ReturnEstimator,
    SlidingNStep,
    Targets,
    TDLambda,
    ValueRescaled,
    VTrace,
)
from a3c.returns.rescaled import signed_hyperbolic, signed_parabolic

INSTALL = "rlax, which these numbers are compared with, is missing: pip install -c constraints.txt -e '.[dev]'"
jax = pytest.importorskip("jax", reason=INSTALL)
rlax = pytest.importorskip("rlax", reason=INSTALL)

LENGTH, COLUMNS, DISCOUNT = 12, 3, 0.9
seeds = pytest.mark.parametrize("seed", range(2))
LAMBDAS = [0.0, 0.7, 1.0]


class Fragment:
    """A random fragment: columns that terminate anywhere, with a reset step after each end.

    What rlax is given are the columns as they are; at reset steps, which are no part of what is compared, it takes
    the step for a real one.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shape = (LENGTH, COLUMNS)
        terminated = rng.random(shape) < 0.2
        terminated[1:] &= ~terminated[:-1]
        mask = np.ones(shape, dtype=bool)
        mask[1:] = ~terminated[:-1]
        self.values = torch.from_numpy(rng.normal(size=(LENGTH + 1, COLUMNS)).astype(np.float32)) * 3
        self.log_probs = torch.from_numpy(-rng.exponential(size=shape).astype(np.float32))
        self.batch: RolloutBatch = make_batch(
            torch.from_numpy(rng.normal(size=shape).astype(np.float32)),
            terminated=torch.from_numpy(terminated),
            mask=torch.from_numpy(mask),
            behaviour_log_probs=torch.from_numpy(-rng.exponential(size=shape).astype(np.float32)),
        )
        self.discounts = discounts_of(self.batch, DISCOUNT)
        self.ratios = (self.log_probs - self.batch.behaviour_log_probs).exp()

    def ask(self, estimator: ReturnEstimator) -> Targets:
        return estimator(self.batch, self.values, self.log_probs, self.discounts)

    def check(self, given: Tensor, oracle: Callable[..., Any]) -> None:
        """Compares with oracle(rewards [T], discounts [T], values [T+1], ratios [T]) of each column, at real steps."""
        fields = (self.batch.rewards, self.discounts, self.values, self.ratios)
        wanted = jax.vmap(oracle, in_axes=1, out_axes=1)(*(field.numpy() for field in fields))
        mask = self.batch.mask
        torch.testing.assert_close(given[mask], torch.from_numpy(np.array(wanted))[mask], rtol=1e-5, atol=1e-5)


@seeds
@pytest.mark.parametrize("lambda_", LAMBDAS)
def test_gae_and_both_halves_of_the_decoupled_one(seed, lambda_):
    fragment = Fragment(seed)

    def advantages(rewards, discounts, values, ratios):
        return rlax.truncated_generalized_advantage_estimation(rewards, discounts, lambda_, values)

    def returns(rewards, discounts, values, ratios):
        return rlax.lambda_returns(rewards, discounts, values[1:], lambda_)

    fragment.check(fragment.ask(GAE(LENGTH, lambda_)).advantages, advantages)
    fragment.check(fragment.ask(TDLambda(LENGTH, lambda_)).value_targets, returns)
    fragment.check(fragment.ask(DecoupledGAE(LENGTH, lambda_, 0.3)).advantages, advantages)
    fragment.check(fragment.ask(DecoupledGAE(LENGTH, 0.3, lambda_)).value_targets, returns)


@seeds
@pytest.mark.parametrize("estimator", [NStep(LENGTH), FullEpisode(), ImportanceSampled(LENGTH, "none")])
def test_n_step_and_full_episode_are_discounted_returns_of_the_fragment(seed, estimator):
    fragment = Fragment(seed)

    def oracle(rewards, discounts, values, ratios):
        return rlax.discounted_returns(rewards, discounts, values[1:])

    fragment.check(fragment.ask(estimator).value_targets, oracle)


@seeds
@pytest.mark.parametrize("lookahead", [1, 3, LENGTH])
def test_sliding_n_step_and_compound(seed, lookahead):
    fragment = Fragment(seed)

    def sliding(rewards, discounts, values, ratios, n=lookahead):
        return rlax.n_step_bootstrapped_returns(rewards, discounts, values[1:], n)

    def compound(*column):
        return 0.75 * sliding(*column, n=1) + 0.25 * sliding(*column)

    fragment.check(fragment.ask(SlidingNStep(LENGTH, lookahead)).value_targets, sliding)
    fragment.check(fragment.ask(Compound(LENGTH, 1, lookahead, 0.25)).value_targets, compound)


@seeds
@pytest.mark.parametrize("lambda_", LAMBDAS)
@pytest.mark.parametrize("rho_clip", [0.8, 2.0])
def test_vtrace(seed, lambda_, rho_clip):
    fragment = Fragment(seed)

    def oracle(rewards, discounts, values, ratios):
        return rlax.vtrace_td_error_and_advantage(
            *(values[:-1], values[1:], rewards, discounts, ratios, lambda_),
            clip_rho_threshold=rho_clip,
            clip_pg_rho_threshold=rho_clip,
        )

    targets = fragment.ask(VTrace(LENGTH, rho_clip, lambda_=lambda_))
    fragment.check(targets.value_targets - fragment.values[:-1], lambda *column: oracle(*column).errors)
    fragment.check(targets.advantages, lambda *column: oracle(*column).pg_advantage)


@seeds
@pytest.mark.parametrize(
    ("estimator", "alpha", "lambda_"),
    [
        (LeakyVTrace(LENGTH, 0.4, 0.4, lambda_=0.7), 0.4, 0.7),
        (LeakyVTrace(LENGTH, 0.4, 0.4), 0.4, 1.0),
        (LeakyVTrace(LENGTH, 1.0, 1.0, lambda_=0.7), 1.0, 0.7),
        (LeakyVTrace(LENGTH, 0.0, 0.0), 0.0, 1.0),
        (ImportanceSampled(LENGTH, "untruncated"), 0.0, 1.0),
    ],
)
def test_leaky_vtrace_of_equal_alphas_and_untruncated_importance_sampling(seed, estimator, alpha, lambda_):
    fragment = Fragment(seed)

    def oracle(rewards, discounts, values, ratios):
        return rlax.leaky_vtrace_td_error_and_advantage(
            values[:-1], values[1:], rewards, discounts, ratios, alpha, lambda_
        )

    targets = fragment.ask(estimator)
    fragment.check(targets.value_targets - fragment.values[:-1], lambda *column: oracle(*column).errors)
    fragment.check(targets.advantages, lambda *column: oracle(*column).pg_advantage)


@seeds
@pytest.mark.parametrize("lambda_", LAMBDAS)
def test_retrace_with_v_in_the_place_of_q(seed, lambda_):
    fragment = Fragment(seed)

    def oracle(rewards, discounts, values, ratios):
        clipped = ratios.clip(max=1)
        returns = rlax.general_off_policy_returns_from_q_and_v(
            values[1:-1], values[1:], rewards, discounts, lambda_ * clipped[1:]
        )
        return clipped * (returns - values[:-1])

    targets = fragment.ask(Retrace(LENGTH, lambda_))
    fragment.check(targets.advantages, oracle)
    fragment.check(targets.value_targets - fragment.values[:-1], oracle)


@seeds
@pytest.mark.parametrize("epsilon", [1e-2, 0.5])
def test_value_rescaled(seed, epsilon):
    fragment = Fragment(seed)
    pair = rlax.TxPair(lambda x: rlax.signed_hyperbolic(x, epsilon), lambda x: rlax.signed_parabolic(x, epsilon))

    def oracle(rewards, discounts, values, ratios):
        return rlax.transformed_lambda_returns(pair, rewards, discounts, values[1:], 0.8)

    fragment.check(fragment.ask(ValueRescaled(GAE(LENGTH, 0.8), epsilon)).value_targets, oracle)


@pytest.mark.parametrize("epsilon", [1e-2, 0.5])
def test_the_transform_and_its_inverse(epsilon):
    numbers = torch.linspace(-50, 50, 41)
    for ours, theirs in ((signed_hyperbolic, rlax.signed_hyperbolic), (signed_parabolic, rlax.signed_parabolic)):
        wanted = torch.from_numpy(np.array(theirs(numbers.numpy(), epsilon)))
        torch.testing.assert_close(ours(numbers, epsilon), wanted, rtol=1e-5, atol=1e-4)  # rlax's inverse cancels


@seeds
def test_average_reward_gives_lambda_returns_of_differences_without_a_discount(seed):
    fragment = Fragment(seed)
    estimator = AverageReward(LENGTH, 0.8)
    estimator.average_reward.fill_(0.25)

    def oracle(rewards, discounts, values, ratios):
        return rlax.lambda_returns(rewards - 0.25, discounts / DISCOUNT, values[1:], 0.8)

    fragment.check(fragment.ask(estimator).value_targets, oracle)
