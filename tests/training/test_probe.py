"""The estimator probe: measures by hand, names, and a training that does not notice it."""

import math
import random

import numpy as np
import pytest
import torch
from builders import TableNetwork, make_batch
from helpers import COUNTDOWN, fit, make_network
from torch.optim import SGD

from a3c import A3C, GAE, EstimatorProbe, FullEpisode, L2Normalised, MLPActorCritic, NStep, ProbePlan, Targets, VTrace
from a3c.envs.random_states import global_states
from a3c.learner.objective import Objective
from a3c.returns import ReturnEstimator
from a3c.training.probe.measures import ask_all, compare, correlation, default_estimators, named
from a3c.training.probe.plan import joined
from a3c.training.probe.realised_returns import RealisedReturns, Resolved


class Opposite(ReturnEstimator):
    """The opposite advantages of full episodes."""

    def __call__(self, batch, values, log_probs, discounts):
        advantages, value_targets, _ = FullEpisode()(batch, values, log_probs, discounts)
        return Targets(-advantages, value_targets)


class Forgetful(ReturnEstimator):
    """Keeps no attribute of its argument."""

    def __init__(self, bonus=0.5):
        self.horizon = 8

    def __call__(self, batch, values, log_probs, discounts):
        return FullEpisode()(batch, values, log_probs, discounts)


class Constant(ReturnEstimator):
    def __call__(self, batch, values, log_probs, discounts):
        return Targets(torch.full_like(batch.rewards, 0.1), torch.zeros_like(batch.rewards))


class Drawing(ReturnEstimator):
    """Draws from the process's own generators, as no estimator should."""

    def __init__(self):
        self.horizon = 8

    def __call__(self, batch, values, log_probs, discounts):
        advantages = torch.randn_like(batch.rewards) + random.random() + np.random.random()
        return Targets(advantages, batch.rewards)


def chain(*others, trained=None, reward_scale=1.0, rewards=(1, 2, 3), mask=None):
    """A chain of 3 steps with rewards 1, 2, 3, γ = ½ and V = 0.5, 1, 2; both actions equally probable."""
    batch = make_batch(rewards, terminated=[0, 0, 1], mask=mask)
    network = TableNetwork(torch.zeros(4, 1, 2), torch.tensor([[0.5], [1.0], [2.0], [9.0]]))
    trained = trained or FullEpisode()
    estimators = {type(each).__name__: each for each in (trained, *others)}
    seen = []

    def observe(estimation):
        targets = ask_all(estimation, type(trained).__name__, estimators)
        seen.append((compare(estimation, targets, network), targets, estimation))

    objective = Objective(trained, discount=0.5, reward_scale=reward_scale)
    loss, _ = objective(network, batch, observe=observe)
    (result,) = seen
    return (*result, network, loss)


# ---------------------------------------------------------------- measures


def test_measures_of_a_chain_are_those_computed_by_hand():
    numbers, targets, *_ = chain(NStep(1))
    # One step: 1 + 1/2, 2 + 2/2, 3. Full: 3, then 2 + 3/2, then 1 + 3.5/2.
    assert targets["NStep"].value_targets.flatten().tolist() == [1.5, 3, 3]
    assert targets["FullEpisode"].value_targets.flatten().tolist() == [2.75, 3.5, 3]
    # Advantages 1, 2, 1 and 2.25, 2.5, 1.
    one = numbers["NStep"]
    assert one["target_variance"] == pytest.approx((1 + 0.25 + 0.25) / 3)
    mean = 5.75 / 3
    deviations = [2.25 - mean, 2.5 - mean, 1 - mean]
    product = deviations[0] * (1 - 4 / 3) + deviations[1] * (2 - 4 / 3) + deviations[2] * (1 - 4 / 3)
    norms = math.sqrt(sum(each**2 for each in deviations) * 6 / 9)
    assert one["advantage_correlation"] == pytest.approx(product / norms)
    assert one["sign_agreement"] == 1
    # Logits are a table: the gradient of step t is −Aₜ·(½, −½)/3, so the cosine is that of the advantages.
    dot = 2.25 * 1 + 2.5 * 2 + 1 * 1
    assert one["gradient_cosine"] == pytest.approx(dot / math.sqrt((2.25**2 + 2.5**2 + 1) * 6))


