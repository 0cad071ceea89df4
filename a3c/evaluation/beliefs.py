"""What a network believes along one episode: its values against what came, and its policy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from a3c.evaluation.episode import first_episode, playing
from a3c.evaluation.policy_panels import panels_of
from a3c.networks import ActionFamily, ActorCritic, Distribution
from a3c.returns import discounted_sum

CAME, BELIEVED = "#777777", "#aa3377"  # of the lines; actions have other colours
MOST_NAMED = 20  # choices in a legend
LEGEND_ROWS = 7  # of a legend beside a panel
_AT_ONCE = 256  # observations that a network is shown together


class Beliefs(NamedTuple):
    """An episode of T steps as the network saw it.

    Attributes:
        values: the critic's value of each state, in its own units, [T].
        returns_to_go: discounted rewards from each state on, as a learner is given them, unscaled,
            [T]. Where the episode is cut they end in the critic's value of the last state, as in
            training; without it where that value is in other units.
        family: of the actions.
        policy: the distributions that the actions come from, of parameters [T, P].
        actions: the actions taken, [T, *action_shape].
        episode_return: in the environment's own rewards, undiscounted.
        reward_scale: the critic's units for one of reward; None if it has no fixed ones.
        terminated: the episode ended in a terminal state; else it was cut, by a time limit mostly.
    """

    values: NDArray[np.float64]
    returns_to_go: NDArray[np.float64]
    family: ActionFamily
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
        network.actions,
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
    panels = panels_of(beliefs.family, beliefs.policy, beliefs.actions)
    single = len(panels) == 1
    heights = [3.4, *(max(3.0 if single else 1.7, min(0.25 * panel.rows, 6)) for panel in panels)]
    figure = Figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, *below = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    figure.suptitle(title)
    _draw_values(above, beliefs)
    for axes, panel in zip(below, panels, strict=True):
        panel.draw(axes)
        axes.set_title(panel.title, loc="left", fontsize="medium")
        if panel.choices <= MOST_NAMED:
            _name_choices(axes, panel.choices, single)
    below[-1].set_xlabel("step of the episode")
    below[-1].set_xlim(-0.5, len(beliefs.actions) - 0.5)
    return figure


def _name_choices(axes: Axes, choices: int, single: bool) -> None:
    """Name the colours of choices: below the picture, or beside the panel if it is one of several."""
    handles, labels = axes.get_legend_handles_labels()
    if not choices:
        return
    if single:
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False)
        return
    columns = -(-choices // LEGEND_ROWS)
    labels = [label.removeprefix("action ") for label in labels]
    axes.legend(
        handles,
        labels,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=columns,
        frameon=False,
        fontsize="small",
        handlelength=1,
        columnspacing=1,
    )


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
