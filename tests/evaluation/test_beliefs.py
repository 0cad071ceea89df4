import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import COUNTDOWN, fit, lively, make_network
from parts_env import ACTIONS, Parts

from a3c import Agent, ConvActorCritic, FullEpisode, L2Normalised, NStep, load
from a3c.envs.spec import EnvSpec
from a3c.evaluation.beliefs import Beliefs, draw, observe
from a3c.evaluation.policy_panels import MOST_OF_PART, panels_of
from a3c.networks import Categorical
from a3c.networks.distributions import Distribution, family_for


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
        family_for(spaces.Discrete(actions, start=1)),
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
    assert [text.get_text() for text in legend.get_texts()] == [f"action {1 + k}" for k in range(actions)]
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


def drawn(space, parameters, actions, squash=False):
    """The axes of each panel of a policy of these parameters, [T, P]."""
    family = family_for(space, squash)
    policy = family(torch.as_tensor(parameters, dtype=torch.float32))
    steps = len(actions)
    beliefs = Beliefs(np.zeros(steps), np.zeros(steps), family, policy, np.asarray(actions), 0, 1.0, True)
    figure = draw(beliefs, "an episode")
    figure.draw_without_rendering()
    return [axes for axes in figure.axes[1:] if axes.get_label() != "<colorbar>"]


def bands(axes):
    """Heights of the bands of one panel, [T, K]."""
    return np.stack([patch.get_data().values - patch.get_data().baseline for patch in axes.patches], -1)


def test_every_choice_has_bands_and_names_of_its_own():
    space = spaces.MultiDiscrete([2, 3], start=[5, -1])
    logits = np.log([[0.25, 0.75, 0.2, 0.3, 0.5], [0.5, 0.5, 0.1, 0.1, 0.8]])
    first, second = drawn(space, logits, [[0, 2], [1, 0]])
    assert bands(first) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]), abs=1e-6)
    assert bands(second) == pytest.approx(np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), abs=1e-6)
    names = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (first, second)]
    assert names == [["5", "6"], ["-1", "0", "1"]]
    taken = [[len(strip.get_paths()) for strip in axes.collections] for axes in (first, second)]
    assert taken == [[1, 1], [1, 0, 1]]


def test_of_many_choices_the_least_certain_are_drawn():
    logits = np.zeros((3, 20))
    logits[:, :8] = [9, 0] * 4  # the first four are certain
    panels = drawn(spaces.MultiDiscrete([2] * 10), logits, np.zeros((3, 10), int))
    titles = [axes.get_title(loc="left") for axes in panels]
    assert len(titles) == MOST_OF_PART
    assert titles[0] == "choice 4: probabilities · the 6 least certain of 10 are shown"
    assert titles[-1] == "choice 9: probabilities"


def test_switches_are_a_heat_map_with_those_that_were_on():
    (axes,) = drawn(spaces.MultiBinary(2), np.array([[0, 9], [-9, 0], [0, 0.0]]), [[1, 1], [0, 1], [0, 0]])
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.5, 0, 0.5], [1, 0.5, 0.5]], atol=1e-3)
    assert [len(strip.get_paths()) for strip in axes.collections] == [1, 2]


@pytest.mark.parametrize("squash", [False, True], ids=["clipped", "squashed"])
def test_means_deviations_and_actions_are_drawn_in_the_environments_units(squash):
    space = spaces.Box(np.float32([2, -np.inf]), np.float32([6, np.inf]))  # 4 ± 2 and u itself
    parameters = [[0.5, 7, np.log(0.25), 0], [3, -7, 0, np.log(2)]]
    first, second = drawn(space, parameters, np.float32([[0, 1], [-9, 2]]), squash)
    within = np.tanh if squash else lambda u: np.clip(u, -1, 1)
    mean, taken, *bounds = (line.get_ydata() for line in first.lines)
    assert mean == pytest.approx(4 + 2 * within(np.array([0.5, 3])))
    assert taken == pytest.approx(4 + 2 * within(np.array([0.0, -9])))
    assert [list(bound) for bound in bounds] == [[2, 2], [6, 6]]
    edges = first.collections[0].get_paths()[0].vertices[:, 1]
    assert edges.min() == pytest.approx(4 + 2 * within(0.25))
    mean, taken = (line.get_ydata().tolist() for line in second.lines)
    assert (mean, taken) == ([7, -7], [1, 2])
    edges = second.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((-9, 8))


def test_parts_are_drawn_one_below_another_by_their_paths():
    env = Parts("parts", masked=False)
    family = family_for(env.action_space)
    policy = family(torch.zeros(3, family.parameter_count))
    panels = panels_of(family, policy, policy.mode().numpy())
    assert [panel.title.split(" · ")[0] for panel in panels] == ["gear", "arm.0", "arm.0", "arm.1", "knobs", "knobs"]
    many = family_for(spaces.Tuple([spaces.Discrete(2)] * 11))
    policy = many(torch.zeros(3, 22))
    assert panels_of(many, policy, policy.mode().numpy())[-1].title.endswith("· 3 more parts are not shown")


class Odd(Distribution):
    sample = mode = log_prob = kl = None

    def entropy(self):
        return torch.tensor([1.0, 2.0])


def test_of_a_distribution_of_ones_own_the_entropy_is_drawn():
    beliefs = beliefs_of()._replace(policy=Odd(), values=np.zeros(2), returns_to_go=np.zeros(2), actions=np.zeros(2))
    panel = draw(beliefs, "an episode").axes[1]
    assert panel.get_title(loc="left") == "Odd is drawn by nothing here: its entropy"
    assert panel.lines[0].get_ydata().tolist() == [1, 2]


@pytest.mark.parametrize("actions", ACTIONS)
def test_a_policy_of_every_kind_is_drawn_evaluated_and_recorded(actions, tmp_path):
    masked = actions in ("discrete", "choices")  # an environment that is given a forbidden action raises
    arguments = {"actions": actions, "masked": masked, "length": 12}
    env = Parts(**arguments)
    network = ConvActorCritic(env.observation_space, env.action_space, torso="small", memory="gru", memory_size=8)
    agent = Agent(lively(network), EnvSpec("parts_env:Parts-v0", arguments))
    figure = agent.plot_beliefs(greedy=False)
    assert 2 <= len(figure.axes) <= 9
    assert agent.evaluate(2, greedy=False).length_mean == 12
    if actions == "parts":
        assert agent.record(tmp_path / "one.mp4").episode.length == 12
