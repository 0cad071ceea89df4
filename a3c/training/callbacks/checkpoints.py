"""Keeps the last and the best checkpoint of a run."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import CheckpointIO

from a3c.runs.checkpoints import BEST, LAST, load, save
from a3c.training.callbacks.evaluation import GreedyEvaluation
from a3c.training.module import A3C
from a3c.training.seams import module_of

MAX_FAILURES = 3  # saves in a row, after which a run fails
RETRY_SECONDS = 0.5  # between attempts at the last save of a run

log = logging.getLogger(__name__)


class CheckpointSaveError(RuntimeError):
    """Checkpoints could not be saved, time after time."""


class DurableCheckpointIO(CheckpointIO):
    """Lets Lightning write and read checkpoints by `a3c.runs.checkpoints`: whole, on disk, verified, on the CPU."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save(move_data_to_device(checkpoint, "cpu"), Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:  # on the CPU and weights only, whatever is asked for
        return load(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Saves last.ckpt every so many seconds and at the end, and best.ckpt at each best evaluation.

    Always between two updates. A save that fails leaves the file that was there; it is tried again
    when the next one is due, and the run fails after the third in a row. Weights that are not finite
    are never saved. Beside last.ckpt stays the one before it, previous.ckpt.

    Args:
        folder: where they go; made when the first one is saved.
        evaluation: says which policy is the best; None keeps the last one only.
        every_seconds: between two saves of last.ckpt, > 0.

    Attributes:
        notes: kept in every checkpoint, beside what the module says of the run.

    Raises:
        ValueError: the seconds are out of range.
    """

    def __init__(self, folder: Path, evaluation: GreedyEvaluation | None = None, every_seconds: float = 30.0) -> None:
        if not (every_seconds > 0 and math.isfinite(every_seconds)):
            raise ValueError(f"every_seconds: got {every_seconds}, must be above 0 and finite")
        self.folder = folder
        self.notes: dict[str, Any] = {}
        self._evaluation = evaluation
        self._every_seconds = every_seconds
        self._tried_at = time.monotonic()
        self._settled_updates: int | None = None  # after which nothing is left to save; None before training began
        self._failures = 0  # in a row

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = DurableCheckpointIO()
        self._settled_updates = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tried_at = time.monotonic()
        self._settled_updates = module_of(trainer).updates

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.setdefault("a3c", {}).update(self.notes)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        module = module_of(trainer)
        if self._evaluation is not None and self._evaluation.is_best:
            self._try(trainer, module, BEST)
        if time.monotonic() - self._tried_at > self._every_seconds:
            module.hold()
            self._try(trainer, module, LAST)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_the_end(trainer, module_of(trainer))  # before the last evaluation, which may take long

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = module_of(trainer)
        if module.updates != self._settled_updates or not (self.folder / LAST).exists():
            self._save_the_end(trainer, module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._settled_updates is None or isinstance(exception, CheckpointSaveError):
            return
        module = module_of(trainer)
        module.hold()  # where workers learn, this also counts the updates that none has reported yet
        if module.updates != self._settled_updates:
            try:
                self._save(trainer, module, LAST)
            except OSError as error:  # the exception says more than this would
                log.warning("checkpoint not saved: %s", error)

    def _try(self, trainer: Trainer, module: A3C, name: str) -> bool:
        """Save, or take note that it did not work; return whether it did.

        Raises:
            CheckpointSaveError: it has not worked too many times.
        """
        self._tried_at = time.monotonic()
        try:
            self._save(trainer, module, name)
        except OSError as error:
            self._failures += 1
            log.warning("checkpoint not saved (%d of %d in a row): %s", self._failures, MAX_FAILURES, error)
            if self._failures >= MAX_FAILURES:
                raise CheckpointSaveError(f"checkpoint not saved {self._failures} times in a row: {error}") from error
            return False
        self._failures = 0
        return True

    def _save_the_end(self, trainer: Trainer, module: A3C) -> None:
        module.finish()
        self._failures = 0
        while not self._try(trainer, module, LAST):
            time.sleep(RETRY_SECONDS)

    def _save(self, trainer: Trainer, module: A3C, name: str) -> None:
        weights = module.network.state_dict()
        bad = [key for key, value in weights.items() if value.is_floating_point() and not torch.isfinite(value).all()]
        if bad:
            log.warning("checkpoint not saved: %s not finite; the one before it is kept", ", ".join(bad))
        else:
            trainer.save_checkpoint(self.folder / name)
        if name == LAST:
            self._settled_updates = module.updates
