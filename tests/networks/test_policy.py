"""Acting: greedy or sampled, for a fragment or for an episode, with or without memory."""

from itertools import islice

import numpy as np
import torch
from gymnasium import spaces
from helpers import COUNTDOWN, make_network
from test_distributions import SignFamily

from a3c import Agent, MLPActorCritic
from a3c.envs.spec import EnvSpec
from a3c.evaluation.episode import playing
from a3c.networks.distributions import FAMILIES
from a3c.networks.policy import Policy


class Remembering(MLPActorCritic):
    """Takes action 1 once it has seen three states of an episode, 0 before; its memory is their number."""

    def initial_state(self, columns):
        return torch.zeros(columns, 1)

    def actor_step(self, observations, state):
        state = state + 1
        return torch.cat((3 - state, state - 3, torch.full_like(state, -9)), -1), state


def remembering():
    return Remembering(spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Discrete(3))


def test_greedy_is_the_mode_and_sampling_draws_from_the_generator():
    network, observations = make_network(), np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    with torch.inference_mode():
        logits = network.actor(torch.from_numpy(observations))
        greedy = Policy(network, greedy=True).act(observations)
        ours, again, other = (
            Policy(network, generator=torch.Generator().manual_seed(seed)).act(observations) for seed in (1, 1, 2)
        )
    assert greedy.tolist() == logits.argmax(-1).tolist()
    assert ours.tolist() == again.tolist() != other.tolist()
    assert set(ours.tolist()) == {0, 1, 2}


def test_a_fragments_noise_is_drawn_at_once_and_its_log_probabilities_are_those_of_the_steps():
    network, generator = make_network(), torch.Generator().manual_seed(3)
    policy = Policy(network, generator=generator)
    observations = torch.randn(5, 4, 2)
    with torch.inference_mode():
        policy.begin_fragment(5, 4)
        after = generator.get_state()
        actions = torch.from_numpy(np.stack([policy.choose(observation) for observation in observations]))
        assert torch.equal(generator.get_state(), after)
        expected = network.actions(network.actor(observations)).log_prob(actions)
        torch.testing.assert_close(policy.log_probs(actions), expected)
        policy.begin_fragment(5, 4)
        again = torch.from_numpy(np.stack([policy.choose(observation) for observation in observations]))
    assert not torch.equal(actions, again)


def test_a_memory_is_carried_along_and_forgotten_where_an_episode_begins():
    policy = Policy(remembering(), greedy=True)
    policy.begin_episodes(2)
    observations = np.zeros((2, 2), np.float32)
    seen = []
    for begins in ([False, False], [False, False], [False, True], [False, False]):
        policy.restart(np.array(begins))
        seen.append(policy.act(observations).tolist())
    assert seen == [[0, 0], [0, 0], [0, 0], [1, 0]]


def test_an_evaluation_carries_the_memory_and_forgets_it_with_each_episode():
    env = EnvSpec(COUNTDOWN, {"lengths": (5,)}).make(2)
    with playing(env, remembering(), seed=0) as episodes:
        steps = list(islice(episodes, 11))
    env.close()
    # The sixth is the reset step, whose action counts nowhere; the next one acts on a first state.
    assert [step.real[0] for step in steps].index(False) == 5
    assert [step.actions.tolist() for step in steps] == [[k, k] for k in (0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1)]


def test_actions_reach_an_environment_in_the_form_that_it_takes(monkeypatch):
    monkeypatch.setattr("a3c.networks.distributions.FAMILIES", [SignFamily, *FAMILIES])
    network = MLPActorCritic(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)))
    policy = Policy(network, greedy=True)
    with torch.inference_mode():
        network.actor_head.bias += 9
        assert policy.choose(torch.zeros(3, 2)).tolist() == [[1], [1], [1]]
        assert policy.act(np.zeros((3, 2), np.float32)).tolist() == [[1.0], [1.0], [1.0]]


def test_an_agent_acts_on_each_observation_by_itself():
    agent = Agent(make_network(), EnvSpec(COUNTDOWN))
    observations = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    assert agent.act(observations).tolist() == [agent.act(observation) for observation in observations]
