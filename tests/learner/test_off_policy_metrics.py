"""How far the policy is from the one that acted, and the entropy coefficient that is in force now."""

import math

import pytest
import torch
from builders import TableNetwork, make_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from a3c.learner.measures import Trace, metrics_of, off_policy_metrics
from a3c.learner.objective import Objective
from a3c.returns import GAE, NStep

CLIP, SAMPLE_SIZE, KL = "importance/clip_fraction", "importance/effective_sample_size", "policy/kl_from_behaviour"
LARGEST, SMALLEST = "importance/largest_ratio", "importance/smallest_ratio"


def measure(probabilities, behaviour_probabilities, clip=None):
    """Gives the metrics of T actions that have these probabilities."""
    log_ratios = torch.tensor(probabilities).log() - torch.tensor(behaviour_probabilities).log()
    return {key: value.item() for key, value in off_policy_metrics(log_ratios, clip).items()}


def test_the_policy_that_acted_is_no_distance_away():
    assert measure([0.2, 0.7, 1.0], [0.2, 0.7, 1.0]) == {CLIP: 0, SAMPLE_SIZE: 1, KL: 0, LARGEST: 1, SMALLEST: 1}


def test_two_steps_by_hand():
    # w = ¾ ÷ ½ = 3/2 and ¼ ÷ ½ = 1/2: one of two above 1; (3/2 + 1/2)² ÷ (2·(9/4 + 1/4)) = 4/5;
    # (3/2 − 1 − log 3/2 + 1/2 − 1 − log 1/2) ÷ 2 = −log(3/4) ÷ 2
    metrics = measure([0.75, 0.25], [0.5, 0.5])
    assert metrics[CLIP] == 1 / 2
    assert metrics[SAMPLE_SIZE] == pytest.approx(4 / 5)
    assert metrics[KL] == pytest.approx(-math.log(3 / 4) / 2)
    assert metrics[LARGEST] == pytest.approx(3 / 2)
    assert metrics[SMALLEST] == pytest.approx(1 / 2)


def test_the_clip_fraction_is_of_ratios_further_from_1_than_the_clip_on_either_side():
    # w = 3/2, 1/2, 6/5, 1; clipped by ε = 0.3 are two
    steps = [0.75, 0.25, 0.6, 0.5], [0.5] * 4
    assert measure(*steps, clip=0.3)["surrogate/clip_fraction"] == 2 / 4
    assert measure(*steps, clip=0.1)["surrogate/clip_fraction"] == 3 / 4
    assert "surrogate/clip_fraction" not in measure(*steps)


def test_four_steps_of_which_one_has_all_the_weight_are_worth_little_more_than_one():
    # w = 100, 1, 1, 1: 103² ÷ (4·10003)
    metrics = measure([1.0, 0.01, 0.01, 0.01], [0.01] * 4)
    assert metrics[SAMPLE_SIZE] == pytest.approx(103**2 / (4 * 10003))
    assert metrics[CLIP] == 1 / 4


def test_ratios_that_differ_from_1_by_rounding_are_not_clipped_ones():
    assert measure([0.50001, 0.5], [0.5, 0.5])[CLIP] == 0
    assert measure([0.51, 0.5], [0.5, 0.5])[CLIP] == 1 / 2


def traced(probabilities, behaviour_probabilities, mask):
    """Gives what a loss leaves behind of T actions that have these probabilities."""
    log_probs, behaviour = (torch.tensor(each).log().unsqueeze(1) for each in (probabilities, behaviour_probabilities))
    terms = {"loss/total": torch.tensor(1.0)}
    other = log_probs.neg()  # whatever it is, what is masked must not matter
    return Trace(torch.tensor(mask).bool().unsqueeze(1), behaviour, other, other, log_probs, other, other, terms)


@pytest.mark.parametrize("spoilt", [1e-30, 1e30, 0.0, math.inf, math.nan])
def test_masked_steps_count_nowhere(spoilt):
    alone = metrics_of(traced([0.75, 0.25], [0.5, 0.5], [1, 1]), 0.2)
    assert alone.keys() > measure([0.75, 0.25], [0.5, 0.5]).keys()
    assert metrics_of(traced([0.75, spoilt, 0.25], [0.5, 0.5, 0.5], [1, 0, 1]), 0.2) == alone
    assert metrics_of(traced([0.75, 0.5, 0.25], [0.5, spoilt, 0.5], [1, 0, 1]), 0.2) == alone


