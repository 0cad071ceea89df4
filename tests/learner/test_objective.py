"""The objective: the book's update number by number, coefficients, metrics, and masked steps."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import TableNetwork, make_batch
from gymnasium import spaces
from torch import Tensor, nn

from a3c.batch import RolloutBatch, join_columns
from a3c.learner.losses import MaskedReduction, policy_gradient_loss, value_loss
from a3c.learner.objective import Objective
from a3c.networks import BookActorCritic, Categorical, MLPActorCritic
from a3c.returns import GAE, FullEpisode, L2Normalised, NStep, Targets, VTrace, discounted_sum

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "book_update.json").read_text())
CARTPOLE = spaces.Box(-np.inf, np.inf, (4,)), spaces.Discrete(2)
ESTIMATORS = [FullEpisode(), NStep(2), GAE(9, 0.7), VTrace(9), L2Normalised(FullEpisode())]
BY_NAME = {"ids": lambda estimator: type(estimator).__name__}


# The book's update (programs 5.7 to 5.9), recorded from the book's own arithmetic


class BootstrappedBookActorCritic(BookActorCritic):
    """The book's network, told from outside what the state after the last step is worth."""

    bootstrap_value = 0.0

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        logits, values = super().forward(observations)
        return logits, torch.cat((values[:-1], torch.full_like(values[-1:], self.bootstrap_value)))


def golden_network(case: dict) -> BootstrappedBookActorCritic:
    network = BootstrappedBookActorCritic(*CARTPOLE)
    network.load_state_dict({name: torch.tensor(weight) for name, weight in case["weights"].items()})
    network.bootstrap_value = case["bootstrap_value"]
    return network


def golden_batch(case: dict, terminated: bool) -> RolloutBatch:
    states = torch.tensor(case["states"])
    observations = torch.cat((states, states[-1:] + 0.1)).unsqueeze(1)
    ends = [0] * (len(states) - 1) + [int(terminated)]
    return make_batch(case["rewards"], actions=case["actions"], observations=observations, terminated=ends)


def assert_gradients(network: nn.Module, case: dict) -> None:
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert gradients.keys() == case["gradients"].keys()
    for name, expected in case["gradients"].items():
        torch.testing.assert_close(gradients[name], torch.tensor(expected), rtol=1e-5, atol=1e-5, msg=name)
    assert all(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("name", "estimator", "terminated"),
    [("full_episode_12_steps", FullEpisode(), True), ("n_step_8_steps_bootstrapped", NStep(8), False)],
)
def test_the_objective_gives_the_books_losses_and_gradients(name, estimator, terminated):
    case = GOLDEN[name]
    network = golden_network(case)
    objective = Objective(
        L2Normalised(estimator), case["gamma"], value_coefficient=case["critic_coefficient"], reduction="sum"
    )
    loss, metrics = objective(network, golden_batch(case, terminated))
    loss.backward()
    assert metrics["loss/policy"].item() == pytest.approx(case["actor_loss_sum"], abs=1e-5)
    assert metrics["loss/value"].item() == pytest.approx(case["critic_loss_sum"], abs=1e-5)
    assert metrics["loss/total"].item() == pytest.approx(case["total_loss"], abs=1e-5)
    assert loss.item() == pytest.approx(case["total_loss"], abs=1e-5)
    assert_gradients(network, case)


@pytest.mark.parametrize("name", GOLDEN)
def test_returns_and_losses_put_together_by_hand_give_the_books_update(name):
    case = GOLDEN[name]
    network = golden_network(case)
    logits, values = BookActorCritic.forward(network, torch.tensor(case["states"]).unsqueeze(1))
    log_probs = Categorical(logits).log_prob(torch.tensor(case["actions"]).unsqueeze(1))
    rewards = torch.tensor(case["rewards"]).float().unsqueeze(1)
    returns = discounted_sum(rewards, torch.full_like(rewards, case["gamma"]), torch.tensor([case["bootstrap_value"]]))
    targets = returns / returns.norm()
    for given, key in [(values, "values"), (log_probs, "log_probs")]:
        torch.testing.assert_close(given[:, 0], torch.tensor(case[key]), rtol=1e-5, atol=1e-5)
    for given, key in [(returns, "returns_raw"), (targets, "returns_normalised")]:
        torch.testing.assert_close(given[:, 0], torch.tensor(case[key]), rtol=1e-5, atol=1e-5)

    reduce = MaskedReduction(torch.ones_like(rewards, dtype=torch.bool), "sum")
    policy_term = policy_gradient_loss(log_probs, targets - values, reduce)
    value_term = value_loss(values, targets, reduce)
    (policy_term + case["critic_coefficient"] * value_term).backward()
    assert policy_term.item() == pytest.approx(case["actor_loss_sum"], abs=1e-5)
    assert value_term.item() == pytest.approx(case["critic_loss_sum"], abs=1e-5)
    assert_gradients(network, case)


