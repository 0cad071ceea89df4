"""Prints what scripts/scaling.py has measured and predicts, as tables and plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from throughput.inference import compare_inference
from throughput.model import (
    Parts,
    Setup,
    collect_seconds,
    predict,
    recommend,
    update_seconds,
    workers_until_full,
)

Record = dict[str, Any]
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def console() -> Console:
    """Return where tables go; wide enough for them where it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=130)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    for row in rows:
        made.add_row(*row)
    console().print(made)


def show(parts: Parts, setup: Setup) -> list[Record]:
    """Print parts, predictions, what to set and where it saturates; return the lines for a file."""
    envs, steps = setup.envs_per_worker, setup.steps
    table(f"Parts, {envs} environments × {setup.n_steps} steps", ("part", "µs", "share"), part_rows(parts, setup))
    full = workers_until_full(parts, setup)
    table(
        f"Predicted for {setup.cores} cores; with enough {full} worker{'s' * (full > 1)} would fill the learner",
        ("mode, workers", "env steps/s", "with cores enough", "lag", "limit", "learner busy", "cores busy"),
        prediction_rows(parts, setup),
    )
    best, speed = recommend(parts, setup)
    lines = [
        f"Set: --data.workers {best.workers} --data.envs_per_worker {best.envs_per_worker} "
        f"--data.rollouts_per_update {best.rollouts_per_update}",
        f"     {speed.env_steps_per_second:,.0f} env steps/s, lag {lag_words(speed.lag)}, by prediction; "
        f"updates of {steps:,} steps as before",
        advice(parts, replace(best, passes=setup.passes), speed.limit),
        inference(parts, setup),
    ]
    console().print("\n".join(lines), highlight=False, soft_wrap=True)
    return [{"part": "scaling, parts", "setup": asdict(setup), "parts": asdict(parts)}]


def part_rows(parts: Parts, setup: Setup) -> Iterator[tuple[str, str, str]]:
    """Return the rows of the table of parts: of a worker's rollout, then of the learner's update."""
    envs, length = setup.envs_per_worker, setup.n_steps
    worker = {
        f"environment, {length} steps": length * parts.env(envs),
        f"forward and sampling, {length} times": length * parts.forward(envs),
        "writing": length * parts.writing(envs),
        "pull, log-probabilities, checks, episodes": parts.rollout(envs),
    }
    collect, update = collect_seconds(parts, setup), update_seconds(parts, setup)
    for name, seconds in worker.items():
        yield name, f"{seconds * 1e6:,.0f}", f"{seconds / collect:.0%}"
    yield "a rollout", f"{collect * 1e6:,.0f}", f"{parts.cores(envs):.2f} cores"
    yield "announcing it", f"{parts.send * 1e6:,.0f}", ""
    yield "receiving it, of 1 worker", f"{parts.receive(1) * 1e6:,.0f}", ""
    yield "receiving it, of 64 workers", f"{parts.receive(64) * 1e6:,.0f}", ""
    yield f"an update of {setup.steps:,} steps", f"{update * 1e6:,.0f}", ""
    yield "each of its passes", f"{update * parts.pass_share * 1e6:,.0f}", f"{parts.pass_share:.0%}"
    yield "a message to another process and back", f"{parts.round_trip * 1e6:,.0f}", ""
    yield "all times on busy cores, factor", f"{parts.slowdown:.2f}", ""


def prediction_rows(parts: Parts, setup: Setup) -> Iterator[tuple[str, ...]]:
    """Return the rows of the table of predictions, with updates as they are configured."""
    cases = [replace(setup, mode="sync", workers=1)]
    cases += [replace(setup, mode="async", workers=workers) for workers in WORKERS]
    cases += [replace(setup, mode="hogwild", workers=setup.cores)]
    for case in cases:
        here, roomy = predict(parts, case), predict(parts, replace(case, cores=10**6))
        yield (
            case.mode if case.mode == "sync" else f"{case.mode}, {case.workers}",
            f"{here.env_steps_per_second:,.0f}",
            f"{roomy.env_steps_per_second:,.0f}",
            lag_words(here.lag),
            here.limit,
            f"{here.learner_busy:.0%}",
            f"{here.cores_busy:.1f}",
        )


def lag_words(lag: Sequence[float]) -> str:
    """Return the bounds of a lag, as one number where they are one."""
    least, most = (f"{bound:.1f}" for bound in sorted(lag))
    return least if least == most else f"{least} – {most}"


def advice(parts: Parts, setup: Setup, limit: str) -> str:
    """Say what to turn, by what throughput is limited by."""
    full = workers_until_full(parts, setup)
    if limit == "cores":
        return (
            f"The cores limit. With more of them up to {full} workers help; on these, a smaller network, fewer passes, "
            "or larger envs_per_worker, which make a step cheaper."
        )
    if limit == "workers":
        return f"The workers limit: more of them help, up to {full}; the learner is full then."
    per_pass = parts.pass_share * update_seconds(parts, setup)
    return (
        f"The learner limits. What helps: fewer passes ({per_pass * 1e3:.1f} ms each), larger updates, several "
        "learners (docs/learners.md), or an accelerator for large networks."
    )


def inference(parts: Parts, setup: Setup) -> str:
    """Say whether inference batched across workers would be faster than in each of them."""
    roomy = replace(setup, workers=16, cores=17)
    found = compare_inference(parts, roomy)
    needed = "" if math.isinf(found.speed_needed) else f"; equal from {found.speed_needed:.1f} times a core's speed on"
    return (
        f"Inference batched across 16 workers, on 17 cores: {found.central:,.0f} env steps/s on a core, at most "
        f"{found.most:,.0f} with an accelerator, against {found.local:,.0f} in 17 workers{needed}."
    )


def show_comparison(records: Sequence[Record]) -> None:
    """Print predictions beside what was measured, or simulated."""
    table(
        "Predicted and measured; others: cores that other programs kept busy",
        (
            "mode, workers",
            "kind",
            "predicted",
            "env steps/s",
            "ratio",
            "unqueued",
            "% linear",
            "lag",
            "predicted",
            "learner",
            "others",
        ),
        (_comparison_row(each) for each in records),
    )


def _comparison_row(line: Record) -> tuple[str, ...]:
    result, predicted = line["result"], line["predicted"]
    share = result.get("share_of_linear")
    return (
        f"{line['mode']}, {line['workers']}",
        line["kind"],
        f"{predicted['env_steps_per_second']:,.0f}",
        f"{result['env_steps_per_second']:,.0f}",
        f"{line['ratio']:.2f}",
        f"{line['ratio, unqueued']:.2f}",
        "" if share is None else f"{share:.1%}",
        f"{result['lag']:.2f}",
        lag_words(predicted["lag"]),
        f"{result['learner_busy']:.0%}",
        f"{result['others']:.2f}" if "others" in result else "",
    )
