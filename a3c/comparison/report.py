"""The report of a comparison: report.md, report.html, results.csv and the pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from a3c.comparison import pictures, settings
from a3c.comparison.analysis import Comparison, Score, threshold_of
from a3c.comparison.document import bullets, heading, picture, plain, table, to_html
from a3c.comparison.pictures import AXES, file_part, probed_labels
from a3c.comparison.records import Run
from a3c.comparison.words import METHOD, PAIR_COLUMNS, figure_of, pair_rows, sentences
from a3c.runs.figures import figure
from a3c.runs.files import replacing

PICTURES = "pictures"
OWN_PICTURES = ("final", "area", "improvement", "curves-*", "each-*", "solved-*", "probe-*")
FITTING = 9  # variants whose matrix is still read in a page's width
COLUMNS = (
    *("env", "label", "mode", "seed", "budget", "env_steps", "updates", "train_seconds"),
    *("final_return", "area", "solved_at_env_steps", "solved_at_seconds", "path"),
)


def write_report(
    comparison: Comparison, folder: Path, title: str, troubles: Sequence[str] = (), origin: str = ""
) -> Path:
    """Write the report into a folder, over an older one.

    Args:
        comparison: what is reported.
        folder: where; it exists.
        title: the comparison's name.
        troubles: what went wrong with runs that are not in the comparison, a sentence each.
        origin: by what the report was made, a sentence.

    Returns:
        The HTML file.
    """
    (folder / PICTURES).mkdir(exist_ok=True)
    for name in OWN_PICTURES:  # of an earlier report; whatever else lies there is the user's
        for old in (folder / PICTURES).glob(f"{name}.png"):
            old.unlink()
    text = "\n\n".join(_parts(comparison, folder, title, troubles, origin)) + "\n"
    _write_results(comparison, folder)
    (folder / "report.md").write_text(text, encoding="utf-8")
    wide = [Path(PICTURES, "improvement.png")] if len(comparison.variants) > FITTING else []
    (folder / "report.html").write_text(to_html(text, f"Comparison {title}", folder, wide), encoding="utf-8")
    return folder / "report.html"


def _parts(comparison: Comparison, folder: Path, title: str, troubles: Sequence[str], origin: str) -> Iterator[str]:
    yield heading(f"Comparison {title}", 1)
    yield plain(_overview(comparison))
    if origin:
        yield plain(origin)
    yield from _given_parts(comparison, troubles)
    yield heading("What can be told")
    for score in (comparison.final, comparison.area):
        yield heading(score.name.capitalize(), 3)
        yield plain(f"The {score.name} is the {score.meaning}.{_normalisation(score)}")
        yield _score_table(comparison, score)
        if told := list(sentences(comparison, score, told_only=True)):
            yield bullets(told)
        if pairs := pair_rows(score):
            yield table(PAIR_COLUMNS, pairs)
    yield heading("How it is decided")
    yield from map(plain, METHOD)
    drawn = {name: _save(figure, folder, name) for name, figure in pictures.all_of(comparison)}
    yield heading("Scores")
    yield picture(drawn["final"], "Final return: runs, interquartile mean and 95 % interval")
    yield picture(drawn["area"], "Area under the curve: runs, interquartile mean and 95 % interval")
    if "improvement" in drawn:
        yield heading("Probability of improvement")
        caption = "Final return: probability that the row's runs score higher"
        yield picture(drawn["improvement"], caption)
    for env in comparison.envs:
        part = file_part(env)
        yield heading(f"Learning curves on {env}")
        for axis, name in AXES.items():
            yield picture(drawn[f"curves-{part}-{axis}"], f"Greedy return against {name}")
        if f"each-{part}" in drawn:
            yield picture(drawn[f"each-{part}"], "Each variant by itself, with its 95 % band")
        if (threshold := threshold_of(env)) is not None:
            yield heading(f"Time to solve {env}")
            if f"solved-{part}" in drawn:
                yield picture(drawn[f"solved-{part}"], "First evaluation that reaches the threshold; crosses never did")
                yield _solve_table(comparison, env)
            else:
                yield plain(f"No evaluation of any run came to {threshold:g} within the budget.")
        yield from _probe_parts(comparison, env, folder)
    yield heading("All runs")
    yield plain(
        "The final return is that of the greedy policy. Beside it stands the mean return of the last episodes that the "
        "run was trained on, whose actions are drawn: it tells how training went, not how good the policy is."
    )
    yield table(
        ("run", "seed", "final return, greedy", "return in training", "env steps", "updates", "seconds"),
        [_run_row(comparison, run, folder) for run in comparison.runs],
    )


def _given_parts(comparison: Comparison, troubles: Sequence[str]) -> Iterator[str]:
    notes = [*troubles, *comparison.notes, *settings.differences(comparison)]
    if notes:
        yield heading("What to know of the runs")
        yield bullets(notes)
    yield heading("What the runs were given")
    if shared := settings.shared_rows(comparison):
        yield table(("shared by all", "settings"), shared)
    yield table(settings.OWN_COLUMNS, settings.own_rows(comparison))


def _overview(comparison: Comparison) -> str:
    parts = []
    for env in comparison.envs:
        runs = comparison.on(env)
        end = comparison.span(env)[1]
        parts.append(f"{env}: {len(runs)} runs, compared on {end:,.0f} env steps each")
    seeds = sorted({run.seed for run in comparison.runs})
    return (
        f"{len(comparison.variants)} variants ({', '.join(map(str, comparison.variants))}). {'; '.join(parts)}. "
        f"Seeds {', '.join(map(str, seeds))}."
    )


def _normalisation(score: Score) -> str:
    if not score.normalised:
        return ""
    return (
        " Within each environment 0 is the lowest and 1 the highest return that any evaluation of any of these runs "
        "came to, so that environments count the same."
    )


def _score_table(comparison: Comparison, score: Score) -> str:
    rows = []
    for variant in sorted(comparison.variants, key=lambda variant: score.estimates[variant].value, reverse=True):
        values = np.concatenate(score.of(variant))
        lowest, highest = figure(float(values.min())), figure(float(values.max()))
        rows.append(
            [variant.label, variant.mode, str(len(values)), figure_of(score.estimates[variant]), lowest, highest]
        )
    return table(("variant", "mode", "runs", "IQM [95 % interval]", "lowest", "highest"), rows)


def _solve_table(comparison: Comparison, env: str) -> str:
    rows = []
    for variant in comparison.variants:
        runs = comparison.of(env, variant)
        times = [comparison.solved(run) for run in runs]
        never = [str(run.seed) for run, time in zip(runs, times, strict=True) if math.isinf(time.env_steps)]
        rows.append(
            [
                variant.label,
                variant.mode,
                f"{len(runs) - len(never)} of {len(runs)}",
                _or_never(float(np.median([time.env_steps for time in times])), "{:,.0f}"),
                _or_never(float(np.median([time.seconds for time in times])), "{:.2f} s"),
                ", ".join(never) or "–",
            ]
        )
    header = (
        "variant",
        "mode",
        "solved",
        "env steps, median of all runs",
        "seconds, median of all runs",
        "never: seeds",
    )
    return table(header, rows)


def _probe_parts(comparison: Comparison, env: str, folder: Path) -> Iterator[str]:
    runs = comparison.on(env)
    measures = list(dict.fromkeys(measure for run in runs for _, measure in run.probes))
    if not measures:
        return
    yield heading(f"Estimators probed on {env}")
    yield plain("The same batches under other estimators, as a probe logged them; means over all rows and runs.")
    for measure in measures:
        name = f"probe-{file_part(f'{env}-{measure}')}"
        caption = f"{measure.replace('_', ' ').capitalize()} against env steps"
        yield picture(_save(pictures.probe(comparison, env, measure), folder, name), caption)
    rows = []
    for variant in comparison.variants:
        cell = comparison.of(env, variant)
        labels = dict.fromkeys(label for measure in measures for label in probed_labels(comparison, env, measure))
        for label in labels:
            means = [_probe_mean(cell, label, measure) for measure in measures]
            if any(mean is not None for mean in means):
                shown = ["–" if mean is None else f"{mean:.4g}" for mean in means]
                rows.append([variant.label, variant.mode, label, *shown])
    yield table(("trained with", "mode", "probed", *(measure.replace("_", " ") for measure in measures)), rows)


def _probe_mean(runs: Sequence[Run], label: str, measure: str) -> float | None:
    values = [run.probes[label, measure].values for run in runs if (label, measure) in run.probes]
    return float(np.mean(np.concatenate(values))) if values else None


def _save(figure: Figure, folder: Path, name: str) -> Path:
    path = Path(PICTURES, f"{name}.png")
    figure.savefig(folder / path)
    return path


def _write_results(comparison: Comparison, folder: Path) -> None:
    with replacing(folder / "results.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_result(comparison, run, folder) for run in comparison.runs)


def _result(comparison: Comparison, run: Run, folder: Path) -> list[object]:
    last = {axis: getattr(run.evaluations, axis)[-1] for axis in AXES}
    solved = comparison.solved(run)
    never = math.isinf(solved.env_steps)
    return [
        *(run.env, run.variant.label, run.variant.mode, run.seed, run.budget),
        *(int(last["env_steps"]), int(last["updates"]), last["seconds"]),
        comparison.final_of(run),
        comparison.area_of(run),
        *(("", "") if never else (int(solved.env_steps), solved.seconds)),
        _place(run, folder),
    ]


def _run_row(comparison: Comparison, run: Run, folder: Path) -> list[str]:
    last = [float(axis[-1]) for axis in run.evaluations]
    final = figure(comparison.final_of(run))
    trained = "–" if run.train_return is None else figure(run.train_return)
    return [_place(run, folder), str(run.seed), final, trained, f"{last[0]:,.0f}", f"{last[1]:,.0f}", f"{last[2]:.2f}"]


def _place(run: Run, folder: Path) -> str:
    """Return where a run is, from the report's folder if it lies in there."""
    return str(run.path.relative_to(folder) if run.path.is_relative_to(folder) else run.path)


def _or_never(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "never"
