"""The terminal reward: given where an episode terminates, and told to no one who counts returns."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorObservationWrapper, VectorWrapper
from gymnasium.wrappers.utils import RunningMeanStd
from helpers import COUNTDOWN, fit, make_network

from a3c import Agent, NStep, RolloutDataModule, load
from a3c.batch import BatchShape, Episode, empty_batch
from a3c.envs.layouts import observation_layout
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.envs.state import EnvStateError, get_env_state, set_env_state
from a3c.envs.wrappers import OWN_REWARDS, NormaliseReward, TerminalReward
from a3c.evaluation.agent import CheckpointError
from a3c.evaluation.evaluator import Evaluator
from a3c.rollouts.collector import Collector
from a3c.rollouts.weights import SharedWeights
from a3c.runs.descriptions import build, describe


def spec(lengths=(3,), truncate=False, terminal_reward=-10.0, max_episode_steps=None):
    wrappers = [terminal(terminal_reward)]
    return EnvSpec(COUNTDOWN, {"lengths": lengths, "truncate": truncate}, max_episode_steps, wrappers)


def terminal(reward):
    return {"class_path": "a3c.TerminalReward", "init_args": {"reward": reward}}


def play(env, steps):
    """Gives the rewards and the environments' own rewards of so many steps, each [T][B]."""
    env.reset(seed=0)
    rewards, own = [], []
    for _ in range(steps):
        _, reward, _, _, info = env.step(np.zeros(env.num_envs, dtype=np.int64))
        rewards.append(reward.tolist())
        own.append(info.get(OWN_REWARDS, reward).tolist())
    env.close()
    return rewards, own


def collect(spec, steps):
    network = make_network()
    collector = Collector(spec.make(1), network, SharedWeights(network), seed=0)
    batch = empty_batch(BatchShape(steps, 1, (2,), torch.float32))
    fragment = collector.collect(batch)
    collector.close()
    return batch, fragment.episodes


def test_only_the_step_that_terminates_gets_the_other_reward():
    rewards, own = play(spec((3, 2)).make(1), 8)
    # three steps, a reset step, two steps, a reset step, and on
    assert rewards == [[1], [2], [-10], [0], [1], [-10], [0], [1]]
    assert own == [[1], [2], [3], [0], [1], [2], [0], [1]]


def test_a_time_limit_is_no_termination():
    for limited in (spec((3,), truncate=True), spec((9,), max_episode_steps=3)):
        rewards, own = play(limited.make(1), 5)
        assert rewards == own == [[1], [2], [3], [0], [1]]


def test_a_step_that_terminates_at_the_time_limit_terminates():
    rewards, own = play(spec((3,), max_episode_steps=3).make(1), 3)
    assert rewards == [[1], [2], [-10]]
    assert own == [[1], [2], [3]]


def test_every_environment_has_its_own_end():
    env = spec((2,)).make(2)
    env.unwrapped.envs[1].unwrapped.lengths = (3,)
    rewards, own = play(env, 3)
    assert rewards == [[1, 1], [-10, 2], [0, -10]]
    assert own == [[1, 1], [2, 2], [0, 3]]


def test_a_native_vector_environment_keeps_its_own_reward_too():
    env = EnvSpec("CartPole-v1", wrappers=[terminal(-10.0)]).make(1)
    rewards, own = play(env, 30)  # always to the left: falls within ten steps
    ends = [time for time, (reward,) in enumerate(rewards) if reward == -10]
    assert ends
    assert 7 < ends[0] < 11
    assert rewards[: ends[0]] == own[: ends[0]] == [[1]] * ends[0]
    assert all(own[end] == [1] for end in ends)


# Normalised and clipped rewards


@pytest.mark.parametrize("truncate", [False, True])
def test_rewards_are_divided_by_the_deviation_of_discounted_returns_of_each_episode(truncate):
    env = EnvSpec(COUNTDOWN, {"lengths": (3, 2), "truncate": truncate}, wrappers=["a3c.NormaliseReward"])
    env = env.discounting(0.5).make(1, learns=True)
    rewards, own = play(env, 7)
    # Rₜ = ½·Rₜ₋₁ + rₜ: 1, ½ + 2, 1¼ + 3, a reset step, and from 0 again, whatever ended the episode: 1, ½ + 2
    seen = [1, 2.5, 4.25, None, 1, 2.5, None]
    statistics = RunningMeanStd()
    for (reward,), (real,), discounted in zip(rewards, own, seen, strict=True):
        if discounted is not None:
            statistics.update(np.array([discounted]))
        assert reward == pytest.approx(real / np.sqrt(statistics.var + 1e-8))
    assert own == [[1], [2], [3], [0], [1], [2], [0]]