def test_identical_and_opposite_advantages_are_the_two_ends_of_every_measure():
    numbers, *_ = chain(Opposite())
    same, opposite = numbers["FullEpisode"], numbers["Opposite"]
    names = ("advantage_correlation", "sign_agreement", "gradient_cosine")
    assert [same[name] for name in names] == pytest.approx([1, 1, 1])
    assert [opposite[name] for name in names] == pytest.approx([-1, 0, -1])
    assert opposite["target_variance"] == same["target_variance"]


def test_masked_steps_count_in_no_measure():
    numbers, *_ = chain(NStep(1))
    batch = make_batch([1, 2, 3, math.nan], terminated=[0, 0, 1, 0], mask=[1, 1, 1, 0])
    network = TableNetwork(torch.zeros(5, 1, 2), torch.tensor([[0.5], [1.0], [2.0], [9.0], [9.0]]))
    seen = []

    def observe(estimation):
        targets = ask_all(estimation, "FullEpisode", {"FullEpisode": FullEpisode(), "NStep": NStep(1)})
        seen.append(compare(estimation, targets, network))

    Objective(FullEpisode(), discount=0.5)(network, batch, observe=observe)
    for label, measures in seen[0].items():
        assert measures == pytest.approx(numbers[label])


def test_targets_are_in_the_units_of_training():
    scaled, targets, *_ = chain(NStep(1), reward_scale=0.1)
    assert targets["NStep"].value_targets.flatten().tolist() == pytest.approx([0.1 + 0.5, 0.2 + 1, 0.3])
    assert scaled["NStep"]["target_variance"] == pytest.approx(((0.6 - 0.7) ** 2 + 0.5**2 + 0.4**2) / 3)


def test_what_is_not_defined_is_nan():
    numbers, *_ = chain(Constant())
    assert math.isnan(numbers["Constant"]["advantage_correlation"])
    assert numbers["Constant"]["target_variance"] == 0
    thirds = torch.full((7,), 0.1, dtype=torch.float64)  # whose mean is not exactly 0.1
    assert math.isnan(correlation(thirds, torch.arange(7.0).double()))


def test_the_probe_leaves_no_gradient_and_the_loss_can_still_be_derived():
    *_, network, loss = chain(NStep(1), Opposite())
    assert network.logits.grad is None
    assert network.values.grad is None
    loss.backward()
    # −Aₜ·(½, −½)/3, with the advantages of the one that trains
    assert network.logits.grad[:3, 0, 0].tolist() == pytest.approx([-2.25 / 6, -2.5 / 6, -1 / 6])


class Doubting(NStep):
    """Lets the first step alone count."""

    def __call__(self, *args):
        targets = super().__call__(*args)
        return targets._replace(weights=torch.zeros_like(targets.advantages).index_fill(0, torch.tensor(0), 1.0))


def test_a_gradient_is_measured_with_the_weights_of_its_steps():
    plain, *_ = chain(NStep(1))
    weighted, *_ = chain(Doubting(1))
    # (½, −½) of the first step alone, against −2.25, −2.5 and −1 of all three
    assert weighted["Doubting"]["gradient_cosine"] == pytest.approx(2.25 / math.hypot(2.25, 2.5, 1))
    assert plain["NStep"]["gradient_cosine"] != pytest.approx(weighted["Doubting"]["gradient_cosine"])


def test_an_estimator_that_draws_leaves_every_generator_of_the_process_as_it_was():
    before = global_states()
    chain(Drawing())
    after = global_states()
    assert torch.equal(before.pop("torch"), after.pop("torch"))
    assert before == after


