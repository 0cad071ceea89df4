"""Figures with intervals over few runs: interquartile means, differences, probabilities of improvement, and tests.

Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice", is where the
interquartile mean, the stratified bootstrap and the probability of improvement are argued for. All of it is
computed by scipy, which only this room imports, since that takes long.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 5000
BAND_RESAMPLES = 1000
LEAST_RUNS = 3  # of which an interval can be given
TRIM = 0.25
LEAST_TRIMMED = 10  # runs from which the test trims: with fewer, what is left of them tells too little
SEED = 20211


class Estimate(NamedTuple):
    """A figure and its 95 % interval; the interval is NaN where too few runs are there."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there were enough runs."""
        return not math.isnan(self.low)


def iqm(*samples: Any, axis: int = -1) -> Any:
    """Return the interquartile mean of all samples together: a quarter of the values is cut at each end.

    Whole values are cut, so of 3 none is, of 4 to 7 one at each end.

    Args:
        samples: values, along `axis`.
        axis: which is reduced.
    """
    return stats.trim_mean(np.concatenate(samples, axis=axis), TRIM, axis=axis)


def score(samples: Sequence[Floats]) -> Estimate:
    """Return the interquartile mean with its interval.

    Args:
        samples: scores of the runs, [n] each, one array an environment: runs are drawn again within each.
    """
    return _bootstrap(samples, iqm)


def difference(ours: Sequence[Floats], theirs: Sequence[Floats]) -> Estimate:
    """Return the difference of two interquartile means, ours less theirs, with its interval.

    Args:
        ours: scores, [n] each, one array an environment.
        theirs: the same of the other variant, in the same order of environments.
    """
    envs = len(ours)

    def statistic(*samples: Any, axis: int = -1) -> Any:
        return iqm(*samples[:envs], axis=axis) - iqm(*samples[envs:], axis=axis)

    return _bootstrap([*ours, *theirs], statistic)


def probability_of_improvement(ours: Sequence[Floats], theirs: Sequence[Floats]) -> Estimate:
    """Return the probability that a run of ours scores higher than one of theirs, ties as one half.

    That is Mann and Whitney's U / (n·m), averaged over environments.

    Args:
        ours: scores, [n] each, one array an environment.
        theirs: the same of the other variant, [m] each.
    """
    envs = len(ours)

    def statistic(*samples: Any, axis: int = -1) -> Any:
        wins = []
        for first, second in zip(samples[:envs], samples[envs:], strict=True):
            a, b = np.moveaxis(first, axis, -1)[..., :, None], np.moveaxis(second, axis, -1)[..., None, :]
            wins.append(((a > b) + 0.5 * (a == b)).mean(axis=(-2, -1)))
        return np.mean(wins, axis=0)

    return _bootstrap([*ours, *theirs], statistic)


def p_value(ours: Sequence[Floats], theirs: Sequence[Floats]) -> float:
    """Return the two-sided p-value of equal means: Welch's t-test, or from 10 runs of both on Yuen's, its trimmed form.

    Welch's is what Colas et al. (2019), "A Hitchhiker's Guide to Statistical Comparisons of Reinforcement
    Learning Algorithms", find to hold its level with few runs. Yuen (1974), "The two-sample trimmed t for unequal
    population variances", trims as the IQM does, so that one run that failed does not hide all else; but of 5 runs
    it leaves 3. Among five variants of 5 runs each, normal and three standard deviations apart, Yuen's test after
    Holm finds 24 % of the differences and Welch's 75 %; both find 98 % or more with 10 runs. Of several
    environments the one-sided values are combined by Stouffer's method.

    Args:
        ours: scores, [n] each, one array an environment.
        theirs: the same of the other variant.

    Returns:
        The p-value; NaN where too few runs are there. Two variants whose runs all score the same have 1.
    """
    if _too_few([*ours, *theirs]):
        return math.nan
    greater = [_t_test(first, second) for first, second in zip(ours, theirs, strict=True)]
    if len(greater) == 1:
        (combined,) = greater
    else:
        # A value of exactly 0 or 1 would outweigh any number of others.
        bounded = np.clip(greater, 1e-12, 1 - 1e-12)
        combined = float(stats.combine_pvalues(bounded, method="stouffer").pvalue)
    return min(1.0, 2 * min(combined, 1 - combined))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, stepping down: Holm (1979). A NaN stays, and counts as none."""
    known = sorted((value, place) for place, value in enumerate(p_values) if not math.isnan(value))
    adjusted, largest = list(p_values), 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted


def band(curves: Floats) -> tuple[Floats, Floats, Floats]:
    """Return, point by point, the interquartile mean over runs and its 95 % interval.

    Args:
        curves: [runs, points], at least 3 runs.
    """
    return iqm(curves, axis=0), *_interval([curves], iqm, BAND_RESAMPLES, axis=0)


def _t_test(ours: Floats, theirs: Floats) -> float:
    """Return the one-sided p-value of ours being greater."""
    trim = TRIM if min(len(ours), len(theirs)) >= LEAST_TRIMMED else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of scipy's, where there is no spread: see below
        value = float(stats.ttest_ind(ours, theirs, equal_var=False, trim=trim, alternative="greater").pvalue)
    if not math.isnan(value):
        return value
    # Without any spread there is no t: the same everywhere, or different everywhere.
    gap = float(stats.trim_mean(ours, trim) - stats.trim_mean(theirs, trim))
    return 0.5 if gap == 0 else float(gap < 0)


def _too_few(samples: Sequence[Floats]) -> bool:
    return min(map(len, samples)) < LEAST_RUNS


def _bootstrap(samples: Sequence[Floats], statistic: Callable[..., Any]) -> Estimate:
    value = float(statistic(*samples))
    if _too_few(samples):
        return Estimate(value, math.nan, math.nan)
    low, high = _interval(samples, statistic, RESAMPLES)
    return Estimate(value, float(low), float(high))


def _interval(samples: Sequence[Floats], statistic: Callable[..., Any], resamples: int, axis: int = -1) -> Any:
    """Return both ends of a statistic's percentile interval; the runs lie along `axis`."""
    generator = np.random.default_rng(SEED)
    return stats.bootstrap(
        tuple(samples),
        statistic,
        axis=axis,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        random_state=generator,
    ).confidence_interval
