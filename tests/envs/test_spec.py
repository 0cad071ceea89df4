import pytest
from gymnasium.vector import AutoresetMode

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


@pytest.mark.parametrize("name", ["Pendulum-v1", "FrozenLake-v1"])
def test_unsupported_spaces_are_refused_with_those_that_are_supported(name):
    with pytest.raises(EnvError, match="supported: observations: Box; actions: Discrete"):
        EnvSpec(name).make(1)


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
    with pytest.raises(EnvError, match="must be an id that Gymnasium knows"):
        EnvSpec("no_such_module:Countdown-v0").make(1)
