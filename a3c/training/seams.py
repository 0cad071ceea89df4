"""Who meets whom in a fit: the Trainer's parts by their own types, which Lightning does not tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

if TYPE_CHECKING:
    from a3c.training.datamodule import RolloutDataModule
    from a3c.training.module import A3C


def trainer_of(data: LightningDataModule) -> Trainer:
    """Return the Trainer that a data module is attached to."""
    assert data.trainer is not None, "Lightning attaches the trainer first"
    return data.trainer


def data_of(trainer: Trainer) -> RolloutDataModule:
    """Return the data module of a fit."""
    parts: Any = trainer
    return cast("RolloutDataModule", parts.datamodule)


def module_of(trainer: Trainer) -> A3C:
    """Return the module of a fit."""
    return cast("A3C", trainer.lightning_module)


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the Trainer's callbacks, a list that more can be put into."""
    parts: Any = trainer
    return cast("list[Callback]", parts.callbacks)


def log_every(trainer: Trainer) -> int:
    """Return the number of updates between two lines of the log."""
    parts: Any = trainer
    return cast("int", parts.log_every_n_steps)


def keep_files_in(folder: Path, trainer: Trainer) -> None:
    """Have what Lightning and its profilers write by themselves lie in a folder."""
    parts: Any = trainer
    parts._default_root_dir = str(folder)  # it can be said to the constructor only, when there is no folder yet
    profiler = parts.profiler
    if profiler.filename is None and not isinstance(profiler, PassThroughProfiler):
        profiler.dirpath, profiler.filename = folder, "profile"
