"""The terms of the actor-critic loss, as pure functions of tensors, and how they are reduced.

Every term is reduced over real steps only: a reset step or padding has `mask` False and counts
neither in the sum nor in the number that a mean divides by.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

REDUCTIONS = ("mean", "sum")
Reduction = Callable[[Tensor], Tensor]


def masked_reduction(mask: Tensor, how: str) -> Reduction:
    """Gives the function that reduces a [T, B] tensor over the real steps of `mask`.

    The mask is counted once, however many terms are reduced with it.

    Args:
        mask: True on real steps, [T, B].
        how: "mean" or "sum".

    Raises:
        ValueError: `how` is neither.
    """
    if how not in REDUCTIONS:
        raise ValueError(f"reduction: got {how!r}, must be one of {', '.join(REDUCTIONS)}")
    weights = mask.to(torch.float32)
    scale = 1.0 / weights.sum().clamp(min=1) if how == "mean" else None

    def reduce(terms: Tensor) -> Tensor:
        # where, not a product: 0 · NaN is NaN, and what stands at a masked step is nobody's affair
        total = terms.where(mask, 0).sum()
        return total if scale is None else total * scale

    return reduce


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, reduce: Reduction) -> Tensor:
    """Reinforces actions by their advantage: −log π(a|s)·A.

    Mnih et al. (2016), arXiv:1602.01783, section 4.

    Args:
        log_probs: log π(a|s) of the taken actions, [T, B].
        advantages: A without gradient, [T, B].
        reduce: how steps become one number.
    """
    return reduce(-log_probs * advantages.detach())


def value_loss(values: Tensor, value_targets: Tensor, reduce: Reduction, huber_delta: float | None = None) -> Tensor:
    """Draws the critic to its targets: (V − G)², or the Huber loss.

    The square carries no factor ½, as in the book; Huber's is δ-scaled as in Huber (1964).

    Args:
        values: V of the states acted in, [T, B].
        value_targets: G without gradient, [T, B].
        reduce: how steps become one number.
        huber_delta: where the Huber loss turns linear, or None for the squared error.
    """
    targets = value_targets.detach()
    if huber_delta is None:
        return reduce((values - targets).square())
    return reduce(F.huber_loss(values, targets, reduction="none", delta=huber_delta))


def entropy_loss(entropies: Tensor, reduce: Reduction) -> Tensor:
    """Rewards a policy for being undecided: −H(π(·|s)).

    Williams & Peng (1991); Mnih et al. (2016), section 4.

    Args:
        entropies: H in nats, [T, B].
        reduce: how steps become one number.
    """
    return reduce(-entropies)
