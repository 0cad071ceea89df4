"""Estimators that bring the targets of another one to other units."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import ReturnEstimator, Targets
from a3c.returns.wrapper import Wrapper

EPSILON = 1e-8  # beside a standard deviation


Moments = tuple[int, Tensor, Tensor]  # of numbers: how many, their mean and variance


def normalised(terms: Tensor, mask: Tensor, pool: Callable[[Moments], Moments] = lambda moments: moments) -> Tensor:
    """Bring [T, B] terms to mean 0 and standard deviation 1 over the real steps; where all are alike they become 0.

    Andrychowicz et al. (2021), "What matters for on-policy deep actor-critic methods?", arXiv:2006.05990, study
    it for advantages. The deviation is that of the batch itself, so divided by the number of its steps.

    Args:
        terms: without gradient, [T, B].
        mask: True on real steps, [T, B].
        pool: of this batch's moments makes those of more steps, which the terms are brought to instead.
    """
    real = terms[mask].double()  # in 32 bits the rounding of the mean of equal terms would be blown up
    mean = real.mean()
    _, mean, variance = pool((len(real), mean, (real - mean).square().mean()))
    return ((terms.double() - mean) / (variance.sqrt() + EPSILON)).to(terms.dtype)


class L2Normalised(Wrapper):
    """Divides another estimator's value targets by their L2 norm, for each column by itself.

    The book divides the returns of an update so (its programs 5.8 and 5.9); the advantages are
    then normalised targets less values. Masked steps are no part of the norm. The critic learns
    normalised values, and where the inner estimator bootstraps it adds them to rewards that are not
    normalised, as the book's N-step program does.

    Args:
        estimator: the estimator whose targets are normalised.

    Raises:
        ValueError: the estimator's advantages are not its targets less the values, or carry ratios.
    """

    advantages_are_errors = True

    def __init__(self, estimator: ReturnEstimator) -> None:
        super().__init__(estimator)
        if estimator.carries_ratios or not estimator.advantages_are_errors:
            raise ValueError(
                f"estimator: got {type(estimator).__name__}, must be one whose advantages are its targets less the "
                "values, as advantages_are_errors says, without importance ratios (FullEpisode, NStep, GAE)"
            )
        self.target_units = "own"
        self.reusable = False  # the norm is that of one update's columns

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        inner = self.estimator(batch, values, log_probs, discounts)
        targets = inner.value_targets
        real = targets.masked_fill(~batch.mask, 0)
        targets = targets / real.norm(dim=0, keepdim=True).clamp(min=1e-12)
        return Targets(targets - values[:-1].detach(), targets, inner.weights)


class AdvantageNormalised(Wrapper):
    """Brings another estimator's advantages to mean 0 and standard deviation 1 over the batch's real steps.

    Andrychowicz et al. (2021), arXiv:2006.05990; see `normalised`. The value targets stay as they are.

    Args:
        estimator: the one whose advantages are normalised.
    """

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        inner = self.estimator(batch, values, log_probs, discounts)
        return inner._replace(advantages=normalised(inner.advantages, batch.mask))
