"""The terms of the actor-critic loss, as pure functions of tensors, and how they are reduced.

Every term is reduced over real steps only: a reset step or padding has `mask` False and counts
neither in the sum nor in the number that a mean divides by.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

REDUCTIONS = ("mean", "sum")
MAX_SURROGATE_LOG_RATIO = 20.0  # beyond it the square of a gradient would overflow


class MaskedReduction:
    """Reduces [T, B] tensors over the real steps of a mask, which it counts once.

    Args:
        mask: True on real steps, [T, B].
        how: "mean" or "sum".
        weights: factor on each step's term, without gradient, [T, B]; None for 1. A mean divides by
            the number of real steps all the same.

    Raises:
        ValueError: `how` is neither.
    """

    def __init__(self, mask: Tensor, how: str, weights: Tensor | None = None) -> None:
        if how not in REDUCTIONS:
            raise ValueError(f"reduction: got {how!r}, must be one of {', '.join(REDUCTIONS)}")
        self._mask = mask
        self._weights = None if weights is None else self.real(weights.detach())
        self._scale = 1.0 / mask.sum().clamp(min=1) if how == "mean" else None

    def real(self, terms: Tensor) -> Tensor:
        """Put 0 wherever the mask is False, [T, B].

        Inputs go through here as well as sums: a NaN at a masked step would otherwise meet the
        gradient of that step, which is 0, and 0 · NaN is NaN.
        """
        return terms.where(self._mask, 0)

    def __call__(self, terms: Tensor) -> Tensor:
        """Return one number for [T, B] terms; 0 where no step is real."""
        terms = self.real(terms)
        total = (terms if self._weights is None else terms * self._weights).sum()
        return total if self._scale is None else total * self._scale


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, reduce: MaskedReduction) -> Tensor:
    """Reinforce actions by their advantage: −log π(a|s)·A.

    Mnih et al. (2016), arXiv:1602.01783, section 4.

    Args:
        log_probs: log π(a|s) of the taken actions, [T, B].
        advantages: A without gradient, [T, B].
        reduce: how steps become one number.
    """
    return reduce(-log_probs * reduce.real(advantages.detach()))


def clipped_surrogate_loss(
    log_probs: Tensor, behaviour_log_probs: Tensor, advantages: Tensor, clip: float, reduce: MaskedReduction
) -> Tensor:
    """Reinforce actions by their advantage while the policy is close to that which acted.

    −min(w·A, clip(w, 1 − ε, 1 + ε)·A) with w = π(a|s) / μ(a|s): Schulman et al. (2017), Proximal Policy
    Optimization Algorithms, arXiv:1707.06347, eq. 7. Where π = μ its gradient is the policy gradient's.

    Args:
        log_probs: log π(a|s) of the taken actions, [T, B].
        behaviour_log_probs: log μ(a|s), [T, B].
        advantages: A without gradient, [T, B].
        clip: ε, > 0.
        reduce: how steps become one number.
    """
    advantages = reduce.real(advantages.detach())
    ratios = (log_probs - behaviour_log_probs).clamp(max=MAX_SURROGATE_LOG_RATIO).exp()
    return reduce(-torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages))


def value_loss(
    values: Tensor,
    value_targets: Tensor,
    reduce: MaskedReduction,
    huber_delta: float | None = None,
    unit: Tensor | None = None,
) -> Tensor:
    """Draw the critic to its targets: (V − G)², or the Huber loss.

    The square carries no factor ½, as in the book; Huber's does below δ, as in Huber (1964), so
    there its gradient is half the square's.

    Args:
        values: V of the states acted in, [T, B].
        value_targets: G without gradient, [T, B].
        reduce: how steps become one number.
        huber_delta: where the Huber loss turns linear, or None for the squared error.
        unit: in which errors count, > 0, a scalar; None for 1.
    """
    targets = reduce.real(value_targets.detach())
    if unit is not None:
        values, targets = values / unit, targets / unit
    if huber_delta is None:
        return reduce((values - targets).square())
    return reduce(F.huber_loss(values, targets, reduction="none", delta=huber_delta))


def entropy_loss(entropies: Tensor, reduce: MaskedReduction) -> Tensor:
    """Reward a policy for being undecided: −H(π(·|s)).

    Williams & Peng (1991); Mnih et al. (2016), section 4.

    Args:
        entropies: H in nats, [T, B].
        reduce: how steps become one number.
    """
    return reduce(-entropies)
