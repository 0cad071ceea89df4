"""What a network believes along one episode: its values against what came, and its policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from a3c.evaluation.episode import first_episode, playing
from a3c.networks import ActorCritic, Categorical, Distribution
from a3c.returns import discounted_sum

CAME, BELIEVED = "#777777", "#aa3377"  # of the lines; actions have other colours
_AT_ONCE = 256  # observations that a network is shown together
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#bbbbbb")  # the rest of Tol's bright scheme
MOST_NAMED = 20  # actions in a legend


class Beliefs(NamedTuple):
    """An episode of T steps as the network saw it.

    Attributes:
        values: the critic's value of each state, in its own units, [T].
        returns_to_go: discounted rewards from each state on, as a learner is given them, unscaled,
            [T]. Where the episode is cut they end in the critic's value of the last state, as in
            training; without it where that value is in other units.
        policy: the distributions that the actions come from, of parameters [T, P].
        actions: the actions taken, [T, *action_shape].
        episode_return: in the environment's own rewards, undiscounted.
        reward_scale: the critic's units for one of reward; None if it has no fixed ones.
        terminated: the episode ended in a terminal state; else it was cut, by a time limit mostly.
    """

    values: NDArray[np.float64]
    returns_to_go: NDArray[np.float64]
    policy: Distribution
    actions: NDArray[Any]
    episode_return: float
    reward_scale: float | None
    terminated: bool


def observe(
    env: VectorEnv,
    network: ActorCritic,
    discount: float,
    reward_scale: float | None,
    seed: int,
    greedy: bool = True,
) -> Beliefs:
    """Play one episode and note what the network thought.

    Args:
        env: one environment, with the rewards that a learner is given.
        network: policy and critic.
        discount: γ that the critic was trained with.
        reward_scale: factor on rewards that its values are in units of; None if there is no such.
        seed: of the environment and, if sampled, of the actions.
        greedy: take the most probable action; False samples.
    """
    with playing(env, network, seed, greedy) as episodes:
        steps = list(first_episode(episodes))
    terminated = bool(steps[-1].terminated[0])
    states = torch.from_numpy(np.stack([*(step.observations for step in steps), steps[-1].following]))
    with torch.inference_mode():
        # What a network without memory makes of all at once may not fit into the machine's.
        parts = torch.split(states, _AT_ONCE) if network.state_shape == (0,) else [states]
        judged = [network.judge(part, None, None) for part in parts]
    values = torch.cat([each.values for each in judged])[:, 0].double()
    parameters = torch.cat([each.parameters for each in judged])[:-1, 0]
    masks = [each.mask for each in judged if each.mask is not None]
    rewards = torch.from_numpy(np.array([step.rewards for step in steps], np.float64))
    discounts = torch.full_like(rewards, discount)
    discounts[-1] *= not terminated
    bootstrap_value = values[-1:] / reward_scale if reward_scale else torch.zeros_like(values[-1:])
    return Beliefs(
        values[:-1].numpy(),
        discounted_sum(rewards, discounts, bootstrap_value)[:, 0].numpy(),
        network.actions(parameters, torch.cat(masks)[:-1, 0] if masks else None),
        np.concatenate([step.actions for step in steps]),
        sum(float(step.own_rewards[0]) for step in steps),
        reward_scale,
        terminated,
    )


def draw(beliefs: Beliefs, title: str) -> Figure:
    """Draw values over what came in the end, and the policy with the actions taken below.

    Args:
        beliefs: of one episode.
        title: above the picture.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, sharex=True, height_ratios=(1.1, 1))
    figure.suptitle(title)
    _draw_values(above, beliefs)
    _DRAWN[type(beliefs.policy)](below, beliefs)
    below.set_xlabel("step of the episode")
    below.set_xlim(-0.5, len(beliefs.actions) - 0.5)
    return figure


def _draw_values(axes: Axes, beliefs: Beliefs) -> None:
    steps = np.arange(len(beliefs.values))
    came = "what came: discounted rewards to the end"
    if not beliefs.terminated and beliefs.reward_scale is not None:
        came += ", then the critic's own value"
    lines = axes.plot(steps, beliefs.returns_to_go, color=CAME, linewidth=2, label=came)
    axes.set_ylabel("discounted return to go")
    if beliefs.reward_scale is None:
        own, values, label = axes.twinx(), beliefs.values, "value V(s), in units of its own (right axis)"
        own.set_ylabel("V(s)")
    else:
        own, values, label = axes, beliefs.values / beliefs.reward_scale, "value V(s), in units of reward"
    lines += own.plot(steps, values, color=BELIEVED, linewidth=1.4, label=label)
    axes.grid(alpha=0.25)
    axes.legend(handles=lines, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)


def _draw_probabilities(axes: Axes, beliefs: Beliefs) -> None:
    assert isinstance(beliefs.policy, Categorical), "another kind is drawn in another way"
    probabilities = beliefs.policy.log_probabilities.exp().numpy()
    length, actions = probabilities.shape
    colours = _colours(actions)
    edges = np.arange(length + 1) - 0.5
    floor = np.zeros(length)
    for action, colour in enumerate(colours):
        ceiling = floor + probabilities[:, action]
        axes.stairs(ceiling, edges, baseline=floor, fill=True, color=colour, alpha=0.75, label=f"action {action}")
        floor = ceiling
        taken = np.flatnonzero(beliefs.actions == action)
        axes.broken_barh([(step - 0.5, 1.0) for step in taken], (1.04, 0.08), color=colour, linewidth=0)
    axes.set_ylim(0, 1.15)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1, 1.08], ["0", "0.25", "0.5", "0.75", "1", "taken"])
    axes.set_ylabel("probability of each action")
    if actions <= MOST_NAMED:
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)


def _colours(actions: int) -> list[str]:
    if actions <= len(COLOURS):
        return list(COLOURS[:actions])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["turbo"](np.linspace(0.05, 0.95, actions))]


_DRAWN: dict[type[Distribution], Callable[[Axes, Beliefs], None]] = {Categorical: _draw_probabilities}