def test_without_a_real_step_there_are_the_terms_of_the_loss_alone():
    assert metrics_of(traced([0.75], [0.5], [0]), 0.2) == {"loss/total": 1}


one_log_prob = st.floats(-6, 0, width=32)  # ratios of float32 that are known to a few digits, and so are their squares


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(one_log_prob, one_log_prob), min_size=1, max_size=8))
def test_kl_is_never_negative_and_the_sample_size_is_between_one_step_and_all(steps):
    ours, behaviour = torch.tensor(steps).unbind(1)
    metrics = off_policy_metrics(ours - behaviour)
    assert metrics[KL] >= 0
    assert 0 <= metrics[CLIP] <= 1
    assert (1 - 1e-4) / len(steps) <= metrics[SAMPLE_SIZE] <= 1 + 1e-4


@settings(max_examples=200, deadline=None)
@given(st.floats(-3, 0, width=32), st.floats(-(2**-10), 2**-10, width=32))
def test_kl_of_a_policy_that_hardly_moved_is_half_the_square_and_never_negative(log_prob, difference):
    # eˣ − 1 − x = x²/2 + x³/6 + …
    behaviour = torch.tensor([log_prob], dtype=torch.float32)
    log_ratios = behaviour + difference - behaviour
    kl, moved = off_policy_metrics(log_ratios)[KL].item(), log_ratios.item()
    assert kl >= 0
    assert kl == pytest.approx(moved**2 / 2, rel=0.01, abs=1e-10)


# In the objective


def test_the_objective_reports_them_of_its_network_and_its_batch():
    # The network says ¾ and ¼ where ½ and ½ acted; actions 0 and 1
    logits = torch.tensor([0.75, 0.25]).log().expand(3, 1, 2).clone()
    batch = make_batch([1.0, 1.0], actions=[0, 1], behaviour_log_probs=[math.log(0.5)] * 2)
    for reduction in ("mean", "sum"):  # of the loss; these stay means
        network = TableNetwork(logits, torch.zeros(3, 1))
        _, metrics = Objective(NStep(2), reduction=reduction)(network, batch)
        expected = {CLIP: 1 / 2, SAMPLE_SIZE: 4 / 5, KL: -math.log(3 / 4) / 2}
        assert {key: metrics[key].item() for key in expected} == pytest.approx(expected)


def loss_and_gradients(objective, *coefficient):
    generator = torch.Generator().manual_seed(3)
    network = TableNetwork(torch.randn(4, 2, 3, generator=generator), torch.randn(4, 2, generator=generator))
    loss, metrics = objective(network, make_batch([[1.0, 2.0]] * 3), *coefficient)
    loss.backward()
    return loss.item(), network.logits.grad.tolist(), network.values.grad.tolist(), metrics


@pytest.mark.parametrize("own", [0.0, 0.5])
@pytest.mark.parametrize("given_one", [0.0, 0.2])
def test_the_entropy_coefficient_of_the_moment_replaces_the_objectives_own(own, given_one):
    objective = Objective(GAE(3), entropy_coefficient=own)
    assert loss_and_gradients(objective, given_one) == loss_and_gradients(Objective(GAE(3), 0.99, 0.5, given_one))
    assert objective.entropy_coefficient == own


def test_the_entropy_bonus_by_hand_with_the_coefficient_of_the_moment():
    # No reward, a critic that says 0, even odds: nothing is left but −0.2·log 2
    network = TableNetwork(torch.zeros(2, 1, 2), torch.zeros(2, 1))
    loss, metrics = Objective(NStep(1), entropy_coefficient=9.0)(network, make_batch([0.0]), 0.2)
    assert loss.item() == pytest.approx(-0.2 * math.log(2))
    assert metrics["loss/entropy"].item() == pytest.approx(-math.log(2))  # unweighted


def test_without_a_coefficient_of_the_moment_the_objectives_own_is_used():
    objective = Objective(GAE(3), entropy_coefficient=0.5)
    assert loss_and_gradients(objective, None) == loss_and_gradients(objective, 0.5)
    assert loss_and_gradients(objective, None)[0] != loss_and_gradients(objective, 0.0)[0]
