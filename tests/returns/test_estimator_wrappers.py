"""Estimators around others: what they take over, and what each of them changes."""

import math
from collections.abc import Callable

import pytest
import torch
from builders import make_batch
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
    ReturnEstimator,
    SlidingNStep,
    Targets,
    TDLambda,
    ValueRescaled,
    VTrace,
)
from a3c.returns.normalised import normalised
from a3c.returns.rescaled import signed_hyperbolic, signed_parabolic
from a3c.returns.wrapper import Wrapper

WRAPPERS: list[Callable[[ReturnEstimator], Wrapper]] = [L2Normalised, AdvantageNormalised, ValueRescaled, PositiveOnly]
wrappers = pytest.mark.parametrize("wrapper", WRAPPERS)


class Weighted(NStep):
    """Gives weights too, is reusable no more than once, and keeps a state of its own."""

    reusable = False
    kept = 0

    def __call__(self, *arguments):
        return super().__call__(*arguments)._replace(weights=torch.full_like(arguments[0].rewards, 2.0))

    def state_dict(self):
        return {"kept": self.kept}

    def load_state_dict(self, state):
        self.kept = state["kept"]


class Unsaid(ReturnEstimator):
    """Says no horizon."""

    advantages_are_errors = True

    def __call__(self, batch, values, log_probs, discounts):
        return Targets(batch.rewards - values[:-1], batch.rewards)


# What all of them take over


@wrappers
def test_a_wrapper_takes_over_rollouts_weights_state_and_reuse(wrapper):
    for inner in (FullEpisode(), NStep(7), NStep(7, end_at_episode=True)):
        outer = wrapper(inner)
        assert (outer.horizon, outer.end_at_episode) == (inner.horizon, inner.end_at_episode)
        assert outer.needs_segments == inner.needs_segments
        assert outer.reusable == (wrapper is not L2Normalised)
    inner = Weighted(2)
    outer = wrapper(inner)
    assert not outer.reusable
    assert estimate(outer, make_batch([1.0, 2.0]), torch.zeros(3, 1), 0.9).weights.tolist() == [[2.0], [2.0]]
    outer.load_state_dict({"kept": 3})
    assert outer.state_dict() == {"kept": 3}
    assert inner.kept == 3


@wrappers
def test_a_wrapper_says_a_horizon_where_the_one_within_does(wrapper):
    assert wrapper(NStep(4)).says_its_horizon
    assert wrapper(FullEpisode()).says_its_horizon
    assert not wrapper(Unsaid()).says_its_horizon


@wrappers
def test_a_wrapper_shares_the_statistics_of_the_one_within(wrapper):
    inner = AverageReward(4, rate=0.5)
    outer = wrapper(inner)
    assert outer.statistics["average_reward"] is inner.average_reward
    batch = make_batch([1.0])
    outer.take_in(batch, torch.zeros(2, 1), torch.zeros(1, 1), torch.ones(1, 1))
    assert inner.average_reward.item() == 0.5
    assert outer.state_dict() == {"average_reward": torch.tensor(0.5, dtype=torch.float64)}
    outer.load_state_dict({"average_reward": torch.tensor(0.75, dtype=torch.float64)})
    assert inner.average_reward.item() == 0.75


@wrappers
def test_a_wrapper_refuses_what_is_no_estimator(wrapper):
    with pytest.raises(ValueError, match="estimator: got 3, must be a return estimator"):
        wrapper(3)


def test_units_are_the_inner_ones_unless_the_wrapper_changes_them():
    for inner in (GAE(4), AverageReward(4)):
        assert AdvantageNormalised(inner).target_units == PositiveOnly(inner).target_units == inner.target_units
        assert L2Normalised(inner).target_units == ValueRescaled(inner).target_units == "own"


@pytest.mark.parametrize("wrapper", [AdvantageNormalised, ValueRescaled, PositiveOnly])
def test_ratios_within_are_ratios_without(wrapper):
    assert wrapper(VTrace()).carries_ratios
    assert wrapper(PositiveOnly(UPGO())).carries_ratios
    assert not wrapper(GAE()).carries_ratios


# Which advantages are what, and whom L2Normalised takes

ERRORS = [
    *(FullEpisode(), NStep(2), GAE(8), TDLambda(8), SlidingNStep(8), Compound(8, 1, 4), AverageReward(8)),
    *(ImportanceSampled(8, "none"), L2Normalised(GAE(8)), L2Normalised(TDLambda(8))),
]
WITH_RATIOS = [
    *(VTrace(8), LeakyVTrace(8), Retrace(8), UPGO(8)),
    *(ImportanceSampled(8, correction) for correction in ("untruncated", "weighted", "one_step")),
]
OTHERS = [
    *(DecoupledGAE(8), GroupBaseline(), ValueRescaled(GAE(8)), PositiveOnly(GAE(8)), AdvantageNormalised(GAE(8))),
]
BY_NAME = {"ids": lambda estimator: type(estimator).__name__}


