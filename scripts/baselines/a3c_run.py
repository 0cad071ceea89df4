"""Has a run of a3c end at the return that its peers are asked for, and prints the record that they print."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from run_record import EPISODES, Run

from a3c.training.seams import data_of


class RunCallback(Callback):
    """Looks at the last 100 training episodes after each update; ends the run once they reach a return.

    Args:
        settings: what is trained, and how, in words.
        max_seconds: seconds of training after which the run ends.
        stop_at: return to reach; null for none.
    """

    def __init__(self, settings: str, max_seconds: float, stop_at: float | None = None) -> None:
        self._settings, self._max_seconds, self._stop_at = settings, max_seconds, stop_at
        self._run: Run | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        budget = 2**62  # that of the run itself ends it
        self._run = Run(data.env.name, data.seed, self._settings, budget, self._max_seconds, self._stop_at)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        assert self._run is not None, "on_train_start comes first"
        progress = data_of(trainer).progress
        returns = [episode.episode_return for episode in progress.last_episodes(EPISODES)]
        self._run.set_episodes(progress.episodes, returns)
        if self._run.is_over(progress.env_steps, progress.clock.seconds):
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._run is not None, "on_train_start comes first"
        self._run.write("torch", "lightning", "gymnasium")
