"""Tells somebody when a run begins to diverge, while there is still something to save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from a3c.training.seams import data_of, module_of


class DivergenceAlert(Callback):
    """Raises an alert, once a fit, when an update is skipped since it was not finite.

    Args:
        alert: takes a title and a text.
    """

    def __init__(self, alert: Callable[[str, str], None]) -> None:
        self._alert = alert
        self._skipped_before: int | None = None  # None once the alert is raised

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._skipped_before = module_of(trainer).skipped_updates

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        module = module_of(trainer)
        if self._skipped_before is None or module.skipped_updates <= self._skipped_before:
            return
        self._skipped_before = None
        self._alert(
            "the run may be diverging",
            f"An update was not finite and was skipped, after {data_of(trainer).progress.env_steps:,} env steps. "
            f"The run fails when more than {module.learning.max_skipped} in a row are.",
        )
