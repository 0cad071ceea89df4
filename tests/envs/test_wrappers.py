"""The terminal reward: given where an episode terminates, and told to no one who counts returns."""

import numpy as np
import pytest
import torch
from helpers import COUNTDOWN, make_network

from a3c.batch import BatchShape, Episode, empty_batch
from a3c.envs.spec import EnvSpec
from a3c.envs.wrappers import OWN_REWARDS, TerminalReward
from a3c.evaluation.evaluator import Evaluator
from a3c.rollouts.collector import Collector
from a3c.rollouts.weights import SharedWeights


def spec(lengths=(3,), truncate=False, terminal_reward=-10.0, max_episode_steps=None):
    return EnvSpec(COUNTDOWN, {"lengths": lengths, "truncate": truncate}, max_episode_steps, terminal_reward)


def play(env, steps):
    """Gives the rewards and the environments' own rewards of so many steps, each [T][B]."""
    env.reset(seed=0)
    rewards, own = [], []
    for _ in range(steps):
        _, reward, _, _, info = env.step(np.zeros(env.num_envs, dtype=np.int64))
        rewards.append(reward.tolist())
        own.append(info[OWN_REWARDS].tolist())
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
    env = EnvSpec("CartPole-v1", terminal_reward=-10.0).make(1)
    rewards, own = play(env, 30)  # always to the left: falls within ten steps
    ends = [time for time, (reward,) in enumerate(rewards) if reward == -10]
    assert ends
    assert 7 < ends[0] < 11
    assert rewards[: ends[0]] == own[: ends[0]] == [[1]] * ends[0]
    assert all(own[end] == [1] for end in ends)


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
