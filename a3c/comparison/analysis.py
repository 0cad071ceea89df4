"""What a comparison comes to: scores on equal budgets, and which differences between variants hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from a3c.comparison import statistics
from a3c.comparison.records import Evaluations, Run
from a3c.comparison.statistics import LEVEL, Estimate
from a3c.comparison.variants import Variant
from a3c.training.cli.usage import UsageError

POINTS = 101  # of the grid that curves are interpolated onto
SHOWN = 3  # runs that a message names

Floats = NDArray[np.float64]


class Verdict(NamedTuple):
    """What can be told of two variants.

    Attributes:
        first: the one with the higher interquartile mean.
        second: the other.
        difference: first less second, in the score's unit.
        probability: that a run of the first scores higher than one of the second.
        p_value: adjusted for the number of pairs of its group (Holm); NaN where too few runs are there.
        holds: whether the difference does: the adjusted p-value is at most 0.05, and both intervals leave
            no difference out.
    """

    first: Variant
    second: Variant
    difference: Estimate
    probability: Estimate
    p_value: float
    holds: bool


@dataclass(frozen=True)
class Score:
    """One score of every run.

    Attributes:
        name: what it is called.
        meaning: how it is made, a sentence.
        values: by variant and environment, [n], in the order of the seeds.
        normalised: whether values are normalised within environments.
    """

    name: str
    meaning: str
    values: dict[Variant, dict[str, Floats]]
    normalised: bool

    def of(self, variant: Variant) -> list[Floats]:
        """Return a variant's values, one array an environment."""
        return list(self.values[variant].values())

    @cached_property
    def estimates(self) -> dict[Variant, Estimate]:
        """The interquartile mean of every variant."""
        return {variant: statistics.score(self.of(variant)) for variant in self.values}

    @cached_property
    def probabilities(self) -> dict[tuple[Variant, Variant], Estimate]:
        """For every pair of variants, the probability that a run of the first scores higher."""
        found = {}
        for first, second in combinations(self.values, 2):
            there = statistics.probability_of_improvement(self.of(first), self.of(second))
            found[first, second] = there
            found[second, first] = Estimate(1 - there.value, 1 - there.high, 1 - there.low)
        return found

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What can be told of pairs, group by group: the labels within a mode, then the modes of a label."""
        modes = dict.fromkeys(variant.mode for variant in self.values)
        labels = dict.fromkeys(variant.label for variant in self.values)
        groups = [[variant for variant in self.values if variant.mode == mode] for mode in modes]
        groups += [[variant for variant in self.values if variant.label == label] for label in labels]
        return [verdict for group in groups for verdict in self._judge(group)]

    def _judge(self, group: Sequence[Variant]) -> list[Verdict]:
        pairs = [
            sorted(pair, key=lambda variant: self.estimates[variant].value, reverse=True)
            for pair in combinations(group, 2)
        ]
        adjusted = statistics.holm([statistics.p_value(self.of(first), self.of(second)) for first, second in pairs])
        verdicts = []
        for (first, second), p_value in zip(pairs, adjusted, strict=True):
            gap = statistics.difference(self.of(first), self.of(second))
            chance = self.probabilities[first, second]
            holds = p_value <= 1 - LEVEL and gap.low > 0 and chance.low > 0.5
            verdicts.append(Verdict(first, second, gap, chance, p_value, holds))
        return verdicts


class Solved(NamedTuple):
    """When a run's evaluation first reached the environment's threshold; infinite where it never did."""

    env_steps: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Runs on equal budgets, and what they come to.

    Args:
        runs: finished runs, each variant in every environment, none twice, of one budget an environment.
        notes: what a reader must know of the runs, a sentence each.
    """

    runs: tuple[Run, ...]
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def envs(self) -> list[str]:
        """The environments, in order of appearance."""
        return list(dict.fromkeys(run.env for run in self.runs))

    @cached_property
    def variants(self) -> list[Variant]:
        """The variants, those of a mode together."""
        found = list(dict.fromkeys(run.variant for run in self.runs))
        modes = list(dict.fromkeys(variant.mode for variant in found))
        return sorted(found, key=lambda variant: modes.index(variant.mode))

    @cached_property
    def labels(self) -> list[str]:
        """The labels of the variants."""
        return list(dict.fromkeys(variant.label for variant in self.variants))

    @cached_property
    def modes(self) -> list[str]:
        """The update modes."""
        return list(dict.fromkeys(variant.mode for variant in self.variants))

    def of(self, env: str, variant: Variant) -> list[Run]:
        """Return the runs of a cell, in the order of their seeds."""
        return sorted((run for run in self.runs if (run.env, run.variant) == (env, variant)), key=lambda run: run.seed)

    def on(self, env: str) -> list[Run]:
        """Return the runs in an environment."""
        return [run for run in self.runs if run.env == env]

    @cached_property
    def fewest(self) -> int:
        """Number of runs of the smallest cell."""
        return min(len(self.of(env, variant)) for env in self.envs for variant in self.variants)

    def span(self, env: str) -> tuple[float, float]:
        """Return the env steps between which all runs were evaluated; the last ones are the common budget."""
        ours = [run.evaluations.env_steps for run in self.on(env)]
        start = max(steps[0] for steps in ours)
        return start, max(start, min(min(steps[-1] for steps in ours), self._budget(env)))

    def ended_early(self, env: str) -> bool:
        """Return whether a run ended before its budget, as those do that stop when they are solved."""
        return any(run.end < self._budget(env) for run in self.on(env))

    def _budget(self, env: str) -> float:
        return next(float(run.budget) for run in self.on(env))

    @cached_property
    def final(self) -> Score:
        """The return at the end of the common budget."""
        meaning = (
            "mean return of the final policy, played greedily, over the fresh episodes at the end of a run"
            if self._has_finals
            else "return of the greedy evaluations, interpolated at the end of the common budget"
        )
        return self._score("final return", meaning, self._each(self.final_of))

    @cached_property
    def area(self) -> Score:
        """The mean of the curve of returns over env steps: the area under it, divided by its width."""
        meaning = (
            "mean of the evaluation curve over env steps, from the first evaluation that all runs have to the end of "
            "the common budget"
        )
        return self._score("area under the curve", meaning, self._each(self.area_of))

    def final_of(self, run: Run) -> float:
        """Return a run's return at the end of the common budget."""
        if self._has_finals and run.final_return is not None:
            return run.final_return
        return float(_interpolate(run.evaluations, np.array([self.span(run.env)[1]]))[0])

    def area_of(self, run: Run) -> float:
        """Return the mean of a run's curve over env steps."""
        return float(np.mean(_interpolate(run.evaluations, np.linspace(*self.span(run.env), POINTS))))

    @cached_property
    def _has_finals(self) -> bool:
        """Whether all runs played fresh episodes at the end of one and the same budget."""
        return all(run.final_return is not None for run in self.runs) and not any(map(self.ended_early, self.envs))

    def curves(self, env: str, variant: Variant, axis: str) -> tuple[Floats, Floats]:
        """Return the curves of a cell on a common grid, linear between evaluations, where all its runs have values.

        Args:
            env: environment id.
            variant: the variant.
            axis: "env_steps", "updates" or "seconds".

        Returns:
            The grid, [points], and the returns, [runs, points].
        """
        runs = self.of(env, variant)
        places = [getattr(run.evaluations, axis) for run in runs]
        start = max(place[0] for place in places)
        grid = np.linspace(start, max(start, min(place[-1] for place in places)), POINTS)
        return grid, np.stack([_interpolate(run.evaluations, grid, axis) for run in runs])

    def solved(self, run: Run) -> Solved:
        """Return when a run's evaluation first reached the environment's threshold."""
        threshold = threshold_of(run.env)
        reached = np.flatnonzero(run.evaluations.returns >= (math.inf if threshold is None else threshold))
        if not len(reached):
            return Solved(math.inf, math.inf)
        return Solved(float(run.evaluations.env_steps[reached[0]]), float(run.evaluations.seconds[reached[0]]))

    def is_solved_by_any(self, env: str) -> bool:
        """Return whether an evaluation of a run reached the environment's threshold, if it has one."""
        return any(math.isfinite(self.solved(run).env_steps) for run in self.on(env))

    def _each(self, score: Callable[[Run], float]) -> dict[Variant, dict[str, Floats]]:
        return {
            variant: {env: np.array([score(run) for run in self.of(env, variant)]) for env in self.envs}
            for variant in self.variants
        }

    def _score(self, name: str, meaning: str, values: dict[Variant, dict[str, Floats]]) -> Score:
        if len(self.envs) == 1:
            return Score(name, meaning, values, normalised=False)
        scaled: dict[Variant, dict[str, Floats]] = {variant: {} for variant in values}
        for env in self.envs:
            ours = np.concatenate([run.evaluations.returns for run in self.on(env)])
            finals = np.concatenate([values[variant][env] for variant in values])
            low, high = min(ours.min(), finals.min()), max(ours.max(), finals.max())
            for variant in values:
                scaled[variant][env] = (values[variant][env] - low) / (high - low if high > low else 1.0)
        return Score(name, meaning, scaled, normalised=True)


