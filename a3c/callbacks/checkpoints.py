"""Keeps the last and the best checkpoint of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from a3c.callbacks.evaluation import GreedyEvaluation


class Checkpoints(Callback):
    """Saves last.ckpt every so many seconds and at the end, and best.ckpt at each best evaluation.

    A file is written beside its target and then renamed, so a reader sees the old one or the new.

    Args:
        folder: where they go; made when the first one is saved.
        evaluation: says which policy is the best; None keeps the last one only.
        every_seconds: between two saves of last.ckpt, > 0.
    """

    def __init__(self, folder: Path, evaluation: GreedyEvaluation | None = None, every_seconds: float = 30.0) -> None:
        self.folder = folder
        self._evaluation = evaluation
        self._every_seconds = every_seconds
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if self._evaluation is not None and self._evaluation.is_best:
            self._save(trainer, "best.ckpt")
        if time.monotonic() - self._saved_at > self._every_seconds:
            pl_module.hold()
            self._save(trainer, "last.ckpt")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, "last.ckpt")

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        pl_module.hold()  # where workers learn, this also counts the updates that none has reported yet
        if pl_module.updates > 0:
            self._save(trainer, "last.ckpt")

    def _save(self, trainer: Trainer, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.tmp"
        trainer.save_checkpoint(temporary)
        os.replace(temporary, self.folder / name)
        if name == "last.ckpt":
            self._saved_at = time.monotonic()
