"""Runs as they are read back: from run folders, and from the records that W&B keeps of them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import yaml
from numpy.typing import NDArray

from a3c.comparison.variants import Variant, label_with, short_names, word_of
from a3c.comparison.wandb_records import Record, read_record, records_in
from a3c.returns import ReturnEstimator
from a3c.returns.labels import OWN, label_of
from a3c.runs.folder import METRICS, came_to_its_end, newest_config
from a3c.training.cli.usage import UsageError

SUMMARY = "summary.json"
RETURN = "eval/episode_return"
PROBE = "probe/"
# Settings that make no difference to what a run learns, or that stand elsewhere in the name of a run.
NOT_NAMED = (
    *("seed_everything", "mode", "data.env", "data.max_env_steps", "model.returns", "stop_when_solved"),
    *("run_dir", "run_name", "ckpt_path", "allow", "checkpoint", "evaluation", "probe", "wandb", "video_every"),
    *("trainer.default_root_dir", "trainer.log_every_n_steps", "data.worker_timeout"),
)

Floats = NDArray[np.float64]


class Evaluations(NamedTuple):
    """A run's greedy evaluations, [n] each, env steps increasing.

    Attributes:
        env_steps: when, in env steps of the budget.
        updates: when, in updates.
        seconds: when, in seconds of training.
        returns: mean episode return.
    """

    env_steps: Floats
    updates: Floats
    seconds: Floats
    returns: Floats


class Series(NamedTuple):
    """A metric against env steps, [n] each."""

    env_steps: Floats
    values: Floats


@dataclass(frozen=True)
class Run:
    """One run as it was recorded.

    Attributes:
        path: its folder, or its W&B record.
        env: environment id.
        variant: what it is a run of.
        seed: its seed.
        budget: env steps that it was given.
        settings: its configuration, by dotted key.
        rollout_steps: how long its estimator's rollouts are, in words.
        evaluations: its greedy evaluations.
        probes: what a probe logged, by (label of the probed estimator, measure).
        end: env steps at its end; those of its last evaluation where nobody says.
        final_return: mean return over the fresh episodes at its end; None if there were none.
        train_return: mean return of the last episodes that it was trained on; None where nobody says.
        finished: whether it came to its end by itself.
        notes: what is wrong with the record, a sentence each.
    """

    path: Path
    env: str
    variant: Variant
    seed: int
    budget: int
    settings: Mapping[str, Any]
    rollout_steps: str
    evaluations: Evaluations
    probes: Mapping[tuple[str, str], Series]
    end: float
    final_return: float | None
    train_return: float | None
    finished: bool
    notes: tuple[str, ...]


def find_runs(places: Iterable[Path]) -> list[Run]:
    """Read all runs at and below some places; what varies between them names them.

    A folder that holds a run is not searched further: its own W&B record tells the same again.

    Args:
        places: folders, or W&B's .wandb files.

    Raises:
        UsageError: a place does not exist, holds no run, or holds one that cannot be read.
    """
    runs = []
    for place in places:
        if not place.exists():
            raise UsageError(f"from: got {str(place)!r}, must be a folder or a .wandb file that exists")
        folders = list(_run_folders(place))
        records = records_in(place, folders)
        if not folders and not records:
            raise UsageError(f"from: got {str(place)!r}, which holds no run (neither config.yaml nor a W&B record)")
        runs += [read_run(folder) for folder in folders]
        runs += [_run(parts[0], read_record(parts)) for parts in records]
    unique = {run.path.resolve(): run for run in runs}
    return name_by_settings(list(unique.values()))


def read_run(folder: Path) -> Run:
    """Read a run folder, as far as it is whole.

    Raises:
        UsageError: its configuration cannot be read.
    """
    try:
        config = yaml.safe_load(newest_config(folder).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"from: {folder}: its config.yaml cannot be read: {' '.join(str(error).split())}") from error
    rows, notes = _read_metrics(folder / METRICS)
    summary: Any = None
    with suppress(OSError, ValueError):
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if not isinstance(summary, dict):
        summary = {}
        notes.append(f"has no {SUMMARY}, so it is taken as unfinished")
    elif not came_to_its_end(summary):
        notes.append("failed" if summary.get("failed") else "was interrupted")
    return _run(folder, Record(config, rows, summary, came_to_its_end(summary), notes))


def name_by_settings(runs: Sequence[Run]) -> list[Run]:
    """Add, to the labels of runs, the settings in which they differ within an environment."""
    varying: dict[str, None] = {}
    for env in dict.fromkeys(run.env for run in runs):
        ours = [run for run in runs if run.env == env]
        for key in dict.fromkeys(key for run in ours for key in run.settings):
            values = {word for run in ours if (word := _setting(run, key)) is not None}
            if len(values) > 1 and not any(key == part or key.startswith(f"{part}.") for part in NOT_NAMED):
                varying[key] = None
    names = short_names(varying)
    named = []
    for run in runs:
        more = {names[key]: run.settings.get(key) for key in varying}
        named.append(replace(run, variant=Variant(label_with(run.variant.label, more), run.variant.mode)))
    return named


def _setting(run: Run, key: str) -> str | None:
    """Return a setting in words, also where something above it is empty; None where the run does not know of it."""
    parts = key.split(".")
    above = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((word_of(run.settings[each]) for each in above if each in run.settings), None)


def _run_folders(place: Path) -> Iterable[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise UsageError(f"from: {place}: cannot be searched: {error}") from error

    for folder, below, files in os.walk(place, onerror=refuse) if place.is_dir() else ():
        below.sort()
        if {"config.yaml", METRICS, SUMMARY} & set(files):
            below.clear()
            yield Path(folder)


def _read_metrics(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Read whole lines; after one that is torn nothing is believed."""
    if not path.exists():
        return [], [f"has no {METRICS}"]
    try:
        content = path.read_bytes()
    except OSError as error:
        return [], [f"its {METRICS} cannot be read: {error.strerror}"]
    text = content.decode(errors="replace")  # as it is: half a line end is a tear too
    whole = text[: text.rfind("\n") + 1]
    rows: list[dict[str, str]] = []
    torn = whole != text
    with suppress(csv.Error):  # a null character
        header, *lines = [*csv.reader(io.StringIO(whole, newline=""), strict=True)] or [[]]
        for line in lines:
            if len(line) != len(header):
                torn = True
                break
            rows.append(dict(zip(header, line, strict=True)))
        return rows, [f"its {METRICS} is torn, and was read up to there ({len(rows)} lines)"] if torn else []
    return rows, [f"its {METRICS} is damaged, and was not read"]


