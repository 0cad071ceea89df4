"""What the episodes of an evaluation come to: the figures that are reported of a policy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from a3c.evaluation.evaluator import Evaluation

CONFIDENCE = 0.95
RESAMPLES = 9999
_BATCH = 1_000_000  # numbers held at once by the bootstrap


class Scores(NamedTuple):
    """Figures over the episode returns of one evaluation, in the environment's own rewards.

    Attributes:
        mean: mean return.
        std: standard deviation of the returns, of the episodes played.
        iqm: interquartile mean: of what is left without the lowest and the highest quarter
            (Agarwal et al., 2021, arXiv:2108.13264).
        minimum: the lowest return.
        maximum: the highest return.
        interval: 95 % confidence interval of the mean, by the bias-corrected and accelerated
            bootstrap (Efron, 1987) over episodes; None of fewer than two episodes.
    """

    mean: float
    std: float
    iqm: float
    minimum: float
    maximum: float
    interval: tuple[float, float] | None


def score(evaluation: Evaluation, seed: int = 0) -> Scores:
    """Return the figures of an evaluation.

    Args:
        evaluation: its episodes.
        seed: of the bootstrap.

    Raises:
        ValueError: a return is NaN or infinite.
    """
    returns = np.array([episode.episode_return for episode in evaluation.episodes])
    bad = np.flatnonzero(~np.isfinite(returns))
    if bad.size:
        raise ValueError(f"episode {bad[0] + 1} of {returns.size} has a return of {returns[bad[0]]}, must be finite")
    return Scores(
        evaluation.return_mean,
        evaluation.return_std,
        float(stats.trim_mean(returns, 0.25)),
        float(returns.min()),
        float(returns.max()),
        _interval(returns, seed),
    )


def _interval(returns: NDArray[np.float64], seed: int) -> tuple[float, float] | None:
    if returns.size < 2:
        return None
    if np.ptp(returns) <= 1e-12 * np.abs(returns).max():  # BCa divides by the spread
        return float(returns.min()), float(returns.max())
    found = stats.bootstrap(
        (returns,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // returns.size),
        confidence_level=CONFIDENCE,
        method="BCa",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
