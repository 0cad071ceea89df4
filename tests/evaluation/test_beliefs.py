import numpy as np
import pytest
import torch
from helpers import COUNTDOWN, fit, make_network

from a3c import Agent, FullEpisode, L2Normalised, NStep, load
from a3c.envs.spec import EnvSpec
from a3c.evaluation.beliefs import Beliefs, draw, observe
from a3c.networks import Categorical


def observed(network=None, reward_scale=1.0, seed=0, greedy=True, terminal_reward=None, **env_kwargs):
    wrappers = [] if terminal_reward is None else [["a3c.TerminalReward", {"reward": terminal_reward}]]
    env = EnvSpec(COUNTDOWN, {"lengths": (3,), **env_kwargs}, wrappers=wrappers).make(1)
    return observe(env, network or make_network(), 0.5, reward_scale, seed, greedy)


def states(count):
    return torch.tensor([[0.0, step] for step in range(count)])


def test_what_came_is_the_discounted_sum_of_rewards_to_a_terminal_state():
    beliefs = observed()
    assert beliefs.terminated
    assert beliefs.returns_to_go.tolist() == [1 + 0.5 * 2 + 0.25 * 3, 2 + 0.5 * 3, 3]
    assert beliefs.episode_return == 1 + 2 + 3


def test_an_episode_that_is_cut_off_is_completed_by_the_last_states_value_in_units_of_reward():
    network = make_network()
    with torch.no_grad():
        after = network(states(4))[1][3].item() / 0.1
    beliefs = observed(network, reward_scale=0.1, truncate=True)
    assert not beliefs.terminated
    assert beliefs.returns_to_go == pytest.approx([2.75 + 0.125 * after, 3.5 + 0.25 * after, 3 + 0.5 * after])


def test_a_value_of_unknown_units_completes_nothing():
    assert observed(reward_scale=None, truncate=True).returns_to_go.tolist() == [2.75, 3.5, 3]


def test_what_came_is_what_a_learner_is_given_and_the_return_is_the_environments_own():
    beliefs = observed(terminal_reward=-10)
    assert beliefs.returns_to_go.tolist() == [1 + 0.5 * 2 - 0.25 * 10, 2 - 0.5 * 10, -10]
    assert beliefs.episode_return == 6


def test_values_and_probabilities_are_the_networks_on_the_states_before_each_step():
    network = make_network()
    with torch.no_grad():
        logits, values = network(states(3))
    beliefs = observed(network)
    assert beliefs.values == pytest.approx(values.numpy())
    assert beliefs.policy.log_probabilities.exp().numpy() == pytest.approx(logits.softmax(-1).numpy())
    assert beliefs.actions.tolist() == logits.argmax(-1).tolist()


def test_sampled_actions_come_from_the_seed():
    torch.manual_seed(0)
    network = make_network()
    ours, again, other = (observed(network, seed=seed, greedy=False, lengths=(60,)) for seed in (1, 1, 2))
    assert ours.actions.tolist() == again.actions.tolist() != other.actions.tolist()
    assert len(set(ours.actions.tolist())) == 3


def beliefs_of(actions=2, reward_scale=0.1, terminated=True):
    steps = 6
    return Beliefs(
        np.arange(steps) / 10,
        np.arange(steps) + 1.0,
        Categorical(torch.zeros(steps, actions)),
        np.arange(steps) % actions,
        1,
        reward_scale,
        terminated,
    )


def test_values_are_drawn_in_units_of_reward_on_one_axis_with_what_came():
    figure = draw(beliefs_of(), "an episode")
    values, policy = figure.axes
    came, believed = values.lines
    assert came.get_ydata().tolist() == [1, 2, 3, 4, 5, 6]
    assert believed.get_ydata() == pytest.approx([0, 1, 2, 3, 4, 5])
    assert policy.get_xlim() == (-0.5, 5.5)


def test_values_of_unknown_units_get_an_axis_of_their_own():
    figure = draw(beliefs_of(reward_scale=None), "an episode")
    assert len(figure.axes) == 3
    (believed,) = figure.axes[2].lines
    assert believed.get_ydata() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("actions", [2, 6, 18])
def test_every_action_has_a_colour_and_a_name_within_the_picture(actions):
    figure = draw(beliefs_of(actions), "an episode")
    figure.draw_without_rendering()
    patches = figure.axes[1].patches
    assert len({patch.get_facecolor() for patch in patches}) == actions
    (legend,) = figure.legends
    assert len(legend.get_texts()) == actions
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


@pytest.mark.parametrize(
    ("returns", "reward_scale"),
    [(NStep(8), 0.25), (L2Normalised(FullEpisode()), None)],
    ids=["scaled", "normalised"],
)
def test_a_loaded_agent_knows_the_units_of_its_values(tmp_path, returns, reward_scale):
    _, _, trainer = fit(returns, max_env_steps=100, learning={"discount": 0.9, "reward_scale": 0.25})
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    agent = load(tmp_path / "some.ckpt")
    assert (agent.discount, agent.reward_scale) == (0.9, reward_scale)
    assert agent.checkpoint == tmp_path / "some.ckpt"


def test_the_picture_says_what_it_shows():
    agent = Agent(make_network(), EnvSpec(COUNTDOWN, {"lengths": (3,)}))
    title = agent.plot_beliefs(seed=5)._suptitle.get_text()
    assert title == f"{COUNTDOWN} · greedy · seed 5 · return 6 · terminated after 3 steps"
