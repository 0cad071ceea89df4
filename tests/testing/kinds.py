"""Correct estimators of the kinds that a suite could wrongly refuse: mixing, without critic, in units of their own."""

import torch

from a3c.returns import (
    GAE,
    NStep,
    ReturnEstimator,
    Targets,
    Wrapper,
    importance_ratios,
    lambda_returns,
    real_rewards,
    trace_cuts,
)
from a3c.returns.normalised import normalised


class BatchNormalised(Wrapper):
    """Advantages of mean 0 and deviation 1 over the batch."""

    def __call__(self, batch, values, log_probs, discounts):
        inner = self.estimator(batch, values, log_probs, discounts)
        return inner._replace(advantages=normalised(inner.advantages, batch.mask))


class ColumnNormalised(Wrapper):
    """Advantages divided by their norm, each column by itself."""

    def __call__(self, batch, values, log_probs, discounts):
        inner = self.estimator(batch, values, log_probs, discounts)
        norm = inner.advantages.where(batch.mask, 0).norm(dim=0)
        return inner._replace(advantages=inner.advantages / norm.clamp(min=1e-8))


class Positive(Wrapper):
    """Advantages below 0 as 0, and weights that leave these steps out."""

    def __call__(self, batch, values, log_probs, discounts):
        inner = self.estimator(batch, values, log_probs, discounts)
        return Targets(inner.advantages.clamp(min=0), inner.value_targets, (inner.advantages > 0).to(values.dtype))


def h(x):
    return x.sign() * ((x.abs() + 1).sqrt() - 1)


def h_inverse(x):
    return x.sign() * ((x.abs() + 1).square() - 1)


class Rescaled(Wrapper):
    """A critic that learns h(V)."""

    def __init__(self, estimator: ReturnEstimator):
        super().__init__(estimator)
        self.target_units = "own"

    def __call__(self, batch, values, log_probs, discounts):
        targets = h(self.estimator(batch, h_inverse(values), log_probs, discounts).value_targets)
        return Targets(targets - values[:-1].detach(), targets)


class LeaveOneOut(ReturnEstimator):
    """Returns of whole episodes less the mean of the other columns' at their first steps; no critic."""

    end_at_episode = True

    def __call__(self, batch, values, log_probs, discounts):
        lambdas = torch.ones_like(discounts).masked_fill(trace_cuts(batch), 0)
        returns = lambda_returns(real_rewards(batch), discounts, torch.zeros_like(discounts), lambdas)
        others = (returns[0].sum() - returns[0]) / max(batch.columns - 1, 1)
        return Targets(returns - others, values[:-1].detach().clone())


class SelfNormalised(ReturnEstimator):
    """One-step errors times importance ratios that are divided by their mean over the batch."""

    carries_ratios = True

    def __init__(self, n_steps: int = 8):
        self.n_steps = self.horizon = n_steps

    def __call__(self, batch, values, log_probs, discounts):
        values = values.detach()
        ratios = importance_ratios(batch, log_probs).where(batch.mask, 0)
        ratios = ratios / (ratios.sum() / batch.mask.sum().clamp(min=1)).clamp(min=1e-8)
        errors = real_rewards(batch) + discounts * values[1:] - values[:-1]
        return Targets(ratios * errors, values[:-1] + errors)


class FromAverage(ReturnEstimator):
    """Rewards above their running mean, undiscounted, to the n-step return."""

    target_units = "own"

    def __init__(self, n_steps: int = 8, rate: float = 0.1):
        self.n_steps = self.horizon = n_steps
        self.rate = rate
        self._mean = torch.zeros(1)

    @property
    def statistics(self):
        return {"mean": self._mean}

    def take_in(self, batch, values, log_probs, discounts):
        if batch.mask.any():
            self._mean.lerp_(batch.rewards[batch.mask].mean(), self.rate)

    def __call__(self, batch, values, log_probs, discounts):
        rewards = (batch.rewards - self._mean).where(batch.mask, 0)
        lambdas = (~trace_cuts(batch)).to(values.dtype)
        targets = lambda_returns(rewards, (discounts > 0).to(values.dtype), values.detach()[1:], lambdas)
        return Targets(targets - values.detach()[:-1], targets)


class Upgoing(ReturnEstimator):
    """The return follows what happened where that is better than the critic expected: UPGO."""

    def __init__(self, n_steps: int = 8):
        self.n_steps = self.horizon = n_steps

    def __call__(self, batch, values, log_probs, discounts):
        values = values.detach()
        rewards, cuts = real_rewards(batch), trace_cuts(batch)
        errors = rewards + discounts * values[1:] - values[:-1]
        better = torch.cat((errors[1:] >= 0, torch.zeros_like(cuts[:1])))
        targets = lambda_returns(rewards, discounts, values[1:], (better & ~cuts).to(values.dtype))
        return Targets(targets - values[:-1], GAE(self.n_steps)(batch, values, log_probs, discounts).value_targets)


class PlainTuple(NStep):
    """Gives a pair instead of `Targets`."""

    def __call__(self, batch, values, log_probs, discounts):
        return tuple(super().__call__(batch, values, log_probs, discounts)[:2])
