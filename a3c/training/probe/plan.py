"""Which estimators a probe compares, and how often: its flags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from a3c.returns import ReturnEstimator
from a3c.returns.labels import parse
from a3c.runs.descriptions import describe


@dataclass(frozen=True)
class ProbePlan:
    """What is compared with the estimator that trains, and how often.

    Attributes:
        every_updates: updates from one comparison to the next, ≥ 1.
        estimators: labels, such as [FullEpisode, GAE:lambda_=0.9], as a list or with commas between them; by
            default NStep:n_steps=1, NStep, GAE and VTrace, and FullEpisode where rollouts are whole episodes.

    Raises:
        ValueError: a value outside its range, or no label of an estimator.
    """

    every_updates: int = 50
    estimators: list[str] | str | None = None

    def __post_init__(self) -> None:
        if self.every_updates < 1:
            raise ValueError(f"every_updates: got {self.every_updates}, must be at least 1")
        if self.estimators is not None:
            self.parsed()

    def parsed(self) -> list[ReturnEstimator]:
        """Return the estimators of the labels.

        Raises:
            ValueError: there are none, or one cannot be parsed, or not be described.
        """
        given = self.estimators or []
        labels = joined(given.split(",") if isinstance(given, str) else given)
        if not labels:
            raise ValueError("estimators: got [], must be one label or more, or null for the usual ones")
        try:
            estimators = [parse(label) for label in labels]
            for estimator in estimators:
                describe(estimator)  # only one that keeps its arguments can be named
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"estimators: {error}") from error
        return estimators


def joined(parts: Iterable[str]) -> list[str]:
    """Join labels again that were split at the commas between their arguments, as a list in YAML is.

    ``[GAE:n_steps=8, lambda_=0.9, NStep]`` is two labels: what begins with an argument's name goes on
    with the label before it.
    """
    labels: list[str] = []
    for part in parts:
        if labels and "=" in part.partition(":")[0]:
            labels[-1] += f",{part.strip()}"
        else:
            labels.append(part.strip())
    return labels
