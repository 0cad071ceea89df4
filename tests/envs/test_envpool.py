import os
import sys
import warnings

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from helpers import fit

from a3c import MLPActorCritic, NStep
from a3c.batch import empty_batch
from a3c.envs.source import EnvError
from a3c.envs.spaces import batch_shape
from a3c.envs.spec import EnvSpec
from a3c.envs.state import EnvStateError, get_env_state
from a3c.evaluation.evaluator import Evaluator
from a3c.evaluation.video import Recorder
from a3c.rollouts.collector import Collector
from a3c.rollouts.weights import SharedWeights

pytest.importorskip("envpool")

CARTPOLE = EnvSpec("envpool:CartPole-v1")


def network_for(spec):
    torch.manual_seed(0)
    return MLPActorCritic(*spec.look(1).spaces, hidden_sizes=(8,))


def collected(spec, columns, length, seed=0):
    network, env = network_for(spec), spec.make(columns, learns=True)
    collector = Collector(env, network, SharedWeights(network), seed=seed)
    batch = empty_batch(batch_shape(length, columns, network.spaces))
    fragment = collector.collect(batch)
    collector.close()
    return batch, fragment.episodes


def test_the_step_after_an_end_resets_and_its_action_counts_not():
    env = CARTPOLE.make(2)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    following = []
    for action in (0, 1):
        observations, _ = env.reset(seed=3)
        ended = np.zeros(2, bool)
        while not ended[0]:
            observations, rewards, terminated, truncated, _ = env.step(np.array([1, 1]))
            ended = terminated | truncated
        assert abs(observations[0, 2]) > 0.2  # the pole of the final state has fallen
        assert terminated[0]
        observations, rewards, terminated, truncated, _ = env.step(np.array([action, action]))
        assert np.abs(observations[0]).max() < 0.05
        assert (rewards[0], terminated[0], truncated[0]) == (0, False, False)
        following.append(observations[0])
    np.testing.assert_array_equal(*following)
    env.close()


def test_a_time_limit_truncates_and_a_fall_terminates():
    batch, episodes = collected(EnvSpec(CARTPOLE.id, max_episode_steps=8), columns=2, length=9)
    assert batch.truncated[7].all()
    assert not batch.terminated.any()
    assert not batch.mask[8].any()
    assert [(episode.episode_return, episode.length) for episode in episodes] == [(8, 8)] * 2
    batch, _ = collected(CARTPOLE, columns=8, length=200)
    assert batch.terminated.any()
    assert not batch.truncated.any()
    assert (CARTPOLE.time_limit, CARTPOLE.reward_threshold) == (500, 475)


def test_a_seed_begins_the_same_episodes_and_each_column_and_worker_its_own():
    env = CARTPOLE.make(2)
    first, _ = env.reset(seed=1)
    later, _ = env.reset()
    again, _ = env.reset(seed=1)
    other, _ = env.reset(seed=2)
    env.close()
    np.testing.assert_array_equal(first, again)
    states = np.concatenate([first, later, other])
    assert len(np.unique(states, axis=0)) == 6


@pytest.mark.parametrize("columns", [1, 3])
def test_one_and_several_have_the_spaces_that_were_looked_at(columns):
    spec = EnvSpec("envpool:Pong-v5", {"img_height": 32, "img_width": 32, "noop_max": 1})
    spaces = spec.look(columns).spaces
    assert spaces.observation.shape == (4, 32, 32)
    batch, _ = collected(spec, columns, length=3)
    assert batch.observations.dtype == torch.uint8
    assert batch.observations.shape == (4, columns, 4, 32, 32)


def test_bounds_that_no_observation_keeps_to_are_none():
    lunar = EnvSpec("envpool:LunarLander-v3")
    assert np.isneginf(lunar.look(1).spaces.observation.low).all()
    batch, _ = collected(lunar, columns=2, length=30)  # which checks bounds
    assert (batch.observations < 0).any()


def test_a_game_of_atari_keeps_its_own_rewards_and_ends():
    given = {"img_height": 32, "img_width": 32, "noop_max": 1, "episodic_life": True, "reward_clip": True}
    spec = EnvSpec("envpool:Breakout-v5", given)
    batch, episodes = collected(spec, columns=2, length=330)
    assert batch.terminated.sum() >= 5 * len(episodes) > 0
    env = spec.make(1)  # not a learner's
    env.reset(seed=0)
    for _ in range(60):
        *_, terminated, _, info = env.step(np.array([3]))
        assert not terminated.any()
    assert info["lives"][0] < 5
    env.close()
    pacman = EnvSpec("envpool:MsPacman-v5", {**given, "episodic_life": False}, 100)
    batch, episodes = collected(pacman, columns=1, length=100)
    assert batch.rewards.max() == 1
    assert [episode.episode_return for episode in episodes] == [10 * batch.rewards.sum()]


def test_closing_leaves_no_thread_and_two_resets_leave_one_pool():
    CARTPOLE.look(2)
    before = set(os.listdir("/proc/self/task"))

    def threads():  # of its own: those of another test may end meanwhile
        return set(os.listdir("/proc/self/task")) - before

    env = CARTPOLE.make(2)
    env.reset(seed=0)
    one_pool = threads()
    assert one_pool
    env.reset(seed=1)
    assert len(threads()) == len(one_pool)
    env.close()
    env.close()
    assert not threads()


def test_a_run_and_an_evaluation_work_and_a_state_cannot_be_had():
    *_, data, _ = fit(NStep(8), env=CARTPOLE.id, max_env_steps=64, envs_per_worker=2)
    assert data.progress.env_steps >= 64
    evaluator = Evaluator(CARTPOLE, episodes=3, max_episode_steps=20)
    one, again = (evaluator(network_for(CARTPOLE), seed=4).episodes for _ in range(2))
    evaluator.close()
    assert one == again
    env = CARTPOLE.make(1)
    with pytest.raises(EnvStateError, match="PooledEnvs has no get_state"):
        get_env_state(env)
    env.close()


def test_what_cannot_be_made_is_refused_in_one_line(monkeypatch):
    with pytest.raises(EnvError, match=r"got 'envpool:CartPol-v1'.*nearest: envpool:CartPole-v1, envpool:CartPole-v0"):
        EnvSpec("envpool:CartPol-v1").look(1)
    with pytest.raises(EnvError, match=r"env_kwargs: got 'gravity', must be of .*num_threads"):
        EnvSpec(CARTPOLE.id, {"gravity": 1}).look(1)
    with pytest.raises(EnvError, match="envpool:CartPole-v1 cannot be drawn: its render modes are none"):
        Recorder(CARTPOLE)
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(EnvError, match=r"envpool:CartPole-v1 needs EnvPool: pip install 'a3c\[envpool\]'"):
        CARTPOLE.look(1)


def test_no_module_is_imported_for_a_pool_but_the_extra_and_none_warns():
    assert CARTPOLE.module == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CARTPOLE.look(2)
