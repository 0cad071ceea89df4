"""A learner of a run beside its first one, which alone has the run's files, evaluations and W&B."""

from __future__ import annotations

import logging
import sys
import traceback

from lightning.pytorch.cli import LightningCLI

from a3c.learner.guard import TrainingDivergedError
from a3c.peers.agreement import LearnerLostError, LearnersDifferError
from a3c.training.callbacks.interruption import Interrupted, Interruption
from a3c.training.cli.run import FAILED, PLAIN_ERRORS, check_run, start_of
from a3c.training.seams import callbacks_of


class FurtherLearner:
    """One learner's part in a run from the command line.

    Args:
        cli: the parsed command line, the same as the first learner's.

    Raises:
        UsageError: the run cannot be made.
    """

    def __init__(self, cli: LightningCLI) -> None:
        self._module, self._data, self._trainer = cli.model, cli.datamodule, cli.trainer
        check_run(cli)
        self._start, _ = start_of(cli)
        self._interruption = Interruption()

    def execute(self) -> int:
        """Train, and return the exit status: 0, 1 after a failure, 128 + n after signal n."""
        interruption, trainer = self._interruption, self._trainer
        interruption.install()
        callbacks_of(trainer).insert(0, interruption)
        _speak_of_own_workers(trainer.global_rank)
        status = 0
        try:
            trainer.fit(self._module, self._data, ckpt_path=self._start.checkpoint, weights_only=True)
        except Interrupted:
            pass
        except (Exception, SystemExit) as error:
            status = FAILED
            told = (LearnerLostError, LearnersDifferError, TrainingDivergedError)  # by the first one
            if not isinstance(error, told):
                text = str(error) if isinstance(error, PLAIN_ERRORS) else traceback.format_exc()
                sys.stderr.write(f"error: learner {trainer.global_rank}: {text.rstrip()}\n")
        finally:
            self._data.close()
            interruption.disarm()
            interruption.restore()
        return status if status == FAILED or interruption.signal is None else 128 + interruption.signal


def _speak_of_own_workers(rank: int) -> None:
    """Leave all warnings to the first learner, which has the same, but those of this one's workers."""
    logging.getLogger("a3c").setLevel(logging.ERROR)
    workers, handler = logging.getLogger("a3c.rollouts"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"learner {rank}: %(message)s"))
    workers.setLevel(logging.WARNING)
    workers.addHandler(handler)
    workers.propagate = False
