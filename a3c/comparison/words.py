"""What a comparison says in words: which differences hold, how that is decided, and figures with their intervals."""

from __future__ import annotations

from collections.abc import Iterator

from a3c.comparison.analysis import Comparison, Score, Verdict
from a3c.comparison.statistics import LEAST_RUNS, LEAST_TRIMMED, RESAMPLES, Estimate
from a3c.runs.figures import figure

METHOD = (
    f"IQM is the interquartile mean over runs: a quarter of them is cut at each end (whole runs: none of 3, one at "
    f"each end of 4 to 7). Intervals are 95 % percentile intervals of {RESAMPLES:,} bootstrap samples of the runs; "
    "with several environments the runs are drawn again within each. Runs of one seed are not paired: beyond the "
    "first weights they have little in common. Runs that failed to learn stay in.",
    "Probability of improvement is Mann and Whitney's U / (n·m): how often a run of the one scores higher than a run "
    "of the other, ties as one half; with several environments, their mean.",
    f"A difference holds if Welch's t-test (from {LEAST_TRIMMED} runs each on Yuen's, which trims 25 % at each end; of "
    "several environments Stouffer's combination) has a p-value of at most 0.05 after Holm's adjustment for the number "
    "of pairs of its group, and both intervals lie on one side of no difference. A group is all estimators within a "
    "mode, or all modes of an estimator; each group, and each score, is adjusted by itself. The intervals themselves "
    "are not adjusted, and with few runs they are too narrow: alone they would call a difference in a tenth (10 runs "
    "each) to a third (3 runs each) of comparisons of three equal variants. "
    "What cannot be told from few runs may still be there.",
    "Curves are linear between evaluations, on a grid of 101 points from the first evaluation that all runs of the "
    "variant have to the last one. Evaluations are greedy, and training's clock stands still meanwhile.",
)

PAIR_COLUMNS = ("compared", "difference of IQM", "probability of improvement", "adjusted p", "in words")


def sentences(comparison: Comparison, score: Score, told_only: bool = False) -> Iterator[str]:
    """Say in words which differences between variants hold, those that do first.

    Args:
        comparison: whose variants.
        score: by which they are compared.
        told_only: leave out pairs of which no difference can be told.
    """
    if len(comparison.variants) < 2:
        return
    if comparison.fewest < LEAST_RUNS:
        few = [each for each in comparison.variants if min(map(len, score.of(each))) < LEAST_RUNS]
        yield (
            f"Fewer than {LEAST_RUNS} runs of {', '.join(map(str, few))}: no interval can be given, and no difference "
            "be told."
        )
    for verdict in _in_order(score):
        if verdict.holds or not told_only:
            yield _sentence(verdict, score)


def pair_rows(score: Score) -> list[list[str]]:
    """Return a row for each pair that is compared, under the columns of `PAIR_COLUMNS`; those that hold first."""
    rows = []
    for verdict in _in_order(score):
        first, second, where = _pair(verdict)
        rows.append(
            [
                f"{first} and {second} {where}",
                signed(verdict.difference),
                chance(verdict.probability),
                _p(verdict.p_value),
                f"{first} reaches more" if verdict.holds else "cannot be told",
            ]
        )
    return rows


def _in_order(score: Score) -> list[Verdict]:
    known = [verdict for verdict in score.verdicts if verdict.difference.has_interval]
    return sorted(known, key=lambda verdict: not verdict.holds)


def _pair(verdict: Verdict) -> tuple[str, str, str]:
    """Return what distinguishes the two, and what they have in common."""
    first, second = verdict.first, verdict.second
    if first.mode == second.mode:
        return first.label, second.label, f"in {first.mode}"
    return first.mode, second.mode, f"for {first.label}"


def _sentence(verdict: Verdict, score: Score) -> str:
    figures = (
        f"{signed(verdict.difference)} IQM of the {score.name}{', normalised' if score.normalised else ''}; "
        f"probability of improvement {chance(verdict.probability)}; adjusted p {_p(verdict.p_value)}"
    )
    first, second, where = _pair(verdict)
    if verdict.holds:
        return f"{first} reaches more than {second} {where}: {figures}: holds."
    return f"{first} and {second} {where}: no difference can be told ({figures})."


def signed(estimate: Estimate) -> str:
    """Return a gain and its interval."""
    return f"+{figure(estimate.value)} [{figure(estimate.low)}, {figure(estimate.high)}]"


def figure_of(estimate: Estimate) -> str:
    """Return a figure and its interval, where there is one."""
    if not estimate.has_interval:
        return f"{figure(estimate.value)} (no interval)"
    return f"{figure(estimate.value)} [{figure(estimate.low)}, {figure(estimate.high)}]"


def chance(estimate: Estimate) -> str:
    """Return a probability and its interval, where there is one."""
    if not estimate.has_interval:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