def test_a_reset_forgets_the_returns_and_watching_leaves_the_statistics():
    env = NormaliseReward(EnvSpec(COUNTDOWN, {"lengths": (9,)}).make(2), 0.5)
    actions = np.zeros(2, np.int64)
    env.reset(), env.step(actions), env.reset(), env.step(actions)
    statistics = RunningMeanStd()
    statistics.update(np.array([1, 1])), statistics.update(np.array([1, 1]))
    assert env.return_rms.var == statistics.var
    env.update_running_mean = False
    _, rewards, *_ = env.step(actions)
    assert env.return_rms.var == statistics.var
    assert rewards.tolist() == pytest.approx([2 / np.sqrt(statistics.var + 1e-8)] * 2)
    env.close()


def test_a_reward_that_is_not_finite_does_not_spoil_the_statistics():
    env = NormaliseReward(EnvSpec("scripted_envs:Wander-v0", {"bad": 0.2}).make(4))
    env.reset(seed=1)
    rewards = np.array([env.step(np.ones(4, np.int64))[1] for _ in range(60)])
    assert np.isnan(rewards).any()
    assert np.isfinite(rewards[-20:]).any()
    assert np.isfinite(env.return_rms.var)
    env.close()


def test_rewards_are_clipped_after_all_else_and_returns_stay_the_environments_own():
    shaped = RolloutDataModule(COUNTDOWN, {"lengths": (3,)}, terminal_reward=-9.0, clip_rewards=1.5)
    rewards, own = play(shaped.env.make(1), 4)
    assert rewards == [[1], [1.5], [-1.5], [0]]
    assert own == [[1], [2], [3], [0]]
    both = RolloutDataModule(COUNTDOWN, normalise_rewards=True, clip_rewards=2.0)
    assert [each.class_path for each in both.env.wrappers] == ["a3c.NormaliseReward", "a3c.ClipReward"]


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_rewards_are_normalised_by_returns_of_the_models_discount(mode):
    case = {"env": COUNTDOWN, "env_kwargs": {"lengths": (2,)}, "normalise_rewards": True, "max_env_steps": 2000}
    _, data, _ = fit(NStep(4), mode=mode, workers=1, learning={"discount": 0.25}, **case)
    (cells,) = data.env.statistics.state_dict().values()
    mean, variance, count = cells.tolist()
    # R is 1, then ¼ + 2, in turn
    assert mean == pytest.approx(1.625, abs=0.02)
    assert variance == pytest.approx(0.625**2, abs=0.02)
    assert count >= 2000
    assert data.progress.metrics()["rollout/episode_return"] == 3


@pytest.mark.parametrize("terminal_reward", [0.0, 2.5])
def test_a_terminal_reward_may_be_any_number_0_included(terminal_reward):
    assert play(spec((2,), terminal_reward=terminal_reward).make(1), 2)[0] == [[1], [terminal_reward]]


def test_without_a_terminal_reward_the_environment_is_left_alone():
    env = EnvSpec(COUNTDOWN).make(1)
    assert not isinstance(env, TerminalReward)
    env.close()


def test_what_is_kept_are_the_rewards_beneath_all_reward_wrappers():
    rewards, own = play(TerminalReward(spec((2,)).make(1), -20.0), 2)
    assert rewards == [[1], [-20]]
    assert own == [[1], [2]]


def test_a_batch_has_the_terminal_reward_and_its_episodes_the_environments_own_returns():
    batch, episodes = collect(spec((3, 2)), 7)
    assert batch.rewards[:, 0].tolist() == [1, 2, -10, 0, 1, -10, 0]
    assert episodes == [Episode(1.0 + 2 + 3, 3), Episode(1.0 + 2, 2)]


def test_a_batch_of_truncated_episodes_has_the_environments_own_rewards():
    batch, episodes = collect(spec((3,), truncate=True), 4)
    assert batch.rewards[:, 0].tolist() == [1, 2, 3, 0]
    assert episodes == [Episode(6.0, 3)]


