"""Pictures of a run, drawn from its metrics.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from a3c.rollouts.progress import WINDOW

BLUE, RED = "#4477aa", "#ee6677"


def read_metric(path: Path, key: str, axis: str = "env_steps") -> tuple[list[float], list[float]]:
    """Return the places and values at which a metric was logged.

    Args:
        path: a metrics.csv.
        key: the metric; both lists are empty where it never was logged.
        axis: the metric that says where.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row.get(axis), row.get(key)) for row in csv.DictReader(file)]
    points = [(float(place), float(value)) for place, value in rows if place and value]
    return [place for place, _ in points], [value for _, value in points]


def learning_curve(metrics: Path, title: str, threshold: float | None = None) -> Figure:
    """Draw the episode return against env steps: running mean in training, and evaluations.

    Args:
        metrics: a run's metrics.csv.
        title: above the picture.
        threshold: return at which the environment counts as solved, drawn as a line.
    """
    figure, axes = _axes(title, "env steps", "episode return")
    steps, values = read_metric(metrics, "rollout/episode_return")
    axes.plot(steps, values, color=BLUE, linewidth=1.6, label=f"training, mean of the last {WINDOW} episodes")
    steps, values = read_metric(metrics, "eval/episode_return")
    if steps:
        axes.plot(steps, values, "o-", color=RED, markersize=4, linewidth=1, label="greedy evaluation")
    if threshold is not None and math.isfinite(threshold):
        axes.axhline(threshold, color="#888888", linestyle="--", linewidth=1, label=f"solved at {threshold:g}")
    _finish(axes)
    return figure


def episode_length_curve(metrics: Path, title: str) -> Figure:
    """Draw the running mean of the episode length against the number of episodes, as the book does.

    Args:
        metrics: a run's metrics.csv.
        title: above the picture.
    """
    figure, axes = _axes(title, "episodes of all workers", "steps of an episode")
    episodes, lengths = read_metric(metrics, "rollout/episode_length", "rollout/episodes")
    axes.plot(episodes, lengths, color=BLUE, linewidth=1.6, label=f"training, mean of the last {WINDOW} episodes")
    _finish(axes)
    return figure


def _axes(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes: Axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25)
    return figure, axes


def _finish(axes: Axes) -> None:
    """Begin the x-axis at 0, once the data have said where it ends."""
    axes.set_xlim(left=0)
    axes.legend(loc="best", frameon=False)