def test_an_estimator_with_targets_of_another_shape_is_refused():
    class Flat(ReturnEstimator):
        def __call__(self, batch, values, log_probs, discounts):
            return Targets(batch.rewards[0], batch.rewards)

    with pytest.raises(ValueError, match=r"Flat gives advantages \(1,\), must be \[T, B\] = \(3, 1\)"):
        chain(Flat())


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("trained", "labels"),
    [
        (NStep(), ["NStep", "NStep:n_steps=1", "GAE", "VTrace"]),
        (
            GAE(8, 0.9),
            ["GAE:n_steps=8,lambda_=0.9", "NStep:n_steps=1", "NStep:n_steps=8", "GAE:n_steps=8", "VTrace:n_steps=8"],
        ),
        (NStep(1), ["NStep:n_steps=1", "GAE:n_steps=1", "VTrace:n_steps=1"]),
        (FullEpisode(), ["FullEpisode", "NStep:n_steps=1", "NStep", "GAE@episode", "VTrace@episode"]),
    ],
    ids=["NStep", "GAE", "one step", "FullEpisode"],
)
def test_the_usual_estimators_are_named_for_what_they_are_on_the_rollouts(trained, labels):
    assert list(named(default_estimators(trained), trained)) == labels


def test_an_estimator_that_is_something_else_on_these_rollouts_says_so():
    wanted = [FullEpisode(), NStep(4), NStep(16), GAE(), L2Normalised(NStep(1)), NStep(8)]
    assert list(named(wanted, NStep(8))) == [
        *("NStep:n_steps=8", "FullEpisode@8", "NStep:n_steps=4", "NStep:n_steps=16@8", "GAE@8"),
        "L2Normalised:estimator=(NStep:n_steps=1)@8",
    ]


def test_labels_that_a_list_split_are_joined_again():
    parts = ["GAE:n_steps=8", " lambda_=0.9", "NStep", "L2Normalised:estimator=(GAE:n_steps=8", "lambda_=0.9)"]
    joined_ = ["GAE:n_steps=8,lambda_=0.9", "NStep", "L2Normalised:estimator=(GAE:n_steps=8,lambda_=0.9)"]
    assert joined(parts) == joined_
    for given in (parts, ",".join(parts)):
        first, second, third = ProbePlan(estimators=given).parsed()
        assert (first.lambda_, second.n_steps, third.estimator.lambda_) == (0.9, 32, 0.9)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"every_updates": 0}, r"^every_updates: got 0, must be at least 1$"),
        ({"estimators": []}, r"^estimators: got \[\], must be one label or more"),
        ({"estimators": ["GEA"]}, r"^estimators: 'GEA': got estimator 'GEA', must be one of .*; nearest: GAE$"),
        ({"estimators": "NStep,GAE:n_steps=0"}, r"^estimators: 'GAE:n_steps=0': n_steps: got 0, must be at least 1$"),
        (
            {"estimators": "NStep:n_steps=2.5"},
            r"^estimators: .*: n_steps: got 2.5, must be a whole number, at least 1$",
        ),
        ({"estimators": "test_probe.Forgetful"}, r"^estimators: Forgetful keeps no attribute 'bonus': .*loaded again$"),
    ],
)
def test_a_plan_that_cannot_be_used_gets_one_line(plan, words):
    with pytest.raises(ValueError, match=words):
        ProbePlan(**plan)


# ---------------------------------------------------------------- in a fit


class Unsteady(MLPActorCritic):
    """Has buffers that every forward pass changes, and draws in each."""

    def __init__(self, observation_space, action_space, hidden_sizes=(16,)):
        super().__init__(observation_space, action_space, hidden_sizes)
        self.norm = torch.nn.BatchNorm1d(2)

    def _flat(self, observations):
        inputs = super()._flat(observations)
        if not self.training:
            return inputs
        inputs = self.norm(inputs.reshape(-1, 2)).reshape(inputs.shape)
        return torch.nn.functional.dropout(inputs, 0.1)


