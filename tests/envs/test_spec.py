import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from helpers import fit, make_network

from a3c import Agent, GreedyEvaluation, NStep, RolloutDataModule
from a3c.envs.spec import EnvError, EnvSpec


def test_a_native_vector_environment_is_preferred_and_resets_in_the_next_step():
    env = EnvSpec("CartPole-v1").make(3)
    assert type(env.unwrapped).__name__ == "CartPoleVectorEnv"
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    other = EnvSpec("Acrobot-v1").make(3)
    assert other.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert other.num_envs == 3
    env.close()
    other.close()


@pytest.mark.parametrize(("given", "nearest"), [("CartPol-v1", "CartPole-v1"), ("Acrobt-v1", "Acrobot-v1")])
def test_an_unknown_environment_is_named_with_the_nearest(given, nearest):
    with pytest.raises(EnvError, match=f"env: got '{given}'.*nearest: {nearest}"):
        EnvSpec(given).make(1)


class Speaking(gymnasium.Env):
    observation_space, action_space = spaces.Text(5), spaces.Discrete(2)


gymnasium.register("Speaking-v0", Speaking)


def test_unsupported_spaces_are_refused_with_those_that_are_supported():
    with pytest.raises(EnvError, match=r"Speaking-v0 has observations Text.* supported: observations: Box .*Tuple of"):
        EnvSpec("Speaking-v0").make(1)


def test_constructor_arguments_and_time_limits_reach_the_environment():
    env = EnvSpec("CartPole-v1", {"sutton_barto_reward": True}, max_episode_steps=7).make(1)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample() * 0)[3][0] for _ in range(7)]
    assert ends[-1]
    assert EnvSpec("CartPole-v1").time_limit == 500
    assert EnvSpec("CartPole-v1", {}, 7).time_limit == 7
    assert EnvSpec("CartPole-v1").reward_threshold == 475
    with pytest.raises(EnvError, match="unexpected keyword"):
        EnvSpec("CartPole-v1", {"gravty": 3}).make(1)


def test_an_environment_in_a_module_of_its_own_is_found():
    env = EnvSpec("scripted_envs:Countdown-v0").make(2)
    assert env.num_envs == 2
    env.close()
    with pytest.raises(EnvError, match="must be of a module that can be imported"):
        EnvSpec("no_such_module:Countdown-v0").make(1)


# Spaces of what is stepped


class Pixels(CartPoleVectorEnv):
    """A native version whose observations are other ones than those of a single environment."""

    def __init__(self, num_envs=1, max_episode_steps=500, render_mode=None):
        super().__init__(num_envs, max_episode_steps, render_mode)
        made.append(num_envs)
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (3, 2), np.uint8)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(self, **kwargs):
        _, info = super().reset(**kwargs)
        return np.zeros((self.num_envs, 3, 2), np.uint8), info

    def step(self, action):
        _, *rest = super().step(action)
        return np.ones((self.num_envs, 3, 2), np.uint8), *rest


made = []
gymnasium.register("Pixels-v0", CartPoleEnv, vector_entry_point=Pixels, max_episode_steps=500)


def test_spaces_are_those_of_the_kind_that_is_stepped_and_few_are_made_for_them():
    made.clear()
    assert EnvSpec("Pixels-v0").look(1).spaces.observation.shape == (4,)
    assert EnvSpec("Pixels-v0").look(256).spaces.observation.shape == (3, 2)
    assert made == [2]


@pytest.mark.parametrize(("envs_per_worker", "shape"), [(1, (4,)), (4, (3, 2))])
def test_training_and_evaluation_step_the_kind_that_the_policy_was_made_for(envs_per_worker, shape):
    evaluation = GreedyEvaluation(every_env_steps=64, episodes=1, final_episodes=3)
    model, data, _ = fit(
        NStep(8), env="Pixels-v0", envs_per_worker=envs_per_worker, max_env_steps=64, callbacks=[evaluation]
    )
    assert data.observation_space.shape == model.network.observation_space.shape == shape
    assert len(evaluation.final.episodes) == 3
    Agent(model.network, data.env).plot_beliefs()


def test_a_policy_of_other_spaces_is_refused_in_one_line():
    agent = Agent(make_network(5, 2), EnvSpec("Pixels-v0"))
    message = (
        r"^env: Pixels-v0 has observations Box\(.*\) and actions Discrete\(2\), must have those that the policy was "
    )
    for look in (lambda: agent.evaluate(1), lambda: agent.evaluate(3), agent.plot_beliefs):
        with pytest.raises(EnvError, match=message) as caught:
            look()
        assert "\n" not in str(caught.value)


def test_a_video_of_the_kind_that_a_policy_was_not_made_for_is_refused(tmp_path):
    with pytest.raises(EnvError, match="must have those that the policy was made for"):
        Agent(make_network(5, 2), EnvSpec("CartPole-v1")).record(tmp_path / "one.mp4")


# The first look


class Moody(CartPoleEnv):
    """Fails, hangs or draws in its first reset or step."""

    def __init__(self, mood, **kwargs):
        super().__init__(**kwargs)
        self.mood = mood

    def reset(self, **kwargs):
        if self.mood == "hang":
            time.sleep(60)
        if self.mood == "raise":
            raise ValueError("no such track")
        self.mood == "draw" and np.random.random()
        return super().reset(**kwargs)


gymnasium.register("Moody-v0", Moody)


def test_a_first_reset_that_hangs_is_refused_before_the_start():
    with pytest.raises(EnvError, match=r"Moody-v0 cannot be made: its first reset and step gave no sign of life"):
        RolloutDataModule("Moody-v0", {"mood": "hang"}, worker_timeout=0.3)


def test_what_the_first_reset_raises_is_shown_as_the_environments_own():
    with pytest.raises(RuntimeError, match="env: Moody-v0 raised in its first reset: no such track") as caught:
        RolloutDataModule("Moody-v0", {"mood": "raise"})
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_first_look_leaves_the_processs_generators_as_they_were():
    before = np.random.get_state()[1].tolist()
    EnvSpec("Moody-v0", {"mood": "draw"}).look(1)
    assert np.random.get_state()[1].tolist() == before