def test_an_evaluation_gives_the_environments_own_returns():
    evaluator = Evaluator(spec((3, 2)), 1)
    assert evaluator(make_network(), seed=0).episodes == [Episode(6.0, 3)]
    evaluator.close()


# Wrappers by their import paths


class Doubled(gymnasium.Wrapper):
    """Gives a reward so many times as large; it goes around each environment by itself."""

    def __init__(self, env, factor=2.0):
        super().__init__(env)
        self.factor = factor

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, self.factor * reward, *rest


class Halved(VectorWrapper):
    """Halves rewards in place, as wrappers of Gymnasium do."""

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        rewards *= 0.5
        return observations, rewards, *rest


def wrapped(*wrappers, env=COUNTDOWN, **kwargs):
    return EnvSpec(env, {"lengths": [3]} if env == COUNTDOWN else {}, wrappers=wrappers, **kwargs)


def test_single_and_vector_wrappers_are_put_on_from_the_innermost_on():
    triple = {"class_path": f"{__name__}.Doubled", "init_args": {"factor": 3}}
    rewards, own = play(wrapped(triple, f"{__name__}.Halved", terminal(-7)).make(2), 4)
    assert rewards == [[1.5, 1.5], [3, 3], [-7, -7], [0, 0]]
    assert own == [[1, 1], [2, 2], [3, 3], [0, 0]]


@pytest.mark.parametrize("wrapper", ["Doubled", "Halved"])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_episode_returns_are_those_beneath_any_wrapper(wrapper, num_envs):
    spec = wrapped(f"{__name__}.{wrapper}")
    batch, episodes = collect(spec, 4)
    assert batch.rewards[:, 0].tolist() == ([2, 4, 6, 0] if wrapper == "Doubled" else [0.5, 1, 1.5, 0])
    assert episodes == [Episode(6.0, 3)]
    evaluator = Evaluator(spec, num_envs)
    assert evaluator(make_network(), seed=0).episodes == [Episode(6.0, 3)] * num_envs
    evaluator.close()


def test_a_wrapper_of_each_environment_goes_without_the_native_version():
    native, single = EnvSpec("CartPole-v1"), wrapped("gymnasium.wrappers.TimeAwareObservation", env="CartPole-v1")
    assert type(native.make(2).unwrapped).__name__ == "CartPoleVectorEnv"
    assert type(single.make(2).unwrapped).__name__ == "SyncVectorEnv"
    assert single.look(2).spaces.observation.shape == (5,)


class Square(VectorObservationWrapper):
    """Four numbers as a square."""

    def __init__(self, env):
        super().__init__(env)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 2), np.float32)

    def observations(self, observations):
        return observations.reshape(-1, 2, 2)


def test_spaces_are_those_above_a_vector_wrapper():
    assert wrapped(f"{__name__}.Square", env="CartPole-v1").look(3).spaces.observation.shape == (2, 2)


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ("no_such_module.Mine", "wrappers: got 'no_such_module.Mine', which cannot be imported: No module"),
        ("gymnasium.wrappers.TimeAwareObs", "wrappers: got 'gymnasium.wrappers.TimeAwareObs', which cannot be imp"),
        ("os.system", r"wrappers: got 'os.system', must be a class derived from gymnasium.Wrapper or"),
        ("collections.OrderedDict", "must be a class derived from gymnasium.Wrapper or gymnasium.vector.VectorWrapper"),
        ("Mine", "wrappers: got 'Mine', which cannot be imported"),
        ({"class_path": "test_wrappers.Doubled", "init_args": {"factr": 1}}, "cannot be made: .*keyword argument 'fac"),
    ],
)
def test_what_is_no_wrapper_is_refused_by_name(wrapper, message):
    with pytest.raises(EnvError, match=message):
        wrapped(wrapper).look(2)


@pytest.mark.parametrize("given", [7, {"init_args": {}}, {"class_path": "a.B", "arguments": {}}, ["a.B"]])
def test_another_form_of_a_wrapper_is_refused(given):
    with pytest.raises(ValueError, match=r"wrappers: got .*, must be module\.Class, or its class_path with its init_a"):
        wrapped(given)