def threshold_of(env: str) -> float | None:
    """Return the return at which Gymnasium calls an environment solved, if it is registered and say so.

    No module is imported for it: the name may come from a file.
    """
    spec = gymnasium.registry.get(env.rpartition(":")[2])
    return None if spec is None else spec.reward_threshold


def compare(runs: Sequence[Run]) -> Comparison:
    """Take the runs that can be compared, and say what became of the others.

    Raises:
        UsageError: no run is finished, runs of an environment have different budgets, a run is there
            twice, or a variant is missing in an environment.
    """
    notes = [f"{run.path}: {note}" for run in runs for note in run.notes]
    finished = [run for run in runs if run.finished and len(run.evaluations.env_steps)]
    for run in runs:
        if run.finished and run not in finished:
            notes.append(f"{run.path}: has no evaluation, and is left out")
        elif not run.finished:
            steps = run.evaluations.env_steps
            notes.append(f"{run.path}: left out, ended after {steps[-1] if len(steps) else 0:,.0f} env steps")
    if not finished:
        raise UsageError(f"from: got {_names(runs)}, of which none is finished" if runs else "from: got no run")
    for problem in _problems(finished):
        raise UsageError(f"from: {problem}")
    comparison = Comparison(tuple(finished), tuple(notes))
    early = [env for env in comparison.envs if comparison.ended_early(env)]
    more = [f"{env}: compared up to {comparison.span(env)[1]:,.0f} env steps, where a run ended" for env in early]
    counts = {len(comparison.of(env, variant)) for env in comparison.envs for variant in comparison.variants}
    if len(counts) > 1:
        more.append(f"the cells have different numbers of runs, from {min(counts)} to {max(counts)}")
    return Comparison(comparison.runs, (*notes, *more))


