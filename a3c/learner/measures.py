"""What is measured on the steps of a loss, beside the loss itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.learner.losses import MaskedReduction
from a3c.returns.ratios import MAX_LOG_RATIO

RATIO_TOLERANCE = 1e-3  # above 1: the same policy, worked out in another batch, differs by rounding
OF_PASSES = {  # what is logged of each pass by itself, and how it is called there
    "surrogate/clip_fraction": "clip_fraction",
    "policy/kl_from_behaviour": "kl_from_behaviour",
    "importance/largest_ratio": "largest_ratio",
    "importance/smallest_ratio": "smallest_ratio",
    "value/explained_variance": "explained_variance",
}


class Trace(NamedTuple):
    """What a loss leaves behind to be measured, without gradient.

    Attributes:
        mask: the step is a real one, [T, B].
        behaviour_log_probs: log μ(a|s) of the policy that acted, [T, B].
        advantages: as the estimator gave them, [T, B].
        value_targets: [T, B].
        log_probs: log π(a|s), [T, B].
        values: of the states acted in, [T, B].
        entropies: of the policy, in nats, [T, B].
        terms: of the loss, scalars by metric key.
    """

    mask: Tensor
    behaviour_log_probs: Tensor
    advantages: Tensor
    value_targets: Tensor
    log_probs: Tensor
    values: Tensor
    entropies: Tensor
    terms: dict[str, Tensor]

    @classmethod
    def joined(cls, traces: Sequence[Trace]) -> Trace:
        """Return the traces of minibatches side by side, with the means of their terms."""
        if len(traces) == 1:
            return traces[0]
        terms = [trace.terms for trace in traces]
        means = {key: torch.stack([each[key] for each in terms]).mean() for key in terms[0]}
        fields = {name: [getattr(trace, name) for trace in traces] for name in cls._fields if name != "terms"}
        return cls(**{name: torch.cat(parts, 1) for name, parts in fields.items()}, terms=means)


def metrics_of(trace: Trace, ratio_clip: float | None) -> dict[str, Tensor]:
    """Return detached scalars by metric key; means are over real steps, without weights.

    Args:
        trace: of a whole pass, or what was made of it.
        ratio_clip: ε of the surrogate, or None.
    """
    mean = MaskedReduction(trace.mask, "mean")
    return {
        **trace.terms,
        "policy/entropy": mean(trace.entropies),
        **value_metrics(trace, mean),
        **off_policy_metrics(trace.log_probs, trace, mean, ratio_clip),
    }


def value_metrics(trace: Trace, mean: MaskedReduction) -> dict[str, Tensor]:
    """Measure the critic and what it is to learn.

    The explained variance is 1 − Var(G − V) / Var(G): 1 of a critic that says every target, 0 of one that says
    the same everywhere. What is below −1 counts as −1, since targets that are all but alike would outweigh all else;
    where they are all alike it is 0.

    Args:
        trace: with the values and their targets.
        mean: over the real steps.
    """
    values, targets = trace.values, trace.value_targets
    target_mean = mean(targets)
    errors = targets - values
    unexplained = mean((errors - mean(errors)).square())
    variance = mean((targets - target_mean).square())
    explained = (1 - unexplained / variance).clamp(min=-1).where(variance > 0, 0)
    return {
        "value/mean": mean(values),
        "value/target_mean": target_mean,
        "value/explained_variance": explained,
        "advantage/mean": mean(trace.advantages),
    }


def off_policy_metrics(
    log_probs: Tensor, steps: Trace | RolloutBatch, mean: MaskedReduction, ratio_clip: float | None = None
) -> dict[str, Tensor]:
    """Measure how far the policy has moved from the one that acted, on the actions taken.

    With w = π(a|s) / μ(a|s) and n real steps: the share of steps with w above 1, which V-trace's
    default clips cut; the effective sample size (Σw)² / (n·Σw²), a fraction of n; the largest and the smallest w;
    and KL(μ‖π) by the mean of w − 1 − log w, which is unbiased and never negative (Schulman, Approximating KL
    Divergence, 2020). With a clip ε also the share of steps whose w is more than ε away from 1.

    Args:
        log_probs: log π(a|s) under the current policy, [T, B].
        steps: with the log-probabilities of the policy that acted.
        mean: over the real steps.
        ratio_clip: ε of the surrogate, or None.
    """
    log_ratios = log_probs.detach() - steps.behaviour_log_probs
    excess = torch.expm1(log_ratios.clamp(max=MAX_LOG_RATIO))  # w − 1, exact where w is close to 1
    largest = log_ratios.masked_fill(~steps.mask, -torch.inf).max()
    smallest = log_ratios.masked_fill(~steps.mask, torch.inf).min()
    # The sample size is the same for all w multiplied by one factor: the largest is made 1.
    ratios = (log_ratios - largest).exp()
    metrics = {
        "importance/clip_fraction": mean((excess > RATIO_TOLERANCE).to(ratios.dtype)),
        "importance/effective_sample_size": mean(ratios).square() / mean(ratios.square()).clamp(min=1e-12),
        "importance/largest_ratio": largest.clamp(max=MAX_LOG_RATIO).exp(),
        "importance/smallest_ratio": smallest.exp().where(smallest < torch.inf, 0),
        "policy/kl_from_behaviour": mean(excess - log_ratios),
    }
    if ratio_clip is not None:
        metrics["surrogate/clip_fraction"] = mean((excess.abs() > ratio_clip).to(ratios.dtype))
    return metrics
