"""Pictures of a policy along one episode: a panel for each choice, each number or all switches of an action."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from matplotlib.axes import Axes
from numpy.typing import NDArray

from a3c.networks.distributions import (
    ActionFamily,
    Bernoulli,
    Categorical,
    Composite,
    CompositeFamily,
    Distribution,
    Gaussian,
    MultiCategorical,
)

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#bbbbbb")  # of Tol's bright scheme
TAKEN = "#222222"
MOST_PANELS = 8
MOST_OF_PART = 6


class Panel(NamedTuple):
    """One picture below others, with the episode's steps as x-axis.

    Attributes:
        title: what it shows.
        draw: draws it.
        choices: number of things whose colours a legend may name; 0 if it has a legend of its own, or needs none.
        rows: of a heat map, which wants height for each.
    """

    title: str
    draw: Callable[[Axes], None]
    choices: int = 0
    rows: int = 0


class _Part(NamedTuple):
    """An action, or a part of one by its path, along T steps: actions as a batch holds them, [T, *shape]."""

    path: str
    family: ActionFamily
    policy: Distribution
    actions: NDArray[Any]

    def named(self, words: str) -> str:
        return f"{self.path} · {words}" if self.path else words


def panels_of(family: ActionFamily, policy: Distribution, actions: NDArray[Any]) -> list[Panel]:
    """Return the panels of a policy along an episode of T steps: `MOST_PANELS` at most, and `MOST_OF_PART` of a part.

    Where an action has more choices or numbers than that, those are shown of which the policy is least certain; of
    a distribution of one's own its entropy.

    Args:
        family: of the actions.
        policy: the distributions that they come from, of parameters [T, P].
        actions: those taken, as a batch holds them, [T, *action_shape].
    """
    parts = list(_parts(_Part("", family, policy, actions)))
    most = min(MOST_OF_PART, max(1, MOST_PANELS // len(parts)))
    panels = [panel for part in parts[:MOST_PANELS] for panel in _drawn(part.policy)(part, most)]
    if len(parts) > MOST_PANELS:
        last = panels[-1]
        panels[-1] = last._replace(title=f"{last.title} · {len(parts) - MOST_PANELS} more parts are not shown")
    return panels


def _parts(part: _Part) -> Iterator[_Part]:
    if not (isinstance(part.family, CompositeFamily) and isinstance(part.policy, Composite)):
        yield part
        return
    layout = part.family.layout(part.family.space)
    for key, family in part.family.parts.items():
        path = f"{part.path}.{key}" if part.path else key
        yield from _parts(_Part(path, family, part.policy.parts[key], layout.part(key, part.actions)))


def _drawn(policy: Distribution) -> Callable[[_Part, int], list[Panel]]:
    """Return what draws a distribution; one of one's own that derives from ours is drawn as that."""
    return next((_DRAWN[kind] for kind in type(policy).__mro__ if kind in _DRAWN), _unknown)


def _unknown(part: _Part, most: int) -> list[Panel]:
    entropy = part.policy.entropy().numpy()

    def draw(axes: Axes) -> None:
        axes.plot(entropy, color=COLOURS[0])
        axes.grid(alpha=0.25)
        axes.set_ylabel("nats")

    words = f"{type(part.policy).__name__} is drawn by nothing here: its entropy"
    return [Panel(part.named(words), draw)]


def _categorical(part: _Part, most: int) -> list[Panel]:
    assert isinstance(part.policy, Categorical), "another kind is drawn in another way"
    probabilities = part.policy.log_probabilities.exp().numpy()
    start = int(part.family.space.start) if isinstance(part.family.space, spaces.Discrete) else 0
    return [_bands(part.named("probability of each action"), probabilities, part.actions, start)]


def _multi_categorical(part: _Part, most: int) -> list[Panel]:
    assert isinstance(part.policy, MultiCategorical), "another kind is drawn in another way"
    space = part.family.space
    assert isinstance(space, spaces.MultiDiscrete), "which is what such distributions are for"
    logs = part.policy.log_probabilities
    probabilities = logs.exp().numpy()  # [T, G, K]
    entropies = -(probabilities * logs.clamp(min=-1e9).numpy()).sum(-1)
    actions, sizes, starts = part.actions.reshape(entropies.shape), space.nvec.ravel(), space.start.ravel()
    shown = _least_certain(entropies.mean(0), most)
    return [
        _bands(
            part.named(f"choice {_place(place, space.shape)}: probabilities{_of(place, shown, len(sizes))}"),
            probabilities[:, place, : sizes[place]],
            actions[:, place],
            int(starts[place]),
        )
        for place in shown
    ]


