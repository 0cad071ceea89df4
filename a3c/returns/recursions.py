"""Backward recursions that the estimators have in common, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.batch import RolloutBatch


def linear_recursion(addends: Tensor, factors: Tensor) -> Tensor:
    """Solve xₜ = aₜ + bₜ·xₜ₊₁ backwards from x_T = 0.

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
    """Sum future rewards backwards: Gₜ = rₜ + γₜ·Gₜ₊₁, from G_T = bootstrap_value.

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
    """Mix bootstrapped and longer returns: Gₜ = rₜ + γₜ·((1 − λₜ)·Vₜ₊₁ + λₜ·Gₜ₊₁).

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


def sliding_returns(rewards: Tensor, discounts: Tensor, next_values: Tensor, cuts: Tensor, lookahead: int) -> Tensor:
    """Look k steps ahead from every step: Gₜ⁽ᵏ⁾ = rₜ + γₜ·Gₜ₊₁⁽ᵏ⁻¹⁾, from Gₜ⁽¹⁾ = rₜ + γₜ·Vₜ₊₁, which a cut gives too.

    Sutton & Barto, Reinforcement Learning (2nd ed.), eq. 7.1.

    Args:
        rewards: reward received after each action, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        next_values: the critic's value of the state after each action, [T, B].
        cuts: True where that value stands for all that follows, [T, B]. The last row must be True.
        lookahead: k ≥ 1.

    Returns:
        Gₜ⁽ᵏ⁾ for every step, [T, B].
    """
    returns = rewards + discounts * next_values
    for _ in range(min(lookahead, len(rewards)) - 1):
        following = torch.cat((returns[1:], next_values[-1:]))
        returns = rewards + discounts * next_values.where(cuts, following)
    return returns


def upgoing_returns(rewards: Tensor, discounts: Tensor, values: Tensor, next_values: Tensor, cuts: Tensor) -> Tensor:
    """Follow a rollout as long as it does better than the critic expected, then take the critic's word.

    Gₜ = rₜ + γₜ·(Gₜ₊₁ if rₜ₊₁ + γₜ₊₁·Vₜ₊₂ ≥ Vₜ₊₁ else Vₜ₊₁): Vinyals et al. (2019), "Grandmaster level in StarCraft II
    using multi-agent reinforcement learning", Nature 575, methods.

    Args:
        rewards: reward received after each action, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        values: Vₜ of the states acted in, [T, B].
        next_values: Vₜ₊₁ of the state after each action, [T, B].
        cuts: True where that value stands for all that follows, [T, B]. The last row must be True.

    Returns:
        Gₜ for every step, [T, B].
    """
    follows = ~cuts
    follows[:-1] &= (rewards + discounts * next_values >= values)[1:]
    return lambda_returns(rewards, discounts, next_values, follows.to(rewards.dtype))


def vtrace_targets(values: Tensor, errors: Tensor, discounts: Tensor, rhos: Tensor, c: Tensor) -> Tensor:
    """Return V-trace targets: vₜ = Vₜ + ρₜ·δₜ + γₜ·cₜ·(vₜ₊₁ − Vₜ₊₁).

    Espeholt et al. (2018), IMPALA, arXiv:1802.01561, eq. 1 and remark 1.

    Args:
        values: Vₜ of the states acted in, [T, B].
        errors: δₜ = rₜ + γₜ·Vₜ₊₁ − Vₜ, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
        rhos: ρₜ, the errors' weights, min(ρ̄, π(a|s) / μ(a|s)) in the paper, [T, B].
        c: trace weights cₜ, 0 where the trace is cut, [T, B].
    """
    return values + linear_recursion(rhos * errors, discounts * c)


def trace_cuts(batch: RolloutBatch, n_steps: int | None = None) -> Tensor:
    """Say after which steps the return is taken from the critic.

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