# The sum of its terms, on logits and values that are parameters themselves


def table(length: int, columns: int, actions: int = 3) -> TableNetwork:
    generator = torch.Generator().manual_seed(length * 10 + columns)
    logits = torch.randn(length + 1, columns, actions, generator=generator)
    return TableNetwork(logits, torch.randn(length + 1, columns, generator=generator))


def test_the_loss_is_the_weighted_sum_of_its_unweighted_terms():
    network, batch = table(3, 2), make_batch([[1.0, 2.0]] * 3)
    loss, metrics = Objective(NStep(3), value_coefficient=0.3, entropy_coefficient=0.2)(network, batch)
    terms = {key: metrics[f"loss/{key}"].item() for key in ("policy", "value", "entropy")}
    assert all(terms.values())
    assert loss.item() == pytest.approx(terms["policy"] + 0.3 * terms["value"] + 0.2 * terms["entropy"], rel=1e-5)
    assert metrics["loss/total"].item() == loss.item()


def test_the_objective_of_one_step_is_the_hand_computed_one():
    # r = 1, γ = ½, V = 2, V' = 4: G = 1 + ½·4 = 3, A = 3 − 2 = 1. Even odds: −log ½·1 + 0.1·1² − 0.01·log 2.
    network = TableNetwork(torch.zeros(2, 1, 2), torch.tensor([[2.0], [4.0]]))
    objective = Objective(NStep(1), discount=0.5, value_coefficient=0.1, entropy_coefficient=0.01)
    loss, metrics = objective(network, make_batch([1.0]))
    assert loss.item() == pytest.approx(math.log(2) + 0.1 - 0.01 * math.log(2))
    assert metrics["policy/entropy"].item() == pytest.approx(math.log(2))
    assert metrics["loss/entropy"].item() == pytest.approx(-math.log(2))
    assert metrics["value/mean"].item() == 2
    assert metrics["value/target_mean"].item() == 3
    assert metrics["advantage/mean"].item() == 1
    loss.backward()
    assert network.values.grad.tolist() == [[pytest.approx(0.1 * 2 * (2 - 3))], [0]]  # none for V'


def test_a_terminated_step_ignores_the_critic_and_a_truncated_one_asks_it():
    values = torch.tensor([[2.0, 2.0], [4.0, 4.0]])
    batch = make_batch([[1.0, 1.0]], terminated=[[1, 0]], truncated=[[0, 1]])
    _, metrics = Objective(FullEpisode(), discount=0.5)(TableNetwork(torch.zeros(2, 2, 2), values), batch)
    assert metrics["value/target_mean"].item() == pytest.approx((1 + (1 + 0.5 * 4)) / 2)


@pytest.mark.parametrize(("discount", "target"), [(0.0, 1), (1.0, 1 + 4)])
def test_the_discounts_0_and_1_are_allowed_and_mean_what_they_say(discount, target):
    network = TableNetwork(torch.zeros(2, 1, 2), torch.tensor([[2.0], [4.0]]))
    _, metrics = Objective(NStep(1), discount=discount)(network, make_batch([1.0]))
    assert metrics["value/target_mean"].item() == target


