"""Loss terms: values by hand, gradients against analytic ones, and what masked steps may not do."""

import math

import pytest
import torch

from a3c.learner.losses import MaskedReduction, entropy_loss, policy_gradient_loss, value_loss
from a3c.networks import Categorical

EVERY_STEP = torch.ones(2, 2, dtype=torch.bool)
MASK = torch.tensor([[True, True], [True, False]])


@pytest.mark.parametrize(("how", "expected"), [("sum", 1 + 2 + 3), ("mean", (1 + 2 + 3) / 3)])
def test_reductions_count_real_steps_only(how, expected):
    terms = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    assert MaskedReduction(MASK, how)(terms).item() == pytest.approx(expected)


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_a_batch_without_a_real_step_has_loss_0_and_finite_gradients(how):
    nothing = MaskedReduction(torch.zeros(2, 2, dtype=torch.bool), how)
    log_probs, values = torch.full((2, 2), -0.5, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    loss = policy_gradient_loss(log_probs, torch.ones(2, 2), nothing) + value_loss(values, torch.zeros(2, 2), nothing)
    loss.backward()
    assert loss.item() == 0
    assert not log_probs.grad.any()
    assert not values.grad.any()


def test_an_unknown_reduction_raises_with_its_name_and_the_choices():
    with pytest.raises(ValueError, match="reduction: got 'median', must be one of mean, sum"):
        MaskedReduction(MASK, "median")


def test_policy_gradient_loss_is_minus_log_prob_times_advantage():
    log_probs, advantages = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]), torch.tensor([[1.0, -2.0], [0.5, 9.0]])
    loss = policy_gradient_loss(log_probs, advantages, MaskedReduction(MASK, "sum"))
    assert loss.item() == pytest.approx(1 * 1 + 2 * (-2) + 3 * 0.5)


def test_policy_gradient_is_the_advantage_times_probability_less_choice():
    # ∂(−A·log softmax(z)ₐ)/∂z = A·(softmax(z) − 1ₐ)
    logits = torch.tensor([[[0.3, -1.0, 2.0], [0.0, 0.5, 0.1]]], requires_grad=True)
    actions, advantages = torch.tensor([[2, 0]]), torch.tensor([[1.5, -0.7]])
    every_step = torch.ones(1, 2, dtype=torch.bool)
    log_probs = Categorical(logits).log_prob(actions)
    policy_gradient_loss(log_probs, advantages, MaskedReduction(every_step, "mean")).backward()
    choices = torch.nn.functional.one_hot(actions, 3)
    expected = advantages.unsqueeze(-1) * (logits.detach().softmax(-1) - choices) / 2
    torch.testing.assert_close(logits.grad, expected)


def test_squared_error_has_no_factor_of_one_half():
    values = torch.tensor([[1.0, 2.0], [3.0, 50.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 4.0], [2.5, 0.0]])
    loss = value_loss(values, targets, MaskedReduction(MASK, "mean"))
    loss.backward()
    assert loss.item() == pytest.approx((1 + 4 + 0.25) / 3)
    expected = torch.tensor([[2 * 1.0, 2 * -2.0], [2 * 0.5, 0.0]]) / 3
    torch.testing.assert_close(values.grad, expected)


def test_huber_is_half_the_square_up_to_delta_and_linear_beyond():
    # |e| ≤ δ: e²/2; beyond: δ·(|e| − δ/2). Here δ = 2 and e = 1, −2, 5, −3.
    values = torch.tensor([[1.0, -2.0], [5.0, -3.0]], requires_grad=True)
    loss = value_loss(values, torch.zeros(2, 2), MaskedReduction(EVERY_STEP, "sum"), huber_delta=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 2 + 4 / 2 + 2 * (5 - 1) + 2 * (3 - 1))
    torch.testing.assert_close(values.grad, torch.tensor([[1.0, -2.0], [2.0, -2.0]]))


def test_no_gradient_reaches_advantages_or_targets():
    advantages, targets = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    log_probs, values = torch.zeros(2, 2, requires_grad=True), torch.zeros(2, 2, requires_grad=True)
    reduce = MaskedReduction(MASK, "sum")
    losses = [policy_gradient_loss(log_probs, advantages, reduce), value_loss(values, targets, reduce)]
    (sum(losses) + value_loss(values, targets, reduce, huber_delta=0.5)).backward()
    assert advantages.grad is None
    assert targets.grad is None
    assert log_probs.grad[MASK].all()
    assert values.grad[MASK].all()


def test_entropy_loss_falls_as_the_policy_becomes_undecided():
    every_step = torch.ones(1, 1, dtype=torch.bool)
    reduce = MaskedReduction(every_step, "mean")
    undecided = entropy_loss(Categorical(torch.zeros(1, 1, 4)).entropy(), reduce)
    decided = entropy_loss(Categorical(torch.tensor([[[9.0, 0.0, 0.0, 0.0]]])).entropy(), reduce)
    assert undecided.item() == pytest.approx(-math.log(4))
    assert undecided < decided < 0


@pytest.mark.parametrize("huber_delta", [None, 1.0])
def test_nan_at_a_masked_step_reaches_neither_a_loss_nor_a_gradient(huber_delta):
    log_probs, values = torch.full((2, 2), -1.0, requires_grad=True), torch.zeros(2, 2, requires_grad=True)
    spoilt = torch.tensor([[1.0, 1.0], [1.0, math.nan]])
    reduce = MaskedReduction(MASK, "sum")
    policy_term = policy_gradient_loss(log_probs, spoilt, reduce)
    value_term = value_loss(values, spoilt, reduce, huber_delta)
    (policy_term + value_term).backward()
    assert policy_term.item() == 3
    assert value_term.item() == (3 if huber_delta is None else 1.5)
    slope = -2 if huber_delta is None else -1
    torch.testing.assert_close(log_probs.grad, -MASK.float())
    torch.testing.assert_close(values.grad, slope * MASK.float())


def test_nan_entropy_at_a_masked_step_reaches_neither_the_loss_nor_a_gradient():
    entropies = torch.tensor([[0.5, 0.25], [0.125, math.nan]], requires_grad=True)
    loss = entropy_loss(entropies, MaskedReduction(MASK, "mean"))
    loss.backward()
    assert loss.item() == pytest.approx(-(0.5 + 0.25 + 0.125) / 3)
    torch.testing.assert_close(entropies.grad, -MASK.float() / 3)
