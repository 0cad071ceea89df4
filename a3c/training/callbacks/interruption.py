"""Turns Ctrl-C, SIGTERM and SIGUSR1 into an orderly end of the run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from a3c.peers.agreement import size
from a3c.training.seams import data_of, module_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAME_SECONDS = 0.2  # within which one Ctrl-C may arrive twice: from the terminal, and from a wrapper
GRACE_SECONDS = 2.0  # in which what the run is waiting for may end by itself
SCONTROL_SECONDS = 30.0
SHOW_CURSOR = b"\x1b[?25h"  # the progress bar hides it

log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """A signal ended what the main thread was doing.

    Not a KeyboardInterrupt: at one of those Lightning ignores SIGINT from then on, and a second Ctrl-C
    could no longer end the run at once.
    """


class Interruption(Callback):
    """Ends the run after the update at hand, so that the usual end saves what there is.

    Before training has begun there is nothing to save, and a signal ends the start-up at once. From
    then on it raises flags, which the dataset and evaluations look at; where none does within two
    seconds, in an environment's step for one, the wait is broken off, unless other learners wait for this one;
    an update of many gradient steps ends after the one at hand. A second SIGINT leaves at once; all other signals
    after the first one change nothing.

    Lightning alone would leave SIGTERM to be noticed between batches only, and end with status 0.
    Comes first in the list of callbacks: its hook after an update must come before an evaluation.

    Attributes:
        signal: the signal that ended the run, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at = 0.0  # when it came
        self._trainer: Trainer | None = None  # once training has begun
        self._updating = False
        self._previous: dict[signal.Signals, Any] = {}
        self._timer: tuple[float, float] | None = None  # what was set before ours

    def install(self) -> None:
        """Handle signals from now on, until `restore`."""
        self._previous = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in SIGNALS:
            signal.signal(number, self._handle)  # Lightning has put its own around them
        self._trainer = trainer
        if self.signal is not None:  # whoever ran then swallowed the exception
            self._flag(trainer, self.signal)

    def on_train_batch_start(self, *args: Any) -> None:
        self._updating = True

    def on_train_batch_end(self, *args: Any) -> None:
        self._updating = False

    def on_train_epoch_end(self, *args: Any) -> None:
        self.disarm()  # the end has come by itself: its checkpoint may take the time it needs

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.signal is None and (number := data_of(trainer).stopping.signal):
            self.signal = signal.Signals(number)  # another learner got it

    def on_exception(self, *args: Any) -> None:
        self._updating = False
        self.disarm()  # as above: it would break off the save that follows

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # No logging and no buffered output in here: the main thread may be in the middle of either.
        if self.signal is not None:
            if number == signal.SIGINT and time.monotonic() - self._at > SAME_SECONDS:
                self._leave()
            return
        self.signal, self._at = signal.Signals(number), time.monotonic()
        name = self.signal.name
        if self._trainer is None:
            os.write(2, f"{name}: the run ends before its first update\n".encode())
            raise Interrupted(128 + number)
        os.write(2, f"{name}: the run ends after the update at hand; Ctrl-C ends it at once\n".encode())
        self._flag(self._trainer, self.signal)
        signal.signal(signal.SIGALRM, self._overdue)
        self._timer = signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    @staticmethod
    def _flag(trainer: Trainer, number: signal.Signals) -> None:
        data_of(trainer).stopping.interrupt(number)  # the dataset looks at it while it waits for rollouts

    def _overdue(self, number: int, frame: FrameType | None) -> None:
        if self._updating or size() > 1:  # broken off here, the weights would be half stepped, or other learners lost
            assert self._trainer is not None, "there are updates"
            module_of(self._trainer).break_off()
            signal.setitimer(signal.ITIMER_REAL, SAME_SECONDS)
            return
        assert self.signal is not None, "the timer is set by a signal"
        raise Interrupted(128 + self.signal)

    def disarm(self) -> None:
        """From now on nothing is broken off. Idempotent."""
        if self._timer is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    @staticmethod
    def _leave() -> None:
        if sys.stderr.isatty():
            os.write(2, SHOW_CURSOR)
        # Workers and their children end with this process; a file that is being saved is a temporary one yet.
        os._exit(128 + signal.SIGINT)

    def restore(self) -> None:
        """Put the handlers back that were there before. Idempotent."""
        if not self._previous:
            return
        self.disarm()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._timer is not None:
            signal.setitimer(signal.ITIMER_REAL, *self._timer)
        self._previous, self._timer = {}, None


def requeue() -> None:
    """Put this job back into SLURM's queue, if it is one; a failure is a warning."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    try:
        subprocess.run(
            ["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=SCONTROL_SECONDS
        )
    except subprocess.CalledProcessError as error:
        log.warning("job %s is not requeued: scontrol: %s", job, error.stderr.strip() or error.returncode)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("job %s is not requeued: %s", job, error)
    else:
        log.info("job %s is requeued", job)
