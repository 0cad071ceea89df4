"""Pictures of a run, drawn from its metrics.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from a3c.rollouts.progress import WINDOW


def read_metric(path: Path, key: str) -> tuple[list[float], list[float]]:
    """Gives the env steps and values at which a metric was logged.

    Args:
        path: a metrics.csv.
        key: the metric; both lists are empty where it never was logged.
    """
    with path.open(newline="") as file:
        rows = [(row.get("env_steps"), row.get(key)) for row in csv.DictReader(file)]
    points = [(float(steps), float(value)) for steps, value in rows if steps and value]
    return [steps for steps, _ in points], [value for _, value in points]


def learning_curve(metrics: Path, title: str, threshold: float | None = None) -> Figure:
    """Draws the episode return against env steps: running mean in training, and evaluations.

    Args:
        metrics: a run's metrics.csv.
        title: above the picture.
        threshold: return at which the environment counts as solved, drawn as a line.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Axes = figure.add_subplot()
    steps, values = read_metric(metrics, "rollout/episode_return")
    axes.plot(steps, values, color="#4477aa", linewidth=1.6, label=f"training, mean of the last {WINDOW} episodes")
    steps, values = read_metric(metrics, "eval/episode_return")
    if steps:
        axes.plot(steps, values, "o-", color="#ee6677", markersize=4, linewidth=1, label="greedy evaluation")
    if threshold is not None and math.isfinite(threshold):
        axes.axhline(threshold, color="#888888", linestyle="--", linewidth=1, label=f"solved at {threshold:g}")
    axes.set_title(title)
    axes.set_xlabel("env steps")
    axes.set_ylabel("episode return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.legend(loc="best", frameon=False)
    return figure
