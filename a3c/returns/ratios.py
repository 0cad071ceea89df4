"""Importance ratios of the policy that learns to the one that acted, kept finite."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import zero_masked

MAX_LOG_RATIO = 50.0  # beyond it sums and means of the ratios would overflow


def importance_ratios(batch: RolloutBatch, log_probs: Tensor) -> Tensor:
    """Return w = π(a|s) / μ(a|s), at most e⁵⁰, without gradient, [T, B]; 1 at masked steps.

    Args:
        batch: transitions, which say log μ(a|s), [T, B].
        log_probs: log π(a|s), [T, B].
    """
    log_ratios = zero_masked(log_probs.detach() - batch.behaviour_log_probs, batch)
    return log_ratios.clamp(max=MAX_LOG_RATIO).exp()


def self_normalised_ratios(batch: RolloutBatch, log_probs: Tensor) -> Tensor:
    """Return the ratios divided by their mean over the batch's real steps, without gradient, [T, B]; 1 at masked steps.

    Owen (2013), Monte Carlo theory, methods and examples, section 9.2. None exceeds the number of real steps.

    Args:
        batch: transitions, which say log μ(a|s), [T, B].
        log_probs: log π(a|s), [T, B].
    """
    log_ratios = log_probs.detach() - batch.behaviour_log_probs
    # One factor on all of them changes nothing: the largest is made 1, so none overflows.
    ratios = (log_ratios - log_ratios.masked_fill(~batch.mask, -torch.inf).max()).exp()
    return (ratios / ratios[batch.mask].mean()).where(batch.mask, 1)