def random_case():
    generator = torch.Generator().manual_seed(5)
    behaviour_log_probs = -torch.rand(8, 3, generator=generator)
    batch = make_batch(torch.randn(8, 3, generator=generator), behaviour_log_probs=behaviour_log_probs)
    return batch, torch.randn(9, 3, generator=generator), -3 * torch.rand(8, 3, generator=generator)


@pytest.mark.parametrize(
    "estimator", [*ERRORS, *OTHERS, Retrace(8), VTrace(8, 0.5, 1.0), LeakyVTrace(8, 0.2, 0.8), UPGO(8)], **BY_NAME
)
def test_advantages_are_targets_less_values_where_an_estimator_says_so(estimator):
    batch, values, log_probs = random_case()
    advantages, targets, _ = estimate(estimator, batch, values, 0.9, log_probs)
    assert torch.allclose(advantages, targets - values[:-1], atol=1e-5) == estimator.advantages_are_errors


@pytest.mark.parametrize("estimator", [*ERRORS, *WITH_RATIOS, *OTHERS], **BY_NAME)
def test_advantages_depend_on_the_policy_where_an_estimator_carries_ratios(estimator):
    batch, values, log_probs = random_case()
    given_, others = (estimate(estimator, batch, values, 0.9, logs).advantages for logs in (log_probs, log_probs * 0.5))
    assert torch.equal(given_, others) != estimator.carries_ratios


@pytest.mark.parametrize("estimator", ERRORS, **BY_NAME)
def test_l2_normalised_takes_any_whose_advantages_are_targets_less_values(estimator):
    assert L2Normalised(estimator).estimator is estimator


@pytest.mark.parametrize("estimator", [*WITH_RATIOS, *OTHERS], **BY_NAME)
def test_l2_normalised_refuses_every_other_one(estimator):
    with pytest.raises(
        ValueError, match=f"estimator: got {type(estimator).__name__}, must be one whose advantages are"
    ):
        L2Normalised(estimator)


# AdvantageNormalised


def test_advantages_are_brought_to_mean_0_and_deviation_1_over_real_steps():
    # Errors 1, 3, 5, with mean 3 and deviation √(8/3); the masked 10⁶ is no part of it.
    batch = make_batch([1.0, 3.0, 1e6, 5.0], terminated=[1, 1, 0, 1], mask=[1, 1, 0, 1])
    advantages, targets, _ = estimate(AdvantageNormalised(NStep(4)), batch, torch.zeros(5, 1), 1.0)
    assert_numbers(advantages[[0, 1, 3], 0], [-2 / math.sqrt(8 / 3), 0.0, 2 / math.sqrt(8 / 3)])
    assert_numbers(targets[[0, 1, 3], 0], [1.0, 3.0, 5.0])


@random_rollouts
@given(rollouts(), fractions)
def test_normalised_advantages_are_the_inner_ones_normalised_and_the_targets_stay(rollout, discount):
    batch, values, log_probs = rollout
    for inner in (GAE(8, 0.9), VTrace(8, 0.5, 0.7)):
        plain = estimate(inner, batch, values, discount, log_probs)
        wanted = Targets(normalised(plain.advantages, batch.mask), plain.value_targets)
        given_ = estimate(AdvantageNormalised(inner), batch, values, discount, log_probs)
        assert_same_where_real(given_, wanted, batch.mask)
        real = plain.advantages[batch.mask].tolist()
        if len(real) > 1 and max(real) - min(real) > 1e-3:
            mean = sum(real) / len(real)
            deviation = math.sqrt(sum((x - mean) ** 2 for x in real) / len(real))
            literal = torch.tensor([(x - mean) / deviation for x in real], dtype=torch.float64)
            torch.testing.assert_close(given_.advantages[batch.mask], literal, rtol=1e-4, atol=1e-6)


# ValueRescaled

epsilons = st.sampled_from([0.0, 1e-3, 1e-2, 0.5])


@pytest.mark.parametrize(("end", "steps"), ENDS)
def test_rescaled_targets_are_h_of_the_chains_returns(end, steps):
    # With ε = 0, h(x) = √(x + 1) − 1: the critic says √11 − 1 where a state is worth 10.
    batch, values = chain(end, steps)
    returns = {
        ("terminated", 1): [1.0],
        ("terminated", 2): [1 + 0.5 * 2, 2.0],
        ("terminated", 3): [1 + 0.5 * 4, 2 + 0.5 * 4, 4.0],
        ("truncated", 1): [1 + 0.5 * 20],
        ("truncated", 2): [1 + 0.5 * 17, 2 + 0.5 * 30],
        ("truncated", 3): [1 + 0.5 * 14, 2 + 0.5 * 24, 4 + 0.5 * 40],
    }["truncated" if end == "cut" else end, steps]
    rescaled = ValueRescaled(FullEpisode(), epsilon=0.0)
    advantages, targets, _ = estimate(rescaled, batch, (values + 1).sqrt() - 1, HALF)
    torch.testing.assert_close(targets[:steps, 0], torch.tensor([math.sqrt(x + 1) - 1 for x in returns]))
    expected = torch.tensor([x - v for x, v in zip(returns, CHAIN_VALUES, strict=False)])
    torch.testing.assert_close(advantages[:steps, 0], expected, rtol=1e-5, atol=1e-5)


