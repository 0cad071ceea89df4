from itertools import chain, repeat

import numpy as np
import pytest
import torch
from helpers import make_collector

from a3c.batch import BatchShape, Episode, empty_batch


def collect(collector, length, columns=1):
    out = empty_batch(BatchShape(length, columns, (2,), torch.float32))
    fragment = collector.collect(out)
    return out.first(fragment.length), fragment


def test_the_final_observation_stands_after_the_last_step_and_the_reset_step_is_masked():
    batch, _ = collect(make_collector(env_kwargs={"lengths": (3, 2)}), 8)
    # episode 0: steps 0..2, then a reset step; episode 1: two steps, then a reset step; and on
    assert batch.observations[:, 0].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1]]
    assert batch.mask[:, 0].tolist() == [True, True, True, False, True, True, False, True]
    assert batch.rewards[:, 0].tolist() == [1, 2, 3, 0, 1, 2, 0, 1]
    assert batch.terminated[:, 0].tolist() == [False, False, True, False, False, True, False, False]
    assert not batch.truncated.any()


def test_truncation_is_told_apart_from_termination():
    batch, _ = collect(make_collector(env_kwargs={"lengths": (2,), "truncate": True}), 3)
    assert batch.truncated[:, 0].tolist() == [False, True, False]
    assert not batch.terminated.any()


def test_a_pending_reset_is_carried_into_the_next_fragment():
    collector = make_collector(num_envs=2, env_kwargs={"lengths": (3, 4)})
    collector.env.envs[1].unwrapped.lengths = (7,)  # so that not both wait for their reset
    first, _ = collect(collector, 3, columns=2)
    second, _ = collect(collector, 3, columns=2)
    assert first.terminated[-1].tolist() == [True, False]
    assert second.mask.tolist() == [[False, True], [True, True], [True, True]]
    assert second.observations[:, 0].tolist() == [[0, 3], [1, 0], [1, 1], [1, 2]]
    assert second.observations[0, 1].tolist() == first.observations[-1, 1].tolist()


def test_a_fragment_never_consists_of_reset_steps_alone():
    collector = make_collector(env_kwargs={"lengths": (1,)})
    for episode in range(3):
        batch, fragment = collect(collector, 1)
        assert batch.mask.tolist() == [[True]]
        assert batch.observations[:, 0].tolist() == [[episode, 0], [episode, 1]]
        assert fragment.episodes == [Episode(1.0, 1)]


def test_episodes_are_whole_and_exact_across_fragments():
    collector = make_collector(num_envs=2, env_kwargs={"lengths": (3, 1, 4)})
    collector.env.envs[1].unwrapped.lengths = (5,)
    episodes = []
    for _ in range(9):
        episodes += collect(collector, 2, columns=2)[1].episodes
    # 18 steps: column 0 plays 3+1 | 1+1 | 4+1 | 3+1 | 1+1 and column 1 5+1 three times, resets included
    lengths = sorted(episode.length for episode in episodes)
    assert lengths == sorted([3, 1, 4, 3, 1, 5, 5, 5])
    for episode in episodes:
        assert episode.episode_return == sum(range(1, episode.length + 1))


def test_episodes_come_in_time_order():
    collector = make_collector(num_envs=2, env_kwargs={"lengths": (5,)})
    collector.env.envs[1].unwrapped.lengths = (2,)
    _, fragment = collect(collector, 6, columns=2)
    assert [episode.length for episode in fragment.episodes] == [2, 5, 2]


def test_returns_are_those_beneath_a_reward_wrapper():
    collector = make_collector(env_kwargs={"lengths": (3,)})
    step = collector.env.step

    def wrapped(action):
        observation, reward, terminated, truncated, info = step(action)
        return observation, np.where(terminated, -10, reward), terminated, truncated, {**info, "own_rewards": reward}

    collector.env.step = wrapped
    batch, fragment = collect(collector, 3)
    assert batch.rewards[:, 0].tolist() == [1, 2, -10]
    assert fragment.episodes == [Episode(6.0, 3)]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_an_episode_of_the_environments_own_goes_on_past_the_ends_that_a_learner_is_told(length):
    # Two lives of two steps; in the step between them the game gives 5, in that after the second it ends and gives 7.
    rewards, told, own = (
        [1, 1, 5, 1, 1, 7, 0, 1, 1],
        [0, 1, 0, 0, 1, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0, 0, 0],
    )
    collector = make_collector()
    steps = chain(zip(rewards, told, own, strict=True), repeat((0, 0, 0)))

    def step(action):
        reward, ended, own_ended = (np.array([value]) for value in next(steps))
        info = {"own_ends": own_ended > 0} if ended and not own_ended else {}
        return np.zeros((1, 2), np.float32), reward.astype(float), ended > 0, np.zeros(1, bool), info

    collector.env.step = step
    episodes = []
    for _ in range(9):
        batch, fragment = collect(collector, length)
        episodes += fragment.episodes
        assert batch.mask.any()
    assert episodes == [Episode(16.0, 6)]


def test_a_fragment_ends_with_its_episode_if_asked():
    collector = make_collector(env_kwargs={"lengths": (3, 8)}, end_with_episodes=True)
    lengths = []
    for _ in range(4):
        batch, _ = collect(collector, 5)
        assert batch.mask.all()
        lengths.append(batch.length)
    assert lengths == [3, 5, 3, 3]  # 3 | 8 = 5 + 3 | 3


def test_behaviour_log_probs_are_those_of_the_policy_that_acted():
    collector = make_collector(num_envs=3)
    batch, _ = collect(collector, 7, columns=3)
    parameters, _ = collector.network(batch.observations[:-1])
    expected = torch.distributions.Categorical(logits=parameters).log_prob(batch.actions)
    assert torch.allclose(batch.behaviour_log_probs, expected, atol=1e-6)


def test_every_fragment_acts_with_the_newest_weights_and_says_their_version():
    collector = make_collector()
    first, _ = collect(collector, 4)
    with torch.no_grad():
        collector.network.actor_head.bias += torch.tensor([0.0, 50.0, 0.0])
    collector.weights.publish(collector.network)
    with torch.no_grad():
        collector.network.actor_head.bias.zero_()
    second, _ = collect(collector, 4)
    assert first.policy_versions.unique().tolist() == [0]
    assert second.policy_versions.unique().tolist() == [1]
    assert second.actions.unique().tolist() == [1]


def test_columns_are_named_by_environment_and_place():
    collector = make_collector(num_envs=2, first_env_id=6)
    for place in range(3):
        batch, _ = collect(collector, 2, columns=2)
        assert batch.env_ids.tolist() == [6, 7]
        assert batch.segment_ids.tolist() == [place, place]


def test_the_episode_budget_ends_the_collector():
    collector = make_collector(env_kwargs={"lengths": (2,)}, end_with_episodes=True, max_episodes=3)
    flags = [collect(collector, 4)[1].is_last for _ in range(3)]
    assert flags == [False, False, True]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_actions(seed):
    batches = []
    for _ in range(2):
        torch.manual_seed(seed)  # the network
        batches.append(collect(make_collector(num_envs=2), 16, columns=2)[0])
    assert torch.equal(batches[0].actions, batches[1].actions)
    assert len(batches[0].actions.unique()) == 3
