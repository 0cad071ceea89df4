"""What only the first of several learners does: all that decides, writes or shows for the whole run."""

from __future__ import annotations

from lightning.pytorch import Trainer, callbacks

from a3c.training.callbacks.checkpoints import Checkpoints
from a3c.training.callbacks.divergence import DivergenceAlert
from a3c.training.callbacks.evaluation import GreedyEvaluation
from a3c.training.callbacks.histograms import Histograms
from a3c.training.callbacks.probe import EstimatorProbe
from a3c.training.callbacks.progress import BudgetBar
from a3c.training.callbacks.report import RunReport
from a3c.training.callbacks.video import GreedyVideo
from a3c.training.seams import callbacks_of

OF_THE_FIRST = (
    *(Checkpoints, DivergenceAlert, GreedyEvaluation, Histograms, EstimatorProbe, BudgetBar, RunReport, GreedyVideo),
    *(callbacks.Checkpoint, callbacks.EarlyStopping, callbacks.ProgressBar, callbacks.Timer),
)


def leave_to_first_learner(trainer: Trainer) -> None:
    """Take away from another learner's Trainer what only the first one does; callbacks of one's own stay."""
    ours = callbacks_of(trainer)
    ours[:] = [callback for callback in ours if not isinstance(callback, OF_THE_FIRST)]
    trainer.loggers = []
