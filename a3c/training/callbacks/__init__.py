"""What watches a run: evaluation, video, checkpoints, interruption, estimator probe, progress bar, report."""

from a3c.training.callbacks.checkpoints import Checkpoints
from a3c.training.callbacks.divergence import DivergenceAlert
from a3c.training.callbacks.evaluation import GreedyEvaluation
from a3c.training.callbacks.first_learner import leave_to_first_learner
from a3c.training.callbacks.histograms import Histograms
from a3c.training.callbacks.interruption import Interruption
from a3c.training.callbacks.probe import EstimatorProbe
from a3c.training.callbacks.progress import BudgetBar
from a3c.training.callbacks.report import RunReport
from a3c.training.callbacks.video import GreedyVideo

__all__ = [
    "BudgetBar",
    "Checkpoints",
    "DivergenceAlert",
    "EstimatorProbe",
    "GreedyEvaluation",
    "GreedyVideo",
    "Histograms",
    "Interruption",
    "RunReport",
    "leave_to_first_learner",
]
