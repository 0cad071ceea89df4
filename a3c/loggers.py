"""Where a run's metrics go: metrics.csv, always, and Weights & Biases."""

from __future__ import annotations

import csv
import io
import json
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

PROJECT = "a3c"


class MetricsFile(Logger):
    """Writes every metric to one CSV file, a line for each time that something is logged.

    Lightning's CSVLogger keeps lines in memory and deletes what a folder holds already. Here a
    line is on disk when `log_metrics` comes back; a new key rewrites the file with a wider header.

    Args:
        path: the file; where there is one already, lines are added to it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._keys: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                self._keys = next(csv.reader(file), [])

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Writes nothing: the configuration stands in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        new = [key for key in metrics if key not in self._keys]
        if new:
            self._widen(new)
        line = io.StringIO(newline="")
        row = {key: json.dumps(value) if isinstance(value, Mapping) else value for key, value in metrics.items()}
        csv.DictWriter(line, self._keys).writerow(row)
        with self._path.open("a", newline="") as file:
            file.write(line.getvalue())

    def _widen(self, new: list[str]) -> None:
        rows: list[dict[str, str]] = []
        if self._keys:
            with self._path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        self._keys += new
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._keys)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self._path)


class RunTracker(WandbLogger):
    """Lightning's W&B logger, which also takes counts by whole number and logs them as a histogram."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {key: _histogram(value) if isinstance(value, Mapping) else value for key, value in metrics.items()}
        super().log_metrics(row, step)  # type: ignore[arg-type]


def _histogram(counts: Mapping[int, int]) -> wandb.Histogram:
    """Gives a bin for every whole number, or at most W&B's 512 of them."""
    low, high = min(counts, default=0), max(counts, default=0)
    bins = min(high - low + 1, wandb.Histogram.MAX_LENGTH)
    heights, edges = np.histogram(list(counts), bins=bins, range=(low - 0.5, high + 0.5), weights=list(counts.values()))
    return wandb.Histogram(np_histogram=(heights, edges))


def wandb_mode() -> str:
    """Decides, before W&B is started, how it runs: WANDB_MODE, else online if logged in, else offline.

    It never asks: a prompt would stop a run that nobody watches, and a start that failed online
    cannot be repeated offline in the same process.
    """
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def make_wandb_logger(
    folder: Path,
    *,
    env: str,
    estimator: str,
    mode: str,
    seed: int,
    config: Mapping[str, Any],
    name: str | None = None,
    run_id: str | None = None,
) -> RunTracker:
    """Starts a W&B run whose x-axis is env steps, and gives its Lightning logger.

    Args:
        folder: the run folder; W&B writes into its wandb/.
        env: environment id.
        estimator: name of the return estimator.
        mode: update mode.
        seed: the run's seed.
        config: the whole configuration.
        name: the run's name; ESTIMATOR-MODE-sSEED by default.
        run_id: of the W&B run to go on with; None begins one.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=folder.absolute(),  # W&B's service may have been started in another working folder
        mode=wandb_mode(),  # type: ignore[arg-type]
        group=f"{env}/{estimator}",
        name=name or f"{estimator}-{mode}-s{seed}",
        tags=[env, estimator, mode],
        config=dict(config),
        id=run_id,
        resume=None if run_id is None else "allow",
        settings=wandb.Settings(console="off", silent=True),
    )
    # The axis first, and never Lightning's: updates are not comparable between estimators.
    run.define_metric("env_steps")
    run.define_metric("*", step_metric="env_steps", step_sync=True)
    return RunTracker(experiment=run, project=PROJECT, save_dir=folder)
