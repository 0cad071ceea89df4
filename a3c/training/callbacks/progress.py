"""A progress bar over the budget, with return, speed and lag."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from a3c.runs.figures import figure
from a3c.training.seams import data_of, module_of

REFRESH_SECONDS = 0.1
LINE_SECONDS = 10.0  # between lines where there is no terminal to draw on


class BudgetBar(Callback):
    """Shows how much of the budget is used, the episode return, env steps a second and lag.

    Without a terminal it prints a line every ten seconds instead.

    Args:
        console: where to draw; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._drawn_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = time.monotonic()
        if not self._console.is_terminal:
            return
        columns = ("{task.description}", BarColumn(None), "{task.percentage:>3.0f}%", "{task.fields[status]}")
        self._progress = Progress(
            *(TextColumn(column) if isinstance(column, str) else column for column in columns),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,  # a thread of its own would take time from the learner
            transient=True,
        )
        self._task = self._progress.add_task(self._label(trainer), total=1.0, status="")
        self._progress.start()

    def _label(self, trainer: Trainer) -> str:
        return f"{data_of(trainer).env.name} {type(module_of(trainer).returns).__name__}"

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        now = time.monotonic()
        pause = REFRESH_SECONDS if self._progress is not None else LINE_SECONDS
        if now - self._drawn_at < pause:
            return
        self._drawn_at = now
        status, used = self._status(trainer), data_of(trainer).mode.budget_used
        if self._progress is not None:
            self._progress.update(self._task, completed=used, status=status, refresh=True)
        else:
            self._console.print(f"{self._label(trainer)}: {used:.0%} of the budget, {status}", soft_wrap=True)

    def _status(self, trainer: Trainer) -> str:
        latest = module_of(trainer).latest
        parts = [f"{data_of(trainer).progress.env_steps:,} env steps"]
        if "rollout/episode_return" in latest:
            parts.append(f"return {figure(latest['rollout/episode_return'])}")
        for key, form in (
            ("time/env_steps_per_second", "{:,.0f} steps/s"),
            ("lag/policy_versions", "lag {:.1f}"),
        ):
            if key in latest:
                parts.append(form.format(latest[key]))
        return " · ".join(parts)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