class Logged:
    """Collects what the module logs."""

    def __init__(self, monkeypatch):
        self.rows = []
        log_now = A3C.log_now

        def record(module, metrics):
            self.rows.append((module.updates, dict(metrics)))
            log_now(module, metrics)

        monkeypatch.setattr(A3C, "log_now", record)

    def of(self, key):
        return {updates: row[key] for updates, row in self.rows if key in row}

    def all(self, key):
        return [row[key] for _, row in self.rows if key in row]


def trained_with(probe, kind=MLPActorCritic, **data):
    torch.manual_seed(3)
    spaces = make_network()
    model = A3C(kind(spaces.observation_space, spaces.action_space, (16,)), NStep(8), reward_scale=0.1)
    return fit(model=model, callbacks=[] if probe is None else [probe], env=COUNTDOWN, **data)


@pytest.mark.parametrize("kind", [MLPActorCritic, Unsteady])
def test_training_with_the_probe_gives_the_same_bits(kind):
    probe = EstimatorProbe(ProbePlan(1, ["test_probe.Drawing", "NStep:n_steps=1", "GAE", "VTrace"]))
    states = []
    for each in (None, probe):
        module, _, trainer = trained_with(each, kind, max_env_steps=400)
        optimizer = trainer.optimizers[0].state_dict()["state"]
        states.append((module.state_dict(), optimizer, torch.random.get_rng_state(), module.updates))
    (weights, optimizer, random, updates), (other_weights, other_optimizer, other_random, other_updates) = states
    assert updates == other_updates > 10
    assert all(torch.equal(weights[key], other_weights[key]) for key in weights)
    assert all(torch.equal(optimizer[at][key], other_optimizer[at][key]) for at in optimizer for key in optimizer[at])
    assert torch.equal(random, other_random)


def test_a_fit_logs_every_measure_of_every_estimator(monkeypatch):
    logged = Logged(monkeypatch)
    probe = EstimatorProbe(ProbePlan(every_updates=4))
    module, _, _ = trained_with(probe, max_env_steps=400)
    for label in ("NStep:n_steps=8", "NStep:n_steps=1", "GAE:n_steps=8", "VTrace:n_steps=8"):
        for measure in ("target_variance", "advantage_correlation", "sign_agreement", "gradient_cosine"):
            assert list(logged.of(f"probe/{label}/{measure}")) == list(range(1, module.updates + 1, 4))
        resolved = [share for share in logged.all("probe/resolved") if share]
        assert len(logged.all(f"probe/{label}/bias")) == len(resolved) > 2
    assert set(logged.of("probe/NStep:n_steps=8/sign_agreement").values()) == {1}
    assert logged.of("probe/NStep:n_steps=8/gradient_cosine")[1] == pytest.approx(1)
    shares = logged.all("probe/resolved")
    assert shares[:-1] == [1] * (len(shares) - 1)  # episodes of 1 to 4 steps
    assert [row[-1] for row in probe.table()[1]] == [pytest.approx(sum(shares) / len(shares))] * 4
    columns, rows = probe.table()
    assert columns == [
        *(
            "estimator",
            "trains",
            "target_variance",
            "bias",
            "advantage_correlation",
            "sign_agreement",
            "gradient_cosine",
            "resolved",
        )
    ]
    assert [row[:2] for row in rows] == [
        *(["NStep:n_steps=8", True], ["NStep:n_steps=1", False], ["GAE:n_steps=8", False], ["VTrace:n_steps=8", False])
    ]
    biases = logged.all("probe/GAE:n_steps=8/bias")
    assert rows[2][3] == pytest.approx(sum(biases) / len(biases))


