"""Actions that an environment forbids are never taken, wherever it says so and whoever acts, and are judged as that."""

import pickle

import numpy as np
import pytest
import torch
from helpers import fit, lively
from lightning.pytorch import Callback
from masked_envs import ACTIONS, HOW, Masked

from a3c import A3C, Agent, FullEpisode, MLPActorCritic, NStep, RolloutDataModule
from a3c.batch import BatchShape, empty_batch
from a3c.envs.layouts import observation_layout
from a3c.envs.single import EnvironmentFaultError
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.rollouts.collector import Collector
from a3c.rollouts.weights import SharedWeights

MASKED = "masked_envs:Masked-v0"
KINDS = [
    ("discrete", "observation"),
    ("discrete", "info"),
    ("choices", "observation"),
    ("choices", "info"),
    ("choices", "info of several parts"),
    ("parts", "observation"),
    ("parts", "info"),
    ("parts", "info of several parts"),
]


class Watch(Callback):
    """Keeps the batches, and how far the policy of each update or report is from the one that acted."""

    def __init__(self):
        self.batches, self.kl, self.log_probs = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if hasattr(batch, "mask"):
            with torch.no_grad():
                policy, _ = pl_module.network.judge_batch(batch)
            self.batches.append(batch.copy())
            self.log_probs.append(policy.log_prob(batch.actions))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.window.sums.updates:
            self.kl.append(pl_module.window.sums.take_means()["policy/kl_from_behaviour"])


def masked(actions="discrete", how="observation", **kwargs):
    return {"env": MASKED, "env_kwargs": {"actions": actions, "how": how, **kwargs}, "check_env": False}


@pytest.mark.parametrize(("actions", "how"), KINDS)
def test_forbidden_actions_are_never_taken_and_what_was_taken_is_judged_as_it_was(actions, how):
    watch = Watch()
    model, _, _ = fit(NStep(8), callbacks=[watch], max_env_steps=400, **masked(actions, how))
    assert model.updates == len(watch.kl) > 8
    assert max(map(abs, watch.kl)) < 1e-6
    for batch, log_probs in zip(watch.batches, watch.log_probs, strict=True):
        _, mask = model.network.inputs(batch.observations)
        allowed = mask[:-1][batch.mask].float().mean()
        assert 0.3 < allowed < 0.9
        torch.testing.assert_close(log_probs[batch.mask], batch.behaviour_log_probs[batch.mask], rtol=0, atol=1e-5)
    assert any((~batch.mask).any() for batch in watch.batches)


@pytest.mark.parametrize(("actions", "how"), KINDS[::3])
@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_forbidden_actions_are_never_taken_by_workers(mode, actions, how):
    model, data, _ = fit(NStep(8), mode=mode, workers=2, max_env_steps=600, **masked(actions, how))
    assert data.progress.env_steps >= 600
    assert model.skipped_updates == 0


@pytest.mark.parametrize("returns", [NStep(5, end_at_episode=True), FullEpisode()], ids=["segments", "episodes"])
def test_masks_go_with_a_memory_segments_and_all_that_is_normalised(returns):
    watch = Watch()
    learning = {"normalise_observations": True, "popart": True, "normalise_advantages": True}
    network = {"memory": "gru", "memory_size": 8}
    case = {**masked("parts", "info"), "fragment_steps": 16, "envs_per_worker": 1, "max_env_steps": 400}
    model, _, _ = fit(returns, callbacks=[watch], learning=learning, network=network, **case)
    assert model.updates > 8
    assert max(map(abs, watch.kl)) < 1e-6
    assert model.skipped_updates == 0


def test_the_log_probability_of_what_is_forbidden_is_minus_infinity():
    watch = Watch()
    model, _, _ = fit(NStep(8), callbacks=[watch], max_env_steps=100, **masked())
    (batch, *_) = watch.batches
    _, mask = model.network.inputs(batch.observations)
    real = mask[:-1][batch.mask]
    policy, _ = model.network.judge_batch(batch)
    choices = range(real.shape[-1])
    log_probs = torch.stack([policy.log_prob(torch.full(batch.mask.shape, choice)) for choice in choices], -1)
    assert torch.equal(log_probs[batch.mask] > -torch.inf, real)
    assert torch.isfinite(policy.entropy()).all()
    torch.testing.assert_close(log_probs[batch.mask].exp().sum(-1), torch.ones(len(real)))


def test_the_mask_of_a_batch_is_the_environments_own():
    env = Masked("discrete", "info")
    seen = []
    look = env._look

    def remember():
        result = look()
        seen.append(env.mask.copy())
        return result

    env._look = remember
    spec = EnvSpec(lambda: env)
    looked = spec.look(1)
    network = MLPActorCritic(*looked.spaces, hidden_sizes=(4,))
    seen.clear()
    vector = spec.make(1, like=network.spaces)
    collector = Collector(vector, network, SharedWeights(network), seed=0)
    shape = BatchShape(30, 1, observation_layout(looked.spaces.observation).shape, torch.uint8)
    batch = empty_batch(shape)
    collector.collect(batch)
    _, mask = network.inputs(batch.observations)
    assert np.array_equal(mask[:, 0].numpy(), np.stack(seen) != 0)
    assert not all(row.any() for row in seen)  # final states, in which nothing is allowed


