"""Pictures of a comparison: colour by label, a panel for each mode; readable by the colour-blind and in print."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from a3c.comparison import statistics
from a3c.comparison.analysis import Comparison, Score, threshold_of
from a3c.comparison.records import Series
from a3c.comparison.statistics import LEAST_RUNS, Estimate
from a3c.comparison.variants import Variant
from a3c.comparison.words import chance

# Okabe and Ito's palette, told apart with all common kinds of colour blindness; its yellow is too faint for lines.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
STYLES = ("-", "--", ":", "-.")  # for labels beyond the palette
MARKERS = "os^DvP*X"
GREY = "#666666"
DPI = 110
LEAST_WIDTH = 7.0  # inches, for titles and legends
MOST_BANDS = 3  # of one panel that are still told apart
MOST_COLUMNS = 5  # of small panels
AXES = {"env_steps": "env steps", "updates": "updates", "seconds": "seconds of training"}

Style = dict[str, Any]


def learning_curves(comparison: Comparison, env: str, axis: str) -> Figure:
    """Draw the evaluations of all variants in an environment: interquartile mean and band, or single runs.

    Where bands would hide one another there are none.

    Args:
        comparison: what is drawn.
        env: environment id.
        axis: "env_steps", "updates" or "seconds".
    """
    modes = comparison.modes
    figure, panels = _figure(1, len(modes), 5.2, 4.2, legend=comparison.labels)
    threshold = threshold_of(env)
    styles = styles_of(comparison.labels)
    bands = not _are_too_many(comparison)
    for panel, mode in zip(panels, modes, strict=True):
        for variant in (each for each in comparison.variants if each.mode == mode):
            _draw_curve(panel, comparison, env, variant, axis, styles[variant.label], bands)
        if threshold is not None:
            panel.axhline(threshold, color=GREY, linestyle=(0, (1, 2)), linewidth=1.3)
        panel.set_title(mode)
        _name_axis(panel, axis)
        panel.set_xlim(left=0)  # where nothing was trained yet
    _share_heights(panels)
    panels[0].set_ylabel("greedy episode return")
    more = [] if threshold is None else [(f"solved at {threshold:g}", {"color": GREY, "linestyle": (0, (1, 2))})]
    _legend(figure, [*((label, styles[label]) for label in comparison.labels), *more])
    what = "interquartile mean and 95 % band" if bands else "interquartile means"
    if comparison.fewest < LEAST_RUNS:
        what = "single runs where fewer than 3"
    figure.suptitle(f"{env} against {AXES[axis]}\n{what}", fontsize=12)
    return figure


def small_multiples(comparison: Comparison, env: str) -> Figure | None:
    """Draw each variant by itself against env steps, with its band, before the others of its mode in grey.

    Returns:
        The figure; None where all bands can be told apart in one panel.
    """
    if not _are_too_many(comparison):
        return None
    variants = comparison.variants
    widest = _most_of_a_mode(comparison)
    columns = widest if widest <= MOST_COLUMNS else MOST_COLUMNS - 1  # if it can be, a row is a mode
    figure, panels = _figure(math.ceil(len(variants) / columns), columns, 3.2, 2.6, panels=len(variants))
    styles = styles_of(comparison.labels)
    for panel, variant in zip(panels, variants, strict=True):
        for other in variants:
            if other.mode == variant.mode and other != variant:
                grey: Style = {"color": "#c4c4c4", "zorder": 1}
                _draw_curve(panel, comparison, env, other, "env_steps", grey, with_band=False)
        _draw_curve(panel, comparison, env, variant, "env_steps", styles[variant.label], with_band=True)
        panel.set_title(textwrap.fill(str(variant), 30), fontsize=9)
        _name_axis(panel, "env_steps")
        panel.set_xlim(left=0)
    _share_heights(panels)
    figure.suptitle(f"{env}: greedy episode return, each variant before the others of its mode", fontsize=12)
    return figure


def _are_too_many(comparison: Comparison) -> bool:
    return _most_of_a_mode(comparison) > MOST_BANDS


def _most_of_a_mode(comparison: Comparison) -> int:
    modes = [variant.mode for variant in comparison.variants]
    return max(map(modes.count, modes))


def _draw_curve(
    panel: Axes, comparison: Comparison, env: str, variant: Variant, axis: str, style: Style, with_band: bool
) -> None:
    runs = comparison.of(env, variant)
    if len(runs) >= LEAST_RUNS:
        grid, curves = comparison.curves(env, variant, axis)
        middle, low, high = statistics.band(curves)
        if with_band:
            panel.fill_between(grid, low, high, color=style["color"], alpha=0.18, linewidth=0)
        panel.plot(grid, middle, linewidth=2 if with_band else 1.4, **style)
        return
    for run in runs:
        panel.plot(getattr(run.evaluations, axis), run.evaluations.returns, linewidth=1.2, **style)


def scores(comparison: Comparison, score: Score) -> Figure:
    """Draw a score: every run as a point, and the interquartile mean with its interval."""
    variants = comparison.variants
    figure, (panel,) = _figure(1, 1, 9, 0.8 + 0.42 * len(variants))
    styles = styles_of(comparison.labels)
    for place, variant in enumerate(variants):
        colour = styles[variant.label]["color"]
        values = np.concatenate(score.of(variant))
        below = np.full(len(values), place + 0.22)
        panel.plot(values, below, "o", color=colour, alpha=0.6, markersize=5, markeredgewidth=0)
        _draw_estimate(panel, score.estimates[variant], place, colour)
    _name_rows(panel, variants)
    panel.set_xlabel(f"{score.name}, normalised" if score.normalised else score.name)
    panel.set_title(f"{score.name}: runs, interquartile mean and 95 % interval")
    return figure


def _draw_estimate(panel: Axes, estimate: Estimate, place: float, colour: str) -> None:
    if estimate.has_interval:
        panel.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=4, solid_capstyle="butt")
    panel.plot([estimate.value] * 2, [place - 0.2, place + 0.12], color="black", linewidth=2)


def improvement_matrix(comparison: Comparison, score: Score) -> Figure:
    """Draw, for every pair of variants, the probability that a run of the row's scores higher than the column's."""
    variants = comparison.variants
    size = len(variants)
    figure, (panel,) = _figure(1, 1, 3.2 + 1.05 * size, 2.6 + 0.62 * size)
    values = np.full((size, size), math.nan)
    for row, first in enumerate(variants):
        for column, second in enumerate(variants):
            if row != column:
                estimate = score.probabilities[first, second]
                values[row, column] = estimate.value
                panel.text(
                    column,
                    row,
                    chance(estimate).replace(" [", "\n["),
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="black",
                )
    colours = LinearSegmentedColormap.from_list("improvement", ["#e8a06a", "#ffffff", "#7db4d8"])
    image = panel.imshow(values, vmin=0, vmax=1, cmap=colours, aspect="auto")
    ticks = [str(variant).replace(" · ", "\n") for variant in variants]
    panel.set_xticks(range(size), ticks, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    panel.set_yticks(range(size), [str(variant) for variant in variants], fontsize=9)
    panel.grid(visible=False)
    for place in _mode_changes(variants):
        panel.axhline(place, color="black", linewidth=1.2)
        panel.axvline(place, color="black", linewidth=1.2)
    panel.set_title(f"Probability that a run of the row has more {score.name} than one of the column", fontsize=11)
    figure.colorbar(image, ax=panel, shrink=0.8, label="probability")
    return figure


def time_to_solve(comparison: Comparison, env: str) -> Figure:
    """Draw when each run first reached the threshold; those that never did stand as crosses beyond a line."""
    variants = comparison.variants
    figure, panels = _figure(1, 2, 6.4, 0.9 + 0.42 * len(variants))
    styles = styles_of(comparison.labels)
    for panel, axis in zip(panels, ("env_steps", "seconds"), strict=True):
        spent = [float(getattr(run.evaluations, axis)[-1]) for run in comparison.on(env)]
        never = 1.08 * max(spent)
        panel.axvline(1.04 * max(spent), color=GREY, linewidth=1, linestyle=":")
        for place, variant in enumerate(variants):
            runs = comparison.of(env, variant)
            shifts = np.linspace(-0.22, 0.22, len(runs)) if len(runs) > 1 else [0.0]
            for shift, run in zip(shifts, runs, strict=True):
                when = getattr(comparison.solved(run), axis)
                where, marker = (when, "o") if math.isfinite(when) else (never, "x")
                panel.plot(where, place + shift, marker, color=styles[variant.label]["color"], markersize=6)
        _name_rows(panel, variants)
        panel.set_xlim(0, 1.13 * max(spent))
        _name_axis(panel, axis)
        panel.annotate(
            "never", (never, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9, color=GREY
        )
    panels[1].tick_params(labelleft=False)
    figure.suptitle(f"{env}: first evaluation that reaches {threshold_of(env):g}", fontsize=12)
    return figure


def probe(comparison: Comparison, env: str, measure: str) -> Figure:
    """Draw what the probes of all variants measured against env steps: a panel a variant, colour by probed label.

    Args:
        comparison: what is drawn.
        env: environment id.
        measure: such as "bias".
    """
    rows = sorted(comparison.variants, key=lambda variant: comparison.labels.index(variant.label))
    variants = [variant for variant in rows if _probed(comparison, env, variant, measure)]
    probed = probed_labels(comparison, env, measure)
    columns = len(comparison.modes) if len(comparison.modes) > 1 else min(3, len(variants))
    figure, panels = _figure(math.ceil(len(variants) / columns), columns, 4.6, 3.0, legend=probed, panels=len(variants))
    styles = styles_of([*comparison.labels, *(label for label in probed if label not in comparison.labels)])
    for panel, variant in zip(panels, variants, strict=True):
        for label, series in _probed(comparison, env, variant, measure):
            marked: Style = {**styles[label], "marker": "."} if len(series.values) < 30 else styles[label]
            panel.plot(series.env_steps, series.values, linewidth=1.2, alpha=0.8, **marked)
        panel.set_title(str(variant), fontsize=10)
        _name_axis(panel, "env_steps")
    _share_heights(panels)
    _legend(figure, [(label, styles[label]) for label in probed])
    figure.suptitle(f"{env}: {measure.replace('_', ' ')} of probed estimators\na line a run", fontsize=12)
    return figure


def probed_labels(comparison: Comparison, env: str, measure: str) -> list[str]:
    """Return the estimators that were probed for a measure in an environment."""
    runs = comparison.on(env)
    return list(dict.fromkeys(label for run in runs for label, name in run.probes if name == measure))


def _probed(comparison: Comparison, env: str, variant: Variant, measure: str) -> list[tuple[str, Series]]:
    return [
        (label, series)
        for run in comparison.of(env, variant)
        for (label, name), series in run.probes.items()
        if name == measure
    ]


def styles_of(labels: list[str]) -> dict[str, Style]:
    """Give every label a colour, and beyond the palette another line."""
    return {
        label: {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": STYLES[number // len(COLOURS) % len(STYLES)],
        }
        for number, label in enumerate(labels)
    }


def _figure(
    rows: int, columns: int, width: float, height: float, legend: Sequence[str] = (), panels: int | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels, in inches each, with room below for a legend of these labels and one more."""
    whole = max(columns * width, LEAST_WIDTH)
    below = 0.25 * math.ceil((len(legend) + 1) / _columns(legend, whole)) + 0.15 if legend else 0.0
    total = rows * height + 0.7 + below
    figure = Figure(figsize=(whole, total), dpi=DPI)
    figure.set_layout_engine("constrained", rect=(0, below / total, 1, 1 - below / total))
    FigureCanvasAgg(figure)
    made = [figure.add_subplot(rows, columns, number + 1) for number in range(panels or rows * columns)]
    for panel in made:
        panel.grid(alpha=0.25)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure, made