def test_h_and_its_inverse_give_the_hand_computed_numbers():
    # ε = ½: h(8) = √9 − 1 + 4 = 6, h(−3) = −(√4 − 1) − 1.5 = −2.5
    assert_numbers(signed_hyperbolic(torch.tensor([8.0, -3.0, 0.0]), 0.5), [6.0, -2.5, 0.0])
    assert_numbers(signed_parabolic(torch.tensor([6.0, -2.5, 0.0]), 0.5), [8.0, -3.0, 0.0])


@given(st.floats(-1e9, 1e9), epsilons)
def test_h_and_its_inverse_undo_each_other(number, epsilon):
    x = torch.tensor([number], dtype=torch.float64)
    for there, back in ((signed_hyperbolic, signed_parabolic), (signed_parabolic, signed_hyperbolic)):
        torch.testing.assert_close(back(there(x, epsilon), epsilon), x, rtol=1e-7, atol=1e-9)


def test_in_32_bits_small_numbers_come_back_as_they_went():
    x = torch.tensor([1e-6, 1e-3, 0.1, 1.0, -1e-3])
    torch.testing.assert_close(signed_parabolic(signed_hyperbolic(x, 1e-3), 1e-3), x, rtol=1e-6, atol=1e-12)


@random_rollouts
@given(rollouts(), fractions, epsilons)
@pytest.mark.parametrize("inner", [GAE(8, 0.9), VTrace(8), NStep(2)], **BY_NAME)
def test_the_inner_one_sees_values_in_its_units_and_keeps_its_advantages(inner, rollout, discount, epsilon):
    batch, values, log_probs = rollout
    plain = estimate(inner, batch, values, discount, log_probs)
    said = signed_hyperbolic(values, epsilon)
    rescaled = estimate(ValueRescaled(inner, epsilon), batch, said, discount, log_probs)
    wanted = Targets(plain.advantages, signed_hyperbolic(plain.value_targets, epsilon))
    for a, b in zip(rescaled[:2], wanted[:2], strict=True):
        torch.testing.assert_close(a[batch.mask], b[batch.mask], rtol=1e-6, atol=1e-7)


@random_rollouts
@given(rollouts(), fractions)
def test_small_returns_are_rescaled_by_a_factor_and_with_a_huge_epsilon_all_are(rollout, discount):
    batch, values, _ = rollout
    for size, epsilon, slope, tolerance in ((1e-5, 1.0, 1.5, 1e-4), (1.0, 1e6, 1e6, 1e-5)):
        small = batch._replace(rewards=batch.rewards * size)
        plain = estimate(GAE(8), small, values * size, discount)
        rescaled = estimate(ValueRescaled(GAE(8), epsilon), small, values * size * slope, discount)
        for field, factor in (("value_targets", slope), ("advantages", 1.0)):
            given_, wanted = getattr(rescaled, field)[batch.mask], getattr(plain, field)[batch.mask] * factor
            torch.testing.assert_close(given_, wanted, rtol=tolerance, atol=tolerance * size * factor)


@random_rollouts
@given(rollouts(), fractions)
def test_rescaled_td_targets_are_the_transformed_bellman_operator(rollout, discount):
    """h(r + γ·h⁻¹(V')), arXiv:1805.11593, with h and h⁻¹ as the paper writes them."""
    batch, values, _ = rollout
    epsilon = 1e-2

    def h(x):
        return math.copysign(math.sqrt(abs(x) + 1) - 1, x) + epsilon * x

    def h_inverse(x):
        root = (math.sqrt(1 + 4 * epsilon * (abs(x) + 1 + epsilon)) - 1) / (2 * epsilon)
        return math.copysign(root**2 - 1, x)

    def step(column, t, last):
        target = batch.rewards[t, column].item() + discount * h_inverse(after(batch, values, column, t))
        return target - h_inverse(values[t, column].item()), h(target)

    rescaled = estimate(ValueRescaled(NStep(1), epsilon), batch, values, discount)
    expected = reference(batch, values, step)
    for a, b in zip(rescaled[:2], expected[:2], strict=True):
        torch.testing.assert_close(a[batch.mask], b[batch.mask], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("epsilon", [-1e-3, float("nan")])
def test_an_epsilon_below_0_is_refused(epsilon):
    with pytest.raises(ValueError, match=f"epsilon: got {epsilon}, must be at least 0"):
        ValueRescaled(GAE(), epsilon)