def _problems(runs: Sequence[Run]) -> Iterator[str]:
    """Say, in a line each, why runs cannot be compared."""
    seen: dict[tuple[str, Variant, int], Run] = {}
    for run in runs:
        other = seen.setdefault((run.env, run.variant, run.seed), run)
        if other is not run:
            yield f"seed {run.seed} of {run.variant} on {run.env} is there twice: {other.path} and {run.path}"
    for env in dict.fromkeys(run.env for run in runs):
        budgets: dict[int, list[Run]] = {}
        for run in runs:
            if run.env == env:
                budgets.setdefault(run.budget, []).append(run)
        if len(budgets) > 1:
            parts = [f"{budget:,} env steps in {_names(ours)}" for budget, ours in sorted(budgets.items())]
            yield f"runs of {env} have different budgets: {'; '.join(parts)}"
    if missing := sorted(f"{variant} on {env}" for env, variant in missing_cells(runs)):
        yield f"several environments are compared only if each has all variants; missing: {'; '.join(missing)}"


def missing_cells(runs: Sequence[Run]) -> list[tuple[str, Variant]]:
    """Return the environments in which a variant of the runs has none, and that variant."""
    there = {(run.env, run.variant) for run in runs}
    envs, variants = dict.fromkeys(run.env for run in runs), dict.fromkeys(run.variant for run in runs)
    return [(env, variant) for variant in variants for env in envs if (env, variant) not in there]


def _names(runs: Sequence[Run]) -> str:
    names = [str(run.path) for run in runs[:SHOWN]]
    return ", ".join(names) + (f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else "")


def _interpolate(evaluations: Evaluations, grid: Floats, axis: str = "env_steps") -> Floats:
    return np.interp(grid, getattr(evaluations, axis), evaluations.returns)