def _run(path: Path, record: Record) -> Run:
    config, rows, summary, finished, notes = record
    try:
        settings = dict(_flat(config))
        returns = config["model"]["returns"]
        estimator = _built(returns)
        label = summary.get("estimator_label") or _label(returns, estimator)
        budget, evaluations = config["data"]["max_env_steps"], _evaluations(rows)
        if budget is None:
            raise UsageError(f"from: {path}: has no budget in env steps, so it cannot be compared on equal ones")
        last = float(evaluations.env_steps[-1]) if len(evaluations.env_steps) else 0.0
        end = _number(summary.get("env_steps"))
        return Run(
            path=path,
            env=str(config["data"]["env"]),
            variant=Variant(str(label), str(config["mode"])),
            seed=int(config["seed_everything"]),
            budget=int(budget),
            settings=settings,
            rollout_steps=_rollout_steps(estimator),
            evaluations=evaluations,
            probes=_probes(rows),
            end=last if end is None else end,
            final_return=_number(summary.get("eval_return_mean")),
            train_return=_number(summary.get("train_return_mean")),
            finished=finished,
            notes=tuple(notes),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"from: {path}: is no run of a3c ({type(error).__name__}: {error})") from error


def _flat(config: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(config, dict) and (config or not prefix):
        for key, value in config.items():
            if key != "_wandb":
                yield from _flat(value, f"{prefix}.{key}".lstrip("."))
    else:
        yield prefix, config


def _label(described: Mapping[str, Any], built: Any) -> str:
    """Return the label of a described estimator; a class that is not ours is not imported for it."""
    if isinstance(built, ReturnEstimator):
        return label_of(built)
    parts = [f"{key}={word_of(value)}" for key, value in (described.get("init_args") or {}).items()]
    return f"{described['class_path']}:{','.join(parts)}" if parts else str(described["class_path"])


def _rollout_steps(built: Any) -> str:
    if not isinstance(built, ReturnEstimator):
        return "as its class says"
    return "whole episodes" if built.horizon is None else str(built.horizon)


def _built(value: Any) -> Any:
    """Build our own estimators from their description; all else stays as it is."""
    if not isinstance(value, dict) or "class_path" not in value:
        return value
    module, _, name = str(value["class_path"]).rpartition(".")
    if module not in ("a3c", "a3c.returns") or name not in OWN:
        return value
    return OWN[name](**{key: _built(item) for key, item in (value.get("init_args") or {}).items()})


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> Evaluations:
    keys = ("env_steps", "updates", "time/train_seconds", RETURN)
    points: list[list[float]] = []
    for row in rows:
        point = [_number(row.get(key)) for key in keys]
        if None in point:
            continue
        numbers = [float(value) for value in point if value is not None]
        while points and points[-1][0] >= numbers[0]:  # what W&B holds of updates after the checkpoint gone on from
            points.pop()
        points.append(numbers)
    return Evaluations(*np.array(points, float).reshape(-1, len(keys)).T)


def _probes(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Series]:
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        step = _number(row.get("env_steps"))
        for key, given in row.items():
            label, slash, measure = key.removeprefix(PROBE).rpartition("/")
            if not key.startswith(PROBE) or not slash or step is None:
                continue
            if (value := _number(given)) is not None:
                found.setdefault((label, measure), []).append((step, value))
    return {key: Series(*np.array(points, float).T) for key, points in found.items()}


def _number(value: Any) -> float | None:
    """Return a finite number, or None where there is none."""
    with suppress(TypeError, ValueError):
        return number if math.isfinite(number := float(value)) else None
    return None
