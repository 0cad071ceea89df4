"""Return estimators: pure backward recursions, and the strategies that put them to use.

An estimator turns a batch of transitions and the critic's values into advantages (what the actor
is told) and value targets (what the critic is told). All of them go back to one recursion,

    Gₜ = rₜ + γₜ·((1 − λₜ)·Vₜ₊₁ + λₜ·Gₜ₊₁),

in which λₜ = 0 cuts the trace: the rest of the return is then taken from the critic. It is cut
after a truncated step, before padding, at the fragment's end and, for N-step returns, every n
steps. Where an episode terminated γₜ is 0, so nothing beyond it counts.

Write your own: a subclass of `ReturnEstimator` in any importable file works by its import path
(``--model.returns my_file.MyReturns``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from a3c.batch import RolloutBatch


class Targets(NamedTuple):
    """What the two heads learn from; neither carries a gradient.

    Attributes:
        advantages: how much better each action was than the critic expected, [T, B].
        value_targets: what the critic should have said, [T, B].
    """

    advantages: Tensor
    value_targets: Tensor


def linear_recursion(addends: Tensor, factors: Tensor) -> Tensor:
    """Solves xₜ = aₜ + bₜ·xₜ₊₁ backwards from x_T = 0.

    Args:
        addends: aₜ, [T, B].
        factors: bₜ, [T, B].

    Returns:
        xₜ for every step, [T, B].

    Raises:
        ValueError: the two differ in shape.
    """
    if addends.shape != factors.shape:
        raise ValueError(f"addends {tuple(addends.shape)} and factors {tuple(factors.shape)} differ in shape")
    rows = list(addends.unbind(0))
    factor_rows = factors.unbind(0)
    for t in range(len(rows) - 2, -1, -1):
        rows[t] = torch.addcmul(rows[t], factor_rows[t], rows[t + 1])
    return torch.stack(rows)


def discounted_sum(rewards: Tensor, discounts: Tensor, bootstrap_value: Tensor) -> Tensor:
    """Sums future rewards backwards: Gₜ = rₜ + γₜ·Gₜ₊₁, from G_T = bootstrap_value.

    Sutton & Barto, Reinforcement Learning (2nd ed.), eq. 3.9.

    Args:
        rewards: reward received after each action, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        bootstrap_value: value of the state after the last step, [B].

    Returns:
        Gₜ for every step, [T, B].

    Raises:
        ValueError: the shapes do not belong together.
    """
    if rewards.shape != discounts.shape or bootstrap_value.shape != rewards.shape[1:]:
        raise ValueError(
            f"rewards and discounts must be of one shape [T, B], and bootstrap_value [B]: got "
            f"{tuple(rewards.shape)}, {tuple(discounts.shape)} and {tuple(bootstrap_value.shape)}"
        )
    addends = rewards.clone()
    addends[-1] += discounts[-1] * bootstrap_value
    return linear_recursion(addends, discounts)


def lambda_returns(rewards: Tensor, discounts: Tensor, next_values: Tensor, lambdas: Tensor) -> Tensor:
    """Mixes bootstrapped and longer returns: Gₜ = rₜ + γₜ·((1 − λₜ)·Vₜ₊₁ + λₜ·Gₜ₊₁).

    Sutton & Barto, Reinforcement Learning (2nd ed.), eq. 12.18; less the values of the states,
    these are the advantages of Schulman et al. (2016), arXiv:1506.02438, eq. 16.

    Args:
        rewards: reward received after each action, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        next_values: the critic's value of the state after each action, [T, B].
        lambdas: weight of the longer return, in [0, 1]; 0 cuts the trace, [T, B]. The last row
            must be 0: nothing is known beyond it.

    Returns:
        Gₜ for every step, [T, B].
    """
    return linear_recursion(rewards + discounts * (1 - lambdas) * next_values, discounts * lambdas)


def vtrace_targets(
    values: Tensor, errors: Tensor, discounts: Tensor, ratios: Tensor, rho_clip: float, c: Tensor
) -> Tensor:
    """Gives V-trace targets: vₜ = Vₜ + ρₜ·δₜ + γₜ·cₜ·(vₜ₊₁ − Vₜ₊₁), with ρₜ = min(ρ̄, ratioₜ).

    Espeholt et al. (2018), IMPALA, arXiv:1802.01561, eq. 1 and remark 1.

    Args:
        values: Vₜ of the states acted in, [T, B].
        errors: δₜ = rₜ + γₜ·Vₜ₊₁ − Vₜ, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        ratios: π(a|s) / μ(a|s), [T, B].
        rho_clip: ρ̄, the clip of the errors' weights.
        c: trace weights cₜ, 0 where the trace is cut, [T, B].
    """
    return values + linear_recursion(ratios.clamp(max=rho_clip) * errors, discounts * c)


def trace_cuts(batch: RolloutBatch, n_steps: int | None = None) -> Tensor:
    """Says after which steps the return is taken from the critic.

    That is after truncated steps, before padding or a reset step, at the fragment's end and, if
    asked for, every n steps from the fragment's start.

    Args:
        batch: the transitions.
        n_steps: steps between cuts, or None for none but the others.

    Returns:
        True where Vₜ₊₁ stands for all that follows step t, [T, B].
    """
    cuts = batch.truncated.clone()
    cuts[:-1] |= ~batch.mask[1:]
    cuts[-1] = True
    if n_steps is not None:
        cuts[n_steps - 1 :: n_steps] = True
    return cuts


def _lambda_targets(
    batch: RolloutBatch, values: Tensor, discounts: Tensor, lambda_: float, n_steps: int | None
) -> Targets:
    _check_shapes(batch, values, discounts=discounts)
    values = values.detach()
    rewards = _real_rewards(batch)
    lambdas = (~trace_cuts(batch, n_steps)).to(values.dtype)
    if lambda_ != 1.0:
        lambdas = lambdas * lambda_
    targets = lambda_returns(rewards, discounts, values[1:], lambdas)
    return Targets(targets - values[:-1], targets)


def _real_rewards(batch: RolloutBatch) -> Tensor:
    """Gives the rewards with 0 at masked steps: the recursion multiplies by 0 there, and 0 · NaN is NaN."""
    return batch.rewards.where(batch.mask, 0)


def _check_shapes(batch: RolloutBatch, values: Tensor, **steps: Tensor) -> None:
    length, columns = batch.rewards.shape
    if values.shape != (length + 1, columns):
        raise ValueError(f"values: got shape {tuple(values.shape)}, must be [T+1, B] = {(length + 1, columns)}")
    for name, tensor in steps.items():
        if tensor.shape != (length, columns):
            raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, must be [T, B] = {(length, columns)}")


def _check_n_steps(n_steps: int) -> None:
    if not isinstance(n_steps, int) or isinstance(n_steps, bool):  # whatever the annotation says, labels are typed
        raise ValueError(f"n_steps: got {n_steps}, must be a whole number, at least 1")
    _check_range("n_steps", n_steps, 1)


def _check_range(name: str, value: float, low: float, high: float | None = None) -> None:
    if not (value >= low and (high is None or value <= high)):  # written so that NaN fails
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name}: got {value}, must be {allowed}")


class ReturnEstimator(ABC):
    """Strategy that turns transitions and values into advantages and value targets.

    Every constructor argument is kept as an attribute of the same name, so that a run can say
    which estimator it used.

    Attributes:
        horizon: steps of a rollout, or None if it needs whole episodes.
        end_at_episode: a rollout's columns stop at the end of an episode instead of running on
            into the next one.
    """

    horizon: int | None = None
    end_at_episode: bool = False

    @abstractmethod
    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        """Gives advantages and value targets for a batch.

        Args:
            batch: transitions, [T, B]; rewards come multiplied by the model's `reward_scale`.
            values: the critic's values of all observations, the last one included, [T+1, B].
            log_probs: log π(a|s) of the taken actions under the current policy, [T, B].
            discounts: γ, or 0 where the episode terminated, [T, B].

        Returns:
            Advantages and value targets, [T, B] each, without gradient. What they hold at masked
            steps counts nowhere.
        """


class FullEpisode(ReturnEstimator):
    """Monte-Carlo returns of whole episodes; a truncated one is completed by the critic.

    Sutton & Barto, Reinforcement Learning (2nd ed.), section 13.4.
    """

    horizon = None
    end_at_episode = True

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return _lambda_targets(batch, values, discounts, 1.0, None)


class NStep(ReturnEstimator):
    """Rewards of up to n steps, then the critic: Mnih et al. (2016), arXiv:1602.01783, alg. S3.

    ``NStep(1)`` is the one-step actor-critic.

    Args:
        n_steps: steps of a rollout, and from one cut to the next.
        end_at_episode: stop a rollout at its episode's end, as the paper's loop does, instead of
            running on into the next episode.

    Raises:
        ValueError: n_steps < 1 or no whole number.
    """

    def __init__(self, n_steps: int = 32, end_at_episode: bool = False) -> None:
        _check_n_steps(n_steps)
        self.n_steps = self.horizon = n_steps
        self.end_at_episode = end_at_episode

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return _lambda_targets(batch, values, discounts, 1.0, self.n_steps)


class GAE(ReturnEstimator):
    """Generalised advantage estimation: Schulman et al. (2016), arXiv:1506.02438, eq. 16.

    Args:
        n_steps: steps of a rollout.
        lambda_: λ, from 0 (one-step: little variance, the critic's bias) to 1 (N-step).

    Raises:
        ValueError: n_steps < 1 or no whole number, or lambda_ outside [0, 1].
    """

    def __init__(self, n_steps: int = 32, lambda_: float = 0.95) -> None:
        _check_n_steps(n_steps)
        _check_range("lambda_", lambda_, 0, 1)
        self.n_steps = self.horizon = n_steps
        self.lambda_ = lambda_

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        return _lambda_targets(batch, values, discounts, self.lambda_, None)


class VTrace(ReturnEstimator):
    """Off-policy corrected N-step returns: Espeholt et al. (2018), IMPALA, arXiv:1802.01561.

    With the policy that acted the importance ratios are 1, and with clips of at least 1 it equals
    `NStep`.

    Args:
        n_steps: steps of a rollout.
        rho_clip: ρ̄, clip of the errors' weights; it decides which policy's values are learned.
        c_clip: c̄, clip of the trace weights; it decides how fast.

    Raises:
        ValueError: n_steps < 1 or no whole number, or a clip below 0.
    """

    def __init__(self, n_steps: int = 32, rho_clip: float = 1.0, c_clip: float = 1.0) -> None:
        _check_n_steps(n_steps)
        _check_range("rho_clip", rho_clip, 0)
        _check_range("c_clip", c_clip, 0)
        self.n_steps = self.horizon = n_steps
        self.rho_clip = rho_clip
        self.c_clip = c_clip

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        _check_shapes(batch, values, discounts=discounts, log_probs=log_probs)
        values = values.detach()
        rewards = _real_rewards(batch)
        current, following = values[:-1], values[1:]
        ratios = (log_probs.detach() - batch.behaviour_log_probs).exp()
        cuts = trace_cuts(batch)
        errors = rewards + discounts * following - current
        c = ratios.clamp(max=self.c_clip).masked_fill(cuts, 0)
        targets = vtrace_targets(current, errors, discounts, ratios, self.rho_clip, c)
        # The policy gradient looks one step on along the targets, but at a cut along the critic.
        following_targets = torch.cat((targets[1:], following[-1:])).where(~cuts, following)
        advantages = ratios.clamp(max=self.rho_clip) * (rewards + discounts * following_targets - current)
        return Targets(advantages, targets)


class L2Normalised(ReturnEstimator):
    """Divides another estimator's value targets by their L2 norm, for each column by itself.

    The book divides the returns of an update so (its programs 5.8 and 5.9); the advantages are
    then normalised targets less values. Masked steps are no part of the norm. The critic learns
    normalised values, and where the inner estimator bootstraps it adds them to rewards that are not
    normalised, as the book's N-step program does.

    Args:
        estimator: the estimator whose targets are normalised.

    Raises:
        ValueError: the estimator is VTrace, whose advantages are not targets less values.
    """

    def __init__(self, estimator: ReturnEstimator) -> None:
        if isinstance(estimator, VTrace):
            raise ValueError(
                "estimator: got VTrace, must be one whose advantages are its targets less the values "
                "(FullEpisode, NStep, GAE)"
            )
        self.estimator = estimator
        self.horizon = estimator.horizon
        self.end_at_episode = estimator.end_at_episode

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        targets = self.estimator(batch, values, log_probs, discounts).value_targets
        real = targets.masked_fill(~batch.mask, 0)
        targets = targets / real.norm(dim=0, keepdim=True).clamp(min=1e-12)
        return Targets(targets - values[:-1].detach(), targets)