def _bands(title: str, probabilities: NDArray[Any], actions: NDArray[Any], start: int) -> Panel:
    """Stack probabilities [T, K] of choices that are counted from a number; the taken ones, from 0, stand above."""
    length, choices = probabilities.shape

    def draw(axes: Axes) -> None:
        edges, floor = np.arange(length + 1) - 0.5, np.zeros(length)
        for choice, colour in enumerate(_colours(choices)):
            ceiling = floor + probabilities[:, choice]
            axes.stairs(
                ceiling, edges, baseline=floor, fill=True, color=colour, alpha=0.75, label=f"action {start + choice}"
            )
            floor = ceiling
            taken = np.flatnonzero(actions == choice)
            axes.broken_barh([(step - 0.5, 1.0) for step in taken], (1.08, 0.2), color=colour, linewidth=0)
        axes.set_ylim(0, 1.28)
        axes.set_yticks([0, 0.5, 1, 1.18], ["0", "0.5", "1", "taken"])

    return Panel(title, draw, choices)


def _bernoulli(part: _Part, most: int) -> list[Panel]:
    assert isinstance(part.policy, Bernoulli), "another kind is drawn in another way"
    probabilities = part.policy.logits.sigmoid().numpy().T  # [n, T]
    on = part.actions.reshape(probabilities.shape[::-1]).T > 0
    switches, length = probabilities.shape

    def draw(axes: Axes) -> None:
        extent = (-0.5, length - 0.5, switches - 0.5, -0.5)
        image = axes.imshow(
            probabilities, cmap="Blues", vmin=0, vmax=1, aspect="auto", extent=extent, interpolation="nearest"
        )
        for row, taken in enumerate(on):
            bars = [(step - 0.5, 1.0) for step in np.flatnonzero(taken)]
            axes.broken_barh(bars, (row - 0.08, 0.16), color=COLOURS[1], linewidth=0)
        every = -(-switches // 12)
        shape = part.family.space.shape or ()
        axes.set_yticks(range(0, switches, every), [_place(row, shape) for row in range(0, switches, every)])
        axes.set_ylabel("switch")
        axes.figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01)

    return [Panel(part.named("probability of each switch, and in red where it was on"), draw, rows=switches)]


def _gaussian(part: _Part, most: int) -> list[Panel]:
    assert isinstance(part.policy, Gaussian), "another kind is drawn in another way"
    policy, family, space = part.policy, part.family, part.family.space
    mean, std = policy.mean, policy.std
    shape = (len(mean), *(space.shape or ()))

    def for_env(u: Any) -> NDArray[Any]:
        actions: NDArray[Any] = np.asarray(family.for_env(u.reshape(shape).numpy()))
        return actions.reshape(len(mean), -1)

    low, middle, high = for_env(mean - std), for_env(mean), for_env(mean + std)
    taken = np.asarray(family.for_env(part.actions)).reshape(len(mean), -1)
    shown = _least_certain(std.mean(0).numpy(), most)

    def panel(place: int) -> Panel:
        def draw(axes: Axes) -> None:
            steps = np.arange(len(mean))
            axes.fill_between(
                steps, low[:, place], high[:, place], color=COLOURS[0], alpha=0.3, linewidth=0, label="± std"
            )
            axes.plot(steps, middle[:, place], color=COLOURS[0], label="mean")
            size = 4 if len(mean) <= 200 else 1.5
            axes.plot(steps, taken[:, place], ".", color=TAKEN, markersize=size, label="taken")
            axes.grid(alpha=0.25)
            if isinstance(space, spaces.Box):
                for bound in (space.low.ravel()[place], space.high.ravel()[place]):
                    if abs(bound) < np.finfo(np.float32).max:
                        axes.axhline(bound, color=TAKEN, linestyle=":", linewidth=1)
            if place == shown[0]:
                axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, borderaxespad=0.1)

        title = f"number {_place(place, space.shape or ())}{_of(place, shown, taken.shape[1])}"
        return Panel(part.named(title), draw)

    return [panel(place) for place in shown]


def _least_certain(uncertainties: NDArray[Any], most: int) -> list[int]:
    """Return the places of the largest of some numbers, in the order of places."""
    return sorted(np.argsort(-uncertainties, kind="stable")[:most].tolist())


def _of(place: int, shown: list[int], number: int) -> str:
    """Say in the first of several titles that there are more."""
    left_out = len(shown) < number and place == shown[0]
    return f" · the {len(shown)} least certain of {number} are shown" if left_out else ""


def _place(place: int, shape: tuple[int, ...]) -> str:
    return ", ".join(str(index) for index in np.unravel_index(place, shape or (1,)))


def _colours(actions: int) -> list[str]:
    if actions <= len(COLOURS):
        return list(COLOURS[:actions])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["turbo"](np.linspace(0.05, 0.95, actions))]


_DRAWN: dict[type[Distribution], Callable[[_Part, int], list[Panel]]] = {
    Categorical: _categorical,
    MultiCategorical: _multi_categorical,
    Bernoulli: _bernoulli,
    Gaussian: _gaussian,  # and TanhGaussian, whose `for_env` differs
}
