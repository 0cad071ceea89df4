"""What watches a run: evaluation, video, checkpoints, interruption, estimator probe, progress bar, report."""

from a3c.callbacks.checkpoints import Checkpoints
from a3c.callbacks.divergence import DivergenceAlert
from a3c.callbacks.evaluation import GreedyEvaluation
from a3c.callbacks.histograms import Histograms
from a3c.callbacks.interruption import Interruption
from a3c.callbacks.probe import EstimatorProbe
from a3c.callbacks.progress import BudgetBar
from a3c.callbacks.report import RunReport
from a3c.callbacks.video import GreedyVideo

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
]