def test_the_mean_bias_of_a_fit_weighs_each_batch_by_the_share_of_its_steps_that_are_resolved(monkeypatch):
    resolved = iter([Resolved(torch.tensor([1.0, 5.0]), 0.75), Resolved(torch.tensor([2.0, 7.0]), 0.25)])
    nothing = Resolved(torch.full((2,), math.nan), 0.0)
    monkeypatch.setattr(RealisedReturns, "begin", lambda *args: [next(resolved, nothing)])
    monkeypatch.setattr(RealisedReturns, "close", lambda *args: [])
    probe = EstimatorProbe(ProbePlan(10, ["NStep:n_steps=1"]))
    module, _, _ = trained_with(probe, max_env_steps=1000)
    probed = -(-module.updates // 10)
    assert probed > 2
    _, rows = probe.table()
    assert [(row[3], row[-1]) for row in rows] == [
        (pytest.approx(0.75 + 0.5), pytest.approx(1 / probed)),
        (pytest.approx(3.75 + 1.75), pytest.approx(1 / probed)),
    ]


@pytest.mark.parametrize("normalised_trains", [False, True])
def test_normalised_targets_have_no_bias_nor_has_any_while_they_train(monkeypatch, normalised_trains):
    logged = Logged(monkeypatch)
    trained, other = NStep(8), "L2Normalised:estimator=(NStep:n_steps=8)"
    if normalised_trains:
        trained, other = L2Normalised(trained), "NStep:n_steps=8"
    fit(trained, callbacks=[EstimatorProbe(ProbePlan(4, [other]))], env=COUNTDOWN, max_env_steps=400)
    assert len(logged.all("probe/resolved")) > 2
    assert len(logged.all("probe/L2Normalised:estimator=(NStep:n_steps=8)/target_variance")) > 2
    assert not logged.all("probe/L2Normalised:estimator=(NStep:n_steps=8)/bias")
    assert bool(logged.all("probe/NStep:n_steps=8/bias")) is not normalised_trains


def test_full_episodes_are_unbiased_where_every_episode_is_whole(monkeypatch):
    logged = Logged(monkeypatch)
    data = {"env": COUNTDOWN, "max_env_steps": 300, "max_episode_steps": 20, "fragment_steps": 8}
    fit(FullEpisode(), callbacks=[EstimatorProbe(ProbePlan(1))], learning={"reward_scale": 0.1}, **data)
    biases = logged.all("probe/FullEpisode/bias")
    assert len(biases) > 5
    assert biases == pytest.approx([0] * len(biases), abs=1e-6)
    assert set(logged.all("probe/resolved")) == {1}
    assert any(abs(bias) > 0.01 for bias in logged.all("probe/NStep:n_steps=1/bias"))


def test_the_bias_is_in_units_of_scaled_rewards_also_where_episodes_go_on(monkeypatch):
    logged = Logged(monkeypatch)
    network = make_network()
    torch.nn.init.zeros_(network.critic_head.weight)  # and without a learning rate V stays 0
    model = A3C(network, NStep(4), lambda params: SGD(params, lr=0.0), discount=0.5, reward_scale=0.1)
    data = {"env": COUNTDOWN, "env_kwargs": {"lengths": [6]}, "envs_per_worker": 1, "max_env_steps": 40}
    fit(model=model, callbacks=[EstimatorProbe(ProbePlan(3))], **data)
    returns = [6.0]
    for reward in (5, 4, 3, 2, 1):
        returns.insert(0, reward + returns[0] / 2)
    errors = [reward - full for reward, full in zip((1, 2, 3, 4), returns, strict=False)]  # of the first fragment
    assert logged.all("probe/NStep:n_steps=1/bias")[0] == pytest.approx(0.1 * sum(errors) / 4)


def test_the_warm_up_of_injected_lag_is_not_probed(monkeypatch):
    logged = Logged(monkeypatch)
    trained_with(EstimatorProbe(ProbePlan(1)), max_env_steps=400, inject_lag=3)
    assert min(logged.of("probe/NStep:n_steps=8/target_variance")) == 4
    assert min(logged.of("probe/VTrace:n_steps=8/gradient_cosine").values()) < 1
    assert 1 in logged.all("probe/resolved")  # delayed fragments follow each other too


def test_the_probe_names_vtrace_by_its_own_arguments():
    assert list(named([VTrace(8, rho_clip=2.0)], NStep(8))) == ["NStep:n_steps=8", "VTrace:n_steps=8,rho_clip=2.0"]
