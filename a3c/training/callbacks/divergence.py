"""Tells somebody when a run begins to diverge, while there is still something to save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer


class DivergenceAlert(Callback):
    """Raises an alert, once a fit, when an update is skipped since it was not finite.

    Args:
        alert: takes a title and a text.
    """

    def __init__(self, alert: Callable[[str, str], None]) -> None:
        self._alert = alert
        self._skipped_before: int | None = None  # None once the alert is raised

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._skipped_before = pl_module.skipped_updates

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if self._skipped_before is None or pl_module.skipped_updates <= self._skipped_before:
            return
        self._skipped_before = None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._alert(
            "the run may be diverging",
            f"An update was not finite and was skipped, after {data.progress.env_steps:,} env steps. The run fails "
            f"when more than {pl_module.max_skipped_updates} in a row are.",
        )