def test_normalised_advantages_have_mean_0_and_deviation_1_over_real_steps_in_the_policy_loss_alone():
    # V = 0, γ = 0: A = G = r, of which 1, 3, 5 are real: mean 3, deviation √(8/3); even odds of two.
    batch = make_batch([1.0, 3.0, 5.0, 99.0], mask=[1, 1, 1, 0])
    logits = torch.tensor([[[0.0, 2.0]], [[0.0, 0.0]], [[0.0, -1.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
    log_probs = logits.log_softmax(-1)[:3, 0, 0]
    expected = -(log_probs * torch.tensor([-1.0, 0.0, 1.0]) * (2 / (8 / 3) ** 0.5)).mean()
    network = TableNetwork(logits, torch.zeros(5, 1))
    _, normalised = Objective(NStep(4), discount=0.0, normalise_advantages=True)(network, batch)
    _, plain = Objective(NStep(4), discount=0.0)(network, batch)
    assert normalised["loss/policy"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert plain["loss/policy"].item() == pytest.approx(-(log_probs * torch.tensor([1.0, 3.0, 5.0])).mean().item())
    for name in ("loss/value", "advantage/mean", "value/target_mean"):
        assert normalised[name] == plain[name]


def test_what_observes_is_shown_advantages_that_are_not_normalised():
    shown = []
    network = TableNetwork(torch.zeros(3, 1, 2), torch.zeros(3, 1))
    Objective(NStep(2), discount=0.0, normalise_advantages=True)(network, make_batch([1.0, 5.0]), observe=shown.append)
    assert shown[0].targets.advantages[:, 0].tolist() == [1, 5]


@pytest.mark.parametrize("rewards", [[0.1], [0.1] * 7, [1e6] * 3])
def test_advantages_that_are_all_alike_are_0_when_normalised(rewards):
    network = TableNetwork(torch.zeros(len(rewards) + 1, 1, 2), torch.zeros(len(rewards) + 1, 1))
    objective = Objective(NStep(9), discount=0.0, normalise_advantages=True)
    loss, metrics = objective(network, make_batch(rewards))
    assert metrics["loss/policy"].item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert network.logits.grad.abs().max() < 1e-6


def test_normalised_advantages_of_no_real_step_give_no_loss():
    network = TableNetwork(torch.zeros(2, 1, 2), torch.zeros(2, 1))
    loss, _ = Objective(NStep(1), normalise_advantages=True)(network, make_batch([1.0], mask=[0]))
    assert loss.item() == 0


@pytest.mark.parametrize(("value_loss", "expected"), [("squared_error", 0.25), ("huber", 0.125)])
def test_the_value_loss_counts_errors_in_the_networks_own_unit(value_loss, expected):
    # r = 1, γ = ½, V = 2, V' = 4: G = 3, and the error of 1 is ½ in a unit of 2.
    network = TableNetwork(torch.zeros(2, 1, 2), torch.tensor([[2.0], [4.0]]))
    network.value_unit = torch.tensor(2.0, dtype=torch.float64)
    loss, metrics = Objective(NStep(1), discount=0.5, value_loss=value_loss)(network, make_batch([1.0]))
    assert metrics["loss/value"].item() == expected
    assert metrics["value/mean"].item() == 2
    assert metrics["value/target_mean"].item() == 3
    assert loss.dtype == torch.float32


def test_huber_value_loss_is_used_with_its_delta():
    # e = 0 − 5 and δ = 2: 2·(5 − 1)
    network = TableNetwork(torch.zeros(2, 1, 2), torch.zeros(2, 1))
    _, metrics = Objective(NStep(1), value_loss="huber", huber_delta=2.0)(network, make_batch([5.0]))
    assert metrics["loss/value"].item() == 2 * (5 - 1)


def test_without_a_coefficient_the_entropy_is_a_metric_and_no_gradient():
    # No reward and a critic that says 0: advantages are 0, so nothing but entropy could move a logit.
    logits = torch.tensor([[[1.0, -1.0]], [[0.0, 0.0]]])
    batch = make_batch([0.0])
    entropy = torch.distributions.Categorical(logits=logits[0, 0]).entropy().item()
    for coefficient in (0.0, 0.01):
        network = TableNetwork(logits.clone(), torch.zeros(2, 1))
        loss, metrics = Objective(NStep(1), entropy_coefficient=coefficient)(network, batch)
        loss.backward()
        assert bool(network.logits.grad.any()) == (coefficient > 0)
        assert metrics["policy/entropy"].item() == pytest.approx(entropy)
        assert metrics["loss/entropy"].item() == pytest.approx(-entropy)


def test_the_entropy_bonus_has_the_analytic_gradient():
    # ∂H/∂zⱼ = −pⱼ·(log pⱼ + H), and the loss holds −0.5·H.
    logits = torch.tensor([[[1.0, -1.0, 0.2]], [[0.0, 0.0, 0.0]]])
    network = TableNetwork(logits.clone(), torch.zeros(2, 1))
    Objective(NStep(1), entropy_coefficient=0.5)(network, make_batch([0.0]))[0].backward()
    p = logits[0, 0].softmax(-1)
    entropy = -(p * p.log()).sum()
    torch.testing.assert_close(network.logits.grad[0, 0], 0.5 * p * (p.log() + entropy))


def test_metrics_are_detached_scalars():
    _, metrics = Objective(GAE(3), entropy_coefficient=0.1)(table(3, 2), make_batch([[1.0, 2.0]] * 3))
    assert {value.shape for value in metrics.values()} == {torch.Size()}
    assert not any(value.requires_grad for value in metrics.values())


def test_a_summed_loss_still_reports_means():
    network, batch = table(3, 2), make_batch([[1.0, 2.0]] * 3, mask=[[1, 1], [1, 1], [1, 0]])
    (_, means), (_, sums) = (Objective(NStep(3), reduction=how)(network, batch) for how in ("mean", "sum"))
    for key in ("policy/entropy", "value/mean", "value/target_mean", "advantage/mean"):
        assert sums[key] == means[key]
    for key in ("loss/policy", "loss/value", "loss/entropy", "loss/total"):
        assert sums[key].item() == pytest.approx(5 * means[key].item())  # 5 real steps


def test_the_objective_works_without_gradients():
    with torch.no_grad():
        loss, _ = Objective(NStep(3), entropy_coefficient=0.1)(table(3, 1), make_batch([1.0] * 3))
    assert not loss.requires_grad


# Masked steps


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("estimator", ESTIMATORS, **BY_NAME)
def test_padded_columns_have_the_loss_and_the_gradient_that_they_have_alone(estimator, reduction):
    torch.manual_seed(5)
    network = MLPActorCritic(*CARTPOLE, hidden_sizes=(8,))
    objective = Objective(estimator, 0.9, entropy_coefficient=0.1, reduction=reduction)
    batches = [
        make_batch(
            torch.randn(length, 1),
            observations=torch.randn(length + 1, 1, 4),
            actions=torch.randint(2, (length, 1)),
            behaviour_log_probs=-torch.rand(length, 1),
            truncated=[0] * (length - 1) + [1],
        )
        for length in (2, 5)
    ]

    def loss_and_gradient(batch: RolloutBatch) -> tuple[Tensor, list[Tensor]]:
        loss, _ = objective(network, batch)
        return loss.detach(), list(torch.autograd.grad(loss, list(network.parameters())))

    joined = loss_and_gradient(join_columns(batches))
    short, long = (loss_and_gradient(batch) for batch in batches)
    weights = (1, 1) if reduction == "sum" else (2 / 7, 5 / 7)  # of 7 real steps
    torch.testing.assert_close(joined[0], weights[0] * short[0] + weights[1] * long[0])
    for gradient, short_gradient, long_gradient in zip(joined[1], short[1], long[1], strict=True):
        torch.testing.assert_close(gradient, weights[0] * short_gradient + weights[1] * long_gradient)


@pytest.mark.parametrize("estimator", ESTIMATORS, **BY_NAME)
def test_what_stands_at_masked_steps_changes_neither_loss_nor_metrics_nor_gradients(estimator):
    mask = torch.tensor([[1, 0], [0, 1], [1, 1], [1, 0], [1, 0]]).bool()
    ends = torch.tensor([[1, 0], [0, 0], [0, 1], [0, 0], [0, 0]]).bool()
    plain = make_batch(torch.ones(5, 2), terminated=ends, mask=mask)
    spoilt = plain.copy()
    spoilt.rewards[~mask] = 1e20
    spoilt.actions[~mask] = 2
    spoilt.behaviour_log_probs[~mask] = -9.0
    objective = Objective(estimator, entropy_coefficient=0.1)
    results = []
    for batch in (plain, spoilt):
        network = table(5, 2)
        if batch is spoilt:
            with torch.no_grad():
                network.values[4:, 1] = 1e20  # padding: no real step led to these
                network.logits[:-1][~mask] = torch.tensor([7.0, 0.0, -7.0])
        loss, metrics = objective(network, batch)
        loss.backward()
        results.append((metrics, network.logits.grad, network.values.grad))
    (metrics, logits_grad, values_grad), (spoilt_metrics, spoilt_logits_grad, spoilt_values_grad) = results
    assert metrics == spoilt_metrics
    assert torch.equal(logits_grad, spoilt_logits_grad)
    assert torch.equal(values_grad, spoilt_values_grad)
    assert not logits_grad[:-1][~mask].any()


def test_a_batch_without_a_real_step_gives_loss_0_and_no_gradient():
    network = table(3, 1)
    loss, metrics = Objective(NStep(3), entropy_coefficient=0.1)(network, make_batch([1.0] * 3, mask=[0, 0, 0]))
    loss.backward()
    assert loss.item() == 0
    assert all(value == 0 for value in metrics.values())
    assert not network.logits.grad.any()


# What is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("discount", -0.01),
        ("discount", 1.01),
        ("discount", math.nan),
        ("value_coefficient", -1.0),
        ("value_coefficient", math.nan),
        ("value_coefficient", math.inf),
        ("entropy_coefficient", -0.1),
        ("entropy_coefficient", math.nan),
        ("entropy_coefficient", math.inf),
        ("value_loss", "absolute"),
        ("huber_delta", 0.0),
        ("huber_delta", math.nan),
        ("reduction", "median"),
    ],
)
def test_a_field_out_of_range_raises_with_its_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: got "):
        Objective(NStep(1), **{name: value})


def test_coefficients_of_0_leave_the_policy_term_alone():
    network = table(2, 1)
    loss, metrics = Objective(NStep(2), value_coefficient=0.0, entropy_coefficient=0.0)(network, make_batch([1.0, 2.0]))
    loss.backward()
    assert loss.item() == metrics["loss/policy"].item()
    assert not network.values.grad.any()


def test_rewards_are_scaled_before_returns_are_estimated():
    network = TableNetwork(torch.zeros(2, 1, 2), torch.tensor([[2.0], [4.0]]))
    _, metrics = Objective(NStep(1), discount=0.5, reward_scale=0.1)(network, make_batch([10.0]))
    assert metrics["value/target_mean"].item() == pytest.approx(0.1 * 10 + 0.5 * 4)


def test_targets_of_another_shape_are_refused_instead_of_broadcast():
    class Flat(NStep):
        def __call__(self, *args):
            advantages, targets, _ = super().__call__(*args)
            return Targets(advantages[0], targets)

    network = TableNetwork(torch.zeros(3, 1, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"Flat gives advantages \(1,\), must be \[T, B\] = \(2, 1\)"):
        Objective(Flat(2))(network, make_batch([1.0, 1.0]))


# Weights of steps


class Weighted(NStep):
    """NStep(1) whose steps count as told, with a gradient that nobody may follow."""

    def __init__(self, weights):
        super().__init__(1)
        self.weights = torch.tensor(weights).reshape(-1, 1).requires_grad_()

    def __call__(self, *args):
        return super().__call__(*args)._replace(weights=self.weights)


def weighted_loss(weights, mask=(1, 1, 1), reduction="mean"):
    """Compute loss, logits' gradient and metrics of steps that count as told; None: as they are."""
    network = TableNetwork(torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]]), torch.ones(4, 1))
    estimator = NStep(1) if weights is None else Weighted(weights)
    objective = Objective(estimator, 0.5, 0.7, 0.1, reduction=reduction)
    loss, metrics = objective(network, make_batch([1.0, 5.0, 2.0], mask=mask))
    loss.backward()
    return loss.item(), network.logits.grad, metrics


def test_a_weight_is_a_factor_on_all_three_terms_of_its_step_and_a_mean_still_divides_by_the_steps():
    alone = [weighted_loss(None, [float(step == k) for step in range(3)], "sum")[0] for k in range(3)]
    loss, _, metrics = weighted_loss([2.0, 0.0, 0.5])
    assert loss == pytest.approx((2 * alone[0] + 0.5 * alone[2]) / 3)
    plain = weighted_loss(None)[2]
    for name in ("policy/entropy", "value/target_mean", "advantage/mean", "policy/kl_from_behaviour"):
        assert metrics[name] == plain[name]  # what is only looked at is of all steps alike


def test_weights_of_1_change_nothing_and_those_of_masked_steps_count_nowhere():
    loss, gradient, _ = weighted_loss(None, mask=(1, 0, 1))
    other, other_gradient, _ = weighted_loss([1.0, math.nan, 1.0], mask=(1, 0, 1))
    assert other == loss
    assert torch.equal(other_gradient, gradient)


def test_no_gradient_goes_through_weights():
    estimator = Weighted([2.0, 1.0, 0.5])
    network = TableNetwork(torch.randn(4, 1, 2), torch.ones(4, 1))
    Objective(estimator, 0.5)(network, make_batch([1.0, 5.0, 2.0]))[0].backward()
    assert estimator.weights.grad is None


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"Weighted gives weights \(3, 1\), must be \[T, B\] = \(2, 1\)"):
        Objective(Weighted([1.0, 1.0, 1.0]))(table(2, 1), make_batch([1.0, 1.0]))