def test_wrappers_stand_in_the_description_and_in_the_repr_and_come_back():
    spec = wrapped(f"{__name__}.Doubled", terminal(-1.0), max_episode_steps=9)
    assert build(describe(spec), EnvSpec) == spec
    assert "test_wrappers.Doubled" in repr(spec)
    assert "'reward': -1.0" in repr(spec)


def test_a_run_trains_in_wrapped_environments_and_its_agent_needs_leave_for_their_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # below which a module would be the user's own
    _, data, trainer = fit(NStep(8), env=COUNTDOWN, max_env_steps=64, wrappers=[f"{__name__}.Doubled"])
    assert data.progress.metrics()["rollout/episode_return"] < 11  # of the environment's own
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    with pytest.raises(
        CheckpointError,
        match=r"got 'test_wrappers\.Doubled', must be a wrapper of a3c, gymnasium\.wrappers, minigrid\.wrappers or",
    ):
        load(tmp_path / "some.ckpt", allow=["scripted_envs"])
    agent = load(tmp_path / "some.ckpt", allow=["scripted_envs", "test_wrappers"])
    assert agent.env.wrappers[0].class_path == "test_wrappers.Doubled"
    assert len(agent.evaluate(3).episodes) == 3


def test_a_wrapper_of_another_observation_is_refused_a_policy_of_the_bare_one():
    timed = wrapped("gymnasium.wrappers.TimeAwareObservation", env="CartPole-v1")
    with pytest.raises(
        EnvError, match=r"env: CartPole-v1 has observations .*, must have those that the policy was made"
    ):
        Agent(make_network(4, 2), timed).evaluate(2)


def test_the_state_of_wrapped_environments_goes_on_in_others():
    clip = {"class_path": "gymnasium.wrappers.ClipReward", "init_args": {"min_reward": -1, "max_reward": 1}}
    ours, theirs = (wrapped(clip, terminal(-1), env="CartPole-v1").make(2) for _ in range(2))
    ours.reset(seed=1), theirs.reset(seed=2)
    set_env_state(theirs, get_env_state(ours))
    actions = np.array([0, 1])
    assert np.array_equal(ours.step(actions)[0], theirs.step(actions)[0])
    with pytest.raises(EnvStateError, match=r"Halved has no get_state"):
        get_env_state(wrapped(f"{__name__}.Halved").make(1))


@pytest.mark.parametrize(
    "name",
    [
        *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"),
        *("FrozenLake-v1", "CliffWalking-v1", "Taxi-v4", "Blackjack-v1"),
    ],
)
def test_the_state_of_gymnasiums_own_environments_goes_on_in_others(name):
    ours, theirs = (EnvSpec(name).make(1) for _ in range(2))
    ours.reset(seed=1), theirs.reset(seed=2)
    ours.action_space.seed(3)
    for _ in range(4):
        ours.step(ours.action_space.sample())
    set_env_state(theirs, get_env_state(ours))
    pack = observation_layout(ours.single_observation_space).pack
    for _ in range(30):
        action = ours.action_space.sample()
        mine, other = ours.step(action), theirs.step(action)
        assert np.array_equal(pack(mine[0]), pack(other[0]))
        assert [each.tolist() for each in mine[1:4]] == [each.tolist() for each in other[1:4]]


# Numbers that are shown alone


def test_some_numbers_of_the_observations_are_shown_alone():
    partial = {"class_path": "a3c.PartialObservation", "init_args": {"keep": [0, 2]}}
    env, whole = wrapped(partial, env="CartPole-v1").make(3), EnvSpec("CartPole-v1").make(3)
    seen, all_numbers = env.reset(seed=1)[0], whole.reset(seed=1)[0]
    for _ in range(5):
        assert np.array_equal(seen, all_numbers[:, [0, 2]])
        assert env.observation_space.contains(seen)
        action = np.array([0, 1, 1])
        seen, all_numbers = env.step(action)[0], whole.step(action)[0]
    assert env.single_observation_space.high.tolist() == whole.single_observation_space.high[[0, 2]].tolist()


@pytest.mark.parametrize("keep", [[], [4], [-1], [0.5]])
def test_numbers_that_are_not_there_cannot_be_shown(keep):
    partial = {"class_path": "a3c.PartialObservation", "init_args": {"keep": keep}}
    with pytest.raises(EnvError, match=r"keep: got .*, must be places from 0 to 3, one or more"):
        wrapped(partial, env="CartPole-v1").make(1)
