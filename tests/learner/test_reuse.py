"""Passes over a batch and minibatches of it: which steps each loss is made of, and of which policy its ratios are."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from builders import make_batch
from gymnasium import spaces
from helpers import lively, make_network

from a3c import GAE, FullEpisode, L2Normalised, MLPActorCritic, NStep, Objective, Targets, VTrace
from a3c.learner.losses import MaskedReduction, clipped_surrogate_loss, policy_gradient_loss
from a3c.learner.reuse import Reuse

BOX, THREE = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)
LENGTH, COLUMNS = 6, 4


def batch_for(network, seed=0, length=LENGTH, columns=COLUMNS, lag=0.0):
    """A batch that the network itself acted in, or one whose log-probabilities differ by up to `lag`."""
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(length + 1, columns, 2, generator=generator)
    ends = torch.rand(length, columns, generator=generator) < 0.2
    mask = torch.cat((torch.ones(1, columns, dtype=torch.bool), ~ends[:-1]))
    ends &= mask
    batch = make_batch(
        torch.randn(length, columns, generator=generator),
        observations=observations,
        actions=torch.randint(3, (length, columns), generator=generator),
        mask=mask,
        terminated=ends,
    )
    state = network.initial_state(columns)
    if state is not None:
        batch = batch._replace(states=torch.zeros(length, *state.shape))
    with torch.no_grad():
        log_probs = network.judge_batch(batch)[0].log_prob(batch.actions)
    noise = lag * (2 * torch.rand(length, columns, generator=generator) - 1)
    return batch._replace(behaviour_log_probs=log_probs + noise)


def gradient_of(network, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)])


def run(reuse, objective, network, batch, seed=(1,), lr=0.0, observe=None):
    """Makes the steps of an update with plain gradient descent; gives them, and the gradient of each."""
    steps, gradients = [], []
    for step in reuse.gradient_steps(objective, network, batch, observe=observe, seed=seed):
        gradients.append(gradient_of(network, step.loss))
        steps.append(step)
        parameters = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
        torch.nn.utils.vector_to_parameters(parameters - lr * gradients[-1], network.parameters())
    return steps, gradients


class Watching:
    """An objective that keeps the steps of each loss."""

    def __init__(self, objective):
        self.objective, self.seen = objective, []

    def __getattr__(self, name):
        return getattr(self.objective, name)

    def loss(self, network, judged, steps, entropy_coefficient=None):
        self.seen.append(steps)
        return self.objective.loss(network, judged, steps, entropy_coefficient)


# ---------------------------------------------------------------- the clipped surrogate


def test_the_surrogate_by_hand():
    # A = 2 and −1, ε = 0.2. w = 1.5: 2·1.2; w = 1.1: 2·1.1; w = 0.5: 2·0.5, as the clip would only help;
    # A = −1: w = 1.5: −1.5, as the clip would only help; w = 0.5: −0.8. The mean of −(2.4 + 2.2 + 1 − 1.5 − 0.8)
    ratios = torch.tensor([[1.5], [1.1], [0.5], [1.5], [0.5]])
    advantages = torch.tensor([[2.0], [2.0], [2.0], [-1.0], [-1.0]])
    log_probs = (ratios.log() - 1.0).requires_grad_()
    reduce = MaskedReduction(torch.ones(5, 1, dtype=torch.bool), "mean")
    loss = clipped_surrogate_loss(log_probs, torch.full((5, 1), -1.0), advantages, 0.2, reduce)
    assert loss.item() == pytest.approx(-(2.4 + 2.2 + 1.0 - 1.5 - 0.8) / 5)
    loss.backward()  # −w·A, and 0 where the clip holds
    assert log_probs.grad.flatten().tolist() == pytest.approx([0, -2.2 / 5, -1.0 / 5, 1.5 / 5, 0])


def test_where_the_policy_acted_the_surrogates_gradient_is_the_policy_gradient():
    network = lively(make_network())
    batch = batch_for(network)
    _, plain = run(Reuse(), Objective(GAE(6)), network, batch)
    _, clipped = run(Reuse(), Objective(GAE(6), ratio_clip=0.2), network, batch)
    torch.testing.assert_close(clipped, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_masked_steps_give_the_surrogate_no_gradient(spoilt):
    log_probs = torch.tensor([[-1.0], [-2.0]], requires_grad=True)
    reduce = MaskedReduction(torch.tensor([[True], [False]]), "mean")
    behaviour = torch.tensor([[-1.0], [spoilt]])
    loss = clipped_surrogate_loss(log_probs, behaviour, torch.tensor([[3.0], [spoilt]]), 0.2, reduce)
    loss.backward()
    assert loss.item() == -3.0
    assert log_probs.grad.flatten().tolist() == [-3.0, 0.0]


def test_a_ratio_beyond_all_numbers_leaves_the_gradient_finite():
    log_probs = torch.tensor([[0.0], [0.0]], requires_grad=True)
    reduce = MaskedReduction(torch.ones(2, 1, dtype=torch.bool), "mean")
    clipped_surrogate_loss(log_probs, torch.full((2, 1), -200.0), torch.tensor([[1.0], [-1.0]]), 0.2, reduce).backward()
    assert log_probs.grad.isfinite().all()
    assert log_probs.grad.square().isfinite().all()


# ---------------------------------------------------------------- which steps


def test_one_pass_over_the_whole_batch_is_the_objective_itself():
    network = lively(make_network())
    batch = batch_for(network, lag=0.3)
    objective = Objective(VTrace(6), entropy_coefficient=0.1)
    loss, metrics = objective(network, batch)
    steps, gradients = run(Reuse(), objective, network, batch)
    assert [step.is_last for step in steps] == [True]
    assert torch.equal(steps[0].loss, loss)
    assert torch.equal(gradients[0], gradient_of(network, loss))
    assert list(Reuse().metrics(objective, steps)) == [metrics]


@pytest.mark.parametrize("memory", [None, "lstm"])
@pytest.mark.parametrize("returns", [GAE(LENGTH), FullEpisode()], ids=lambda r: type(r).__name__)
def test_the_minibatches_of_a_pass_are_the_batch_each_step_once(memory, returns):
    network = lively(MLPActorCritic(BOX, THREE, hidden_sizes=(8,), memory=memory, memory_size=4))
    batch = batch_for(network)
    objective = Watching(Objective(returns))
    run(Reuse(passes=3, minibatches=4), objective, network, batch)
    assert len(objective.seen) == 12
    orders = []
    for number in range(3):
        parts = objective.seen[4 * number : 4 * number + 4]
        rewards = [part.advantages[part.mask] for part in parts]
        _, estimation = objective.estimate(network, batch)
        everything = estimation.targets.advantages[batch.mask]
        torch.testing.assert_close(torch.cat(rewards).sort().values, everything.sort().values)
        orders.append(torch.cat(rewards).tolist())
        if memory or returns.needs_segments:  # whole columns
            assert {part.mask.shape for part in parts} == {(LENGTH, 1)}
        else:
            assert {part.mask.shape for part in parts} == {(1, LENGTH)}
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_is_that_of_the_seed():
    network = lively(make_network())
    batch, reuse = batch_for(network), Reuse(2, 4)
    losses = [[step.loss.item() for step in run(reuse, Objective(GAE(6)), network, batch, seed)[0]] for seed in
              [(1, 5), (1, 5), (1, 6), (2, 5)]]  # fmt: skip
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert losses[0] != losses[3]


@pytest.mark.parametrize("memory", [None, "gru"])
def test_sums_over_minibatches_have_together_the_gradient_of_the_whole_batch(memory):
    network = lively(MLPActorCritic(BOX, THREE, hidden_sizes=(8,), memory=memory, memory_size=4))
    batch = batch_for(network, lag=0.3)
    objective = Objective(
        GAE(LENGTH), entropy_coefficient=0.1, reduction="sum", ratio_clip=0.2, normalise_advantages=True
    )
    _, whole = run(Reuse(2), objective, network, batch)
    _, parts = run(Reuse(2, 4), objective, network, batch)
    torch.testing.assert_close(sum(parts[:4]), whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum(parts[4:]), whole[1], rtol=1e-4, atol=1e-5)


def test_minibatches_without_a_real_step_are_left_out_and_an_empty_batch_is_one_step():
    network = lively(make_network())
    batch = batch_for(network, columns=2, length=4)
    mask = torch.zeros(4, 2, dtype=torch.bool)
    mask[0, 0] = True
    steps, _ = run(Reuse(2, 4), Objective(GAE(4)), network, batch._replace(mask=mask))
    assert len(steps) == 2
    steps, gradients = run(Reuse(1, 4), Objective(GAE(4)), network, batch._replace(mask=mask & False))
    assert len(steps) == 1
    assert not gradients[0].any()


def test_a_steps_weight_stays_with_it():
    class Weighted(NStep):
        def __call__(self, batch, values, log_probs, discounts):
            targets = super().__call__(batch, values, log_probs, discounts)
            return targets._replace(weights=batch.rewards.square())

    network = lively(make_network())
    batch = batch_for(network)
    _, whole = run(Reuse(), Objective(Weighted(6), reduction="sum"), network, batch)
    _, parts = run(Reuse(1, 3), Objective(Weighted(6), reduction="sum"), network, batch)
    torch.testing.assert_close(sum(parts), whole[0], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- which targets and ratios


class Counting(GAE):
    """Counts its calls, and keeps the log-probabilities that it was shown."""

    def __init__(self, n_steps=LENGTH):
        super().__init__(n_steps)
        self.shown = []

    def __call__(self, batch, values, log_probs, discounts):
        self.shown.append((values.clone(), log_probs.detach().clone()))
        return super().__call__(batch, values, log_probs, discounts)


@pytest.mark.parametrize("minibatches", [1, 3])
@pytest.mark.parametrize("recompute", [False, True])
def test_targets_are_those_of_the_first_pass_or_anew_in_each(minibatches, recompute):
    network = lively(make_network())
    batch, returns = batch_for(network), Counting()
    objective = Watching(Objective(returns))
    run(Reuse(3, minibatches, recompute_targets=recompute), objective, network, batch, lr=0.05)
    assert len(returns.shown) == (3 if recompute else 1)
    sums = [sum(part.value_targets.sum() for part in objective.seen[at : at + minibatches])
            for at in range(0, 3 * minibatches, minibatches)]  # fmt: skip
    assert len({round(each.item(), 3) for each in sums}) == (3 if recompute else 1)


def test_vtrace_computes_its_ratios_anew_in_each_pass():
    network = lively(make_network())
    batch = batch_for(network)
    objective = Watching(Objective(VTrace(LENGTH)))
    run(Reuse(2, recompute_targets=True), objective, network, batch, lr=0.2)
    second = objective.seen[1]
    _, estimation = Objective(VTrace(LENGTH)).estimate(network, batch)  # after both
    assert not torch.allclose(objective.seen[0].advantages, second.advantages)
    network_before = lively(make_network())
    run(Reuse(), Objective(VTrace(LENGTH)), network_before, batch, lr=0.2)  # the first pass alone
    _, expected = Objective(VTrace(LENGTH)).estimate(network_before, batch)
    torch.testing.assert_close(second.advantages, expected.targets.advantages)
    assert not torch.allclose(estimation.targets.advantages, second.advantages)


def test_ratios_are_to_the_policy_that_acted_in_every_pass():
    network = lively(make_network())
    batch = batch_for(network, lag=0.5)
    steps, _ = run(Reuse(2), Objective(GAE(6), ratio_clip=0.2), network, batch, lr=0.0)
    first, second = Reuse(2).metrics(Objective(GAE(6), ratio_clip=0.2), steps)
    before, after = first["policy/kl_from_behaviour"].item(), second["policy/kl_from_behaviour"].item()
    assert before == after > 0.01  # nothing has moved but the policy that acted
    assert first["pass_1/largest_ratio"].item() == pytest.approx(
        (network.judge_batch(batch)[0].log_prob(batch.actions) - batch.behaviour_log_probs)[batch.mask]
        .max()
        .exp()
        .item()
    )


def test_the_surrogate_is_against_the_policy_that_acted_not_the_one_that_the_update_began_with():
    network = lively(make_network())
    batch = batch_for(network, lag=0.5)
    objective = Objective(GAE(6), ratio_clip=0.2)
    ours = network.judge_batch(batch)[0].log_prob(batch.actions).detach()
    ratios = (ours - batch.behaviour_log_probs).exp()[batch.mask]
    advantages = objective.estimate(network, batch)[1].targets.advantages[batch.mask]
    expected = -torch.minimum(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages).mean()
    for reuse in (Reuse(), Reuse(2)):
        for step in reuse.gradient_steps(objective, network, batch):
            assert step.trace.terms["loss/policy"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_of_ones_own_is_clipped_from_its_second_step_on():
    network = lively(make_network())
    batch = batch_for(network)
    steps, _ = run(Reuse(3), Objective(GAE(6), ratio_clip=0.01), network, batch, lr=0.5)
    passes = list(Reuse(3).metrics(Objective(GAE(6), ratio_clip=0.01), steps))
    fractions = [metrics[f"pass_{number}/clip_fraction"].item() for number, metrics in enumerate(passes, 1)]
    assert fractions[0] == 0 < fractions[1]
    assert passes[0]["pass_1/kl_from_behaviour"].item() == pytest.approx(0, abs=1e-6)


def test_each_pass_is_logged_by_itself():
    network, objective, reuse = lively(make_network()), Objective(GAE(6), ratio_clip=0.2), Reuse(2, 2)
    steps, _ = run(reuse, objective, network, batch_for(network))
    names = ("clip_fraction", "kl_from_behaviour", "largest_ratio", "smallest_ratio", "explained_variance")
    passes = list(reuse.metrics(objective, steps))
    assert len(passes) == 2
    for number, metrics in enumerate(passes, 1):
        own = {key for key in metrics if key.startswith("pass_")}
        assert own == {f"pass_{number}/{name}" for name in names}
    alone, _ = run(Reuse(), Objective(GAE(6)), network, batch_for(network))
    (metrics,) = Reuse().metrics(Objective(GAE(6)), alone)
    assert not any(key.startswith("pass_") for key in metrics)


@pytest.mark.parametrize("memory", [None, "lstm"])
def test_a_passs_metrics_are_those_of_the_batch_however_it_was_cut(memory):
    network = lively(MLPActorCritic(BOX, THREE, hidden_sizes=(8,), memory=memory, memory_size=4))
    batch, objective = batch_for(network, lag=0.3), Objective(GAE(6), ratio_clip=0.2)
    _, whole = objective(network, batch)
    reuse = Reuse(2, 4)
    steps, _ = run(reuse, objective, network, batch)  # which stays as it is
    for metrics in reuse.metrics(objective, steps):
        for key in whole.keys() - {"loss/total", "loss/policy", "loss/value", "loss/entropy"}:
            assert metrics[key].item() == pytest.approx(whole[key].item(), rel=1e-4, abs=1e-5), key
    (metrics, _) = reuse.metrics(objective, steps[:5])  # an update that ended in its second pass
    assert metrics["loss/value"].item() == pytest.approx(sum(s.trace.terms["loss/value"].item() for s in steps[:4]) / 4)


def test_explained_variance_is_1_of_a_critic_that_says_every_target_and_0_of_one_that_says_the_same():
    class Told(NStep):
        def __call__(self, batch, values, log_probs, discounts):
            return Targets(torch.zeros_like(batch.rewards), batch.rewards)

    network = lively(make_network())
    batch = batch_for(network)
    values = network.judge_batch(batch)[1][:-1].detach()
    for targets, explained in ((values, 1), (values + 3, 1), (-values, -1), (values * 0 + 2, 0)):
        _, metrics = Objective(Told(6))(network, batch._replace(rewards=targets))
        assert metrics["value/explained_variance"].item() == pytest.approx(explained, abs=1e-5)
    with torch.no_grad():
        network.critic_head.weight.zero_()
    _, metrics = Objective(Told(6))(network, batch)
    assert metrics["value/explained_variance"].item() == pytest.approx(0, abs=1e-5)


# ---------------------------------------------------------------- where an update ends


@pytest.mark.parametrize("recompute", [False, True])
def test_an_update_ends_before_a_step_that_is_too_far_from_where_it_began(recompute):
    start = lively(make_network())
    batch = batch_for(start, lag=1.0)  # far from the policy that acted, which does not matter
    first = start.judge_batch(batch)[0].log_prob(batch.actions).detach()

    def made(passes, target_kl=None):
        """The steps of an update, and how far they have gone."""
        network = copy.deepcopy(start)
        steps, _ = run(Reuse(passes, 1, target_kl, recompute), Objective(GAE(6)), network, batch, lr=0.3)
        ratios = (network.judge_batch(batch)[0].log_prob(batch.actions).detach() - first)[batch.mask]
        return steps, (ratios.expm1() - ratios).mean().item()

    distances = [made(passes)[1] for passes in (1, 2, 3, 4)]
    limit = (distances[1] + distances[2]) / 2
    assert distances[0] < distances[1] < limit < distances[2]
    steps, _ = made(8, limit)
    assert len(steps) == 3  # the third went too far, so there is no fourth
    assert not steps[-1].is_last
    assert len(made(8, 1e9)[0]) == 8


def test_the_first_step_is_made_however_small_the_limit_is():
    class Restless(MLPActorCritic):
        """Says something else each time, as a network with dropout does."""

        def forward(self, inputs):
            parameters, values = super().forward(inputs)
            return parameters + torch.randn_like(parameters), values

    network = lively(Restless(BOX, THREE, hidden_sizes=(8,)))
    batch = batch_for(network, lag=1.0)
    steps, _ = run(Reuse(4, 3, target_kl=1e-12), Objective(GAE(6)), network, batch, lr=0.3)
    assert len(steps) == 1


def test_a_policy_of_nan_is_left_to_the_guard_of_updates():
    network = lively(make_network())
    batch = batch_for(network)
    with torch.no_grad():
        network.actor_head.weight.fill_(torch.nan)
    steps = list(Reuse(2, 2, target_kl=0.1).gradient_steps(Objective(GAE(6)), network, batch))
    assert len(steps) == 4
    assert steps[0].loss.isnan()


# ---------------------------------------------------------------- what is shown, and bad input


def test_an_observer_is_shown_the_first_targets_once_with_their_graph():
    network = lively(make_network())
    shown = []
    run(Reuse(3, 2), Objective(GAE(6)), network, batch_for(network), lr=0.1, observe=shown.append)
    assert len(shown) == 1
    reduce = MaskedReduction(shown[0].batch.mask, "mean")
    assert shown[0].log_probs.requires_grad
    assert policy_gradient_loss(shown[0].log_probs, shown[0].targets.advantages, reduce).requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"passes": 0}, "passes: got 0, must be a whole number, at least 1"),
        ({"passes": 10**30}, f"passes: got {10**30} with minibatches 1, must be at most 10,000 gradient steps"),
        ({"passes": 200, "minibatches": 51}, "passes: got 200 with minibatches 51, must be at most 10,000"),
        ({"minibatches": 16384}, "minibatches: got 16384 with passes 1, must be at most 10,000"),
        ({"passes": "2"}, "passes: got '2', must be a whole number"),
        ({"passes": 2, "target_kl": "0.2"}, "target_kl: got '0.2', must be above 0 and finite, or null"),
        ({"passes": 2, "target_kl": True}, "target_kl: got True, must be above 0 and finite, or null"),
        ({"passes": 2, "target_kl": math.inf}, "target_kl: got inf, must be above 0 and finite, or null"),
        ({"passes": 2, "recompute_targets": "no"}, "recompute_targets: got 'no', must be true or false"),
        ({"passes": 1.5}, "passes: got 1.5, must be a whole number, at least 1"),
        ({"passes": True}, "passes: got True, must be a whole number, at least 1"),
        ({"minibatches": -2}, "minibatches: got -2, must be a whole number, at least 1"),
        ({"passes": 2, "target_kl": 0.0}, "target_kl: got 0.0, must be above 0 and finite, or null"),
        ({"passes": 2, "target_kl": math.nan}, "target_kl: got nan, must be above 0 and finite, or null"),
        ({"target_kl": 0.1}, "target_kl: got 0.1 with passes 1 and minibatches 1, must be null there"),
    ],
)
def test_what_is_out_of_range_or_changes_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        Reuse(**arguments)
    assert "\n" not in str(error.value)


def test_whole_numbers_of_numpy_are_kept_as_pythons():
    assert type(Reuse(np.int64(2)).passes) is int


@pytest.mark.parametrize("clip", [0, -0.1, math.nan, math.inf, True, "0.2", [0.2]])
def test_a_clip_out_of_range_is_refused(clip):
    with pytest.raises(
        ValueError, match=rf"^ratio_clip: got {re.escape(repr(clip))}, must be above 0 and finite, or null$"
    ):
        Objective(GAE(), ratio_clip=clip)


def test_a_clip_over_advantages_that_carry_ratios_is_refused():
    with pytest.raises(ValueError, match=r"^ratio_clip: got 0.2 with VTrace, must be null there: its advantages are"):
        Objective(VTrace(), ratio_clip=0.2)


@pytest.mark.parametrize(
    ("reuse", "returns", "memory", "message"),
    [
        (Reuse(2), L2Normalised(FullEpisode()), False, "passes: got 2 with L2Normalised, must be 1 there: its targets"),
        (Reuse(1, 2), L2Normalised(NStep()), False, "minibatches: got 2 with L2Normalised, must be 1 there"),
        (Reuse(1, 7), NStep(8), False, "minibatches: got 7, must divide .* × rollouts_per_update × n_steps = 64"),
        (Reuse(1, 16), NStep(8), True, "minibatches: got 16, must divide .* × rollouts_per_update = 8"),
        (Reuse(1, 16), FullEpisode(), False, "minibatches: got 16, must divide .* × rollouts_per_update = 8"),
        (Reuse(1, 3), NStep(8, True), False, "minibatches: got 3, must divide .* × rollouts_per_update = 8"),
    ],
)  # fmt: skip
def test_what_the_batches_of_a_run_do_not_allow_is_refused(reuse, returns, memory, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        reuse.check(returns, 8, memory)
    Reuse(1, 1).check(returns, 8, memory)
    if returns.reusable:
        Reuse(3, 8).check(returns, 8, memory)