def test_where_info_has_no_mask_everything_is_allowed():
    watch = Watch()
    model, _, _ = fit(NStep(8), callbacks=[watch], max_env_steps=300, **masked("discrete", "info", seldom=True))
    masks = torch.cat([model.network.inputs(batch.observations)[1].flatten(0, 1) for batch in watch.batches])
    assert 0.2 < masks.all(-1).float().mean() < 0.8


@pytest.mark.parametrize(("actions", "how"), KINDS)
@pytest.mark.parametrize("greedy", [True, False])
def test_evaluations_and_pictures_of_beliefs_take_no_forbidden_action(actions, how, greedy):
    env = EnvSpec(MASKED, {"actions": actions, "how": how})
    network = lively(MLPActorCritic(*env.look(2).spaces, hidden_sizes=(8,)))
    agent = Agent(network, env)
    assert 3 <= agent.evaluate(9, greedy=greedy).length_mean <= 8
    agent.plot_beliefs(greedy=greedy)


def test_a_collector_goes_on_with_masks_from_info_where_another_one_stopped():
    spec = EnvSpec(MASKED, {"how": "info"})
    looked = spec.look(2)
    network = lively(MLPActorCritic(*looked.spaces, hidden_sizes=(8,)))
    shape = BatchShape(7, 2, observation_layout(looked.spaces.observation).shape, torch.uint8)
    one, two = (
        Collector(spec.make(2, like=network.spaces), network, SharedWeights(network), seed=seed) for seed in (1, 2)
    )
    ours, theirs = empty_batch(shape), empty_batch(shape)
    one.collect(ours)
    two.load_state_dict(one.state_dict())
    one.collect(ours), two.collect(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


# What is refused


@pytest.mark.parametrize("how", HOW)
def test_an_environment_that_forbids_everything_where_an_episode_goes_on_ends_the_run(how):
    case = {**masked("choices", how, nothing_at=2), "max_env_steps": 400}
    message = (
        r"^action_mask: environment \d forbade everything in step \d of the fragment, must allow one action where an"
    )
    with pytest.raises(EnvironmentFaultError, match=message) as caught:
        fit(NStep(8), **case)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_one_that_forbids_everything_ends_the_run_of_workers_too(mode):
    case = {**masked("discrete", "info", nothing_at=2), "max_env_steps": 4000}
    with pytest.raises(Exception, match=r"action_mask: environment \d forbade everything in step"):
        fit(NStep(8), mode=mode, workers=2, **case)


@pytest.mark.parametrize("size", [4, 6])
def test_a_mask_of_another_size_is_refused_before_the_start(size):
    data = RolloutDataModule(**masked("discrete", "observation", size=size))
    with pytest.raises(
        ValueError, match=rf"^observation_space: got an action_mask of {size} numbers, must be of 5$"
    ) as caught:
        MLPActorCritic(data.observation_space, data.action_space)
    with pytest.raises(
        EnvError, match=rf"^env: .*: info: environment 0 gave an action_mask of {size} numbers, must be 5"
    ):
        RolloutDataModule(**masked("discrete", "info", size=size))
    assert "\n" not in str(caught.value)


def test_a_mask_for_actions_that_cannot_be_forbidden_is_refused_before_the_start():
    data = RolloutDataModule(**masked("numbers", "observation"))
    with pytest.raises(
        ValueError, match=r"^observation_space: got an action_mask, must be without: only Discrete and MultiDiscrete"
    ):
        MLPActorCritic(data.observation_space, data.action_space)
    with pytest.raises(EnvError, match=r"^env: .*: info: got an action_mask, must be without: only Discrete and Multi"):
        RolloutDataModule(**masked("numbers", "info"))


class Named(Masked):
    """Says what is allowed part by part, by their names."""

    def _look(self):
        observation, _ = super()._look()
        return observation, {"action_mask": {"gear": np.ones(3, np.int8)}}


@pytest.mark.parametrize("envs", [1, 2])
def test_a_mask_of_names_is_refused_before_the_start(envs):
    with pytest.raises(EnvError, match=r"^env: .*: info: got an action_mask of names, must be of 8 numbers"):
        RolloutDataModule(env=lambda: Named("parts", "info"), envs_per_worker=envs, check_env=False)


def test_a_network_pickles_with_what_it_makes_of_masks():
    env = Masked("choices", "observation")
    network = MLPActorCritic(env.observation_space, env.action_space, hidden_sizes=(4,))
    again = pickle.loads(pickle.dumps(network))
    packed = torch.from_numpy(
        observation_layout(env.observation_space).pack(
            {"shown": np.zeros((1, 9), np.float32), "action_mask": np.array([[1, 0, 0, 1, 1, 0, 0, 0, 2]]) > 0}
        )
    )
    assert again.inputs(packed)[1].tolist() == [[True, False, False, True, True, False, False, False, True]]
    A3C(again, NStep(4))
    assert set(ACTIONS) > {"choices"}
