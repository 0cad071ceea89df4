"""Turns Ctrl-C and SIGTERM into an orderly end of the run."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerStatus


class Interruption(Callback):
    """Ends the run after the update at hand, so that the usual end saves what there is.

    A second signal raises KeyboardInterrupt at once. Lightning alone would leave SIGTERM to be
    noticed between batches only, and end with status 0.

    Attributes:
        signal: the signal that ended the run, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning has set its own handlers by now.
        def handle(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number)
            trainer.state.status = TrainerStatus.INTERRUPTED
            trainer.should_stop = True  # the dataset looks at it while it waits for rollouts

        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, handle)

    def restore(self) -> None:
        """Puts the handlers back that were there before. Idempotent."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