def _columns(labels: Sequence[str], width: float) -> int:
    """Return how many entries of a legend stand side by side within a width in inches."""
    entry = 0.8 + 0.085 * max(map(len, [*labels, "solved at 000"]))
    return max(1, min(len(labels) + 1, int(width / entry)))


def _legend(figure: Figure, entries: list[tuple[str, Style]]) -> None:
    handles = [Line2D([], [], label=label, linewidth=2, **style) for label, style in entries]
    columns = _columns([label for label, _ in entries][:-1] or [entries[0][0]], figure.get_figwidth())
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=10)


def _share_heights(panels: list[Axes]) -> None:
    lows, highs = zip(*(panel.get_ylim() for panel in panels), strict=True)
    padding = 0.03 * (max(highs) - min(lows))
    for panel in panels:
        panel.set_ylim(min(lows) - padding, max(highs) + padding)


def _name_axis(panel: Axes, axis: str) -> None:
    panel.set_xlabel(AXES[axis])
    if axis != "seconds":
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def _name_rows(panel: Axes, variants: list[Variant]) -> None:
    panel.set_yticks(range(len(variants)), [str(variant) for variant in variants])
    panel.set_ylim(len(variants) - 0.5, -0.5)
    for place in _mode_changes(variants):
        panel.axhline(place, color=GREY, linewidth=0.8)


def _mode_changes(variants: list[Variant]) -> list[float]:
    """Return the places between the variants of two modes."""
    return [place - 0.5 for place in range(1, len(variants)) if variants[place].mode != variants[place - 1].mode]


def file_part(name: str) -> str:
    """Return a name as a part of a picture's file name."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def all_of(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    """Draw every picture of a comparison but those of probes; return each with its file's name, without ending."""
    for env in comparison.envs:
        part = file_part(env)
        for axis in AXES:
            yield f"curves-{part}-{axis}", learning_curves(comparison, env, axis)
        if (each := small_multiples(comparison, env)) is not None:
            yield f"each-{part}", each
        if comparison.is_solved_by_any(env):
            yield f"solved-{part}", time_to_solve(comparison, env)
    yield "final", scores(comparison, comparison.final)
    yield "area", scores(comparison, comparison.area)
    if len(comparison.variants) > 1:
        yield "improvement", improvement_matrix(comparison, comparison.final)
