"""What is measured on the steps of a loss, beside the loss itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

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

    Where no step is real, only the terms of the loss are there.

    Args:
        trace: of a whole pass, or what was made of it.
        ratio_clip: ε of the surrogate, or None.
    """
    # In few calls on small tensors: an update of a small network takes little longer than what is measured on it.
    means = {
        "policy/entropy": trace.entropies,
        "advantage/mean": trace.advantages,
        "value/mean": trace.values,
        "value/target_mean": trace.value_targets,
    }
    steps = torch.stack((*means.values(), trace.log_probs - trace.behaviour_log_probs)).flatten(1)
    real = steps.index_select(1, trace.mask.flatten().nonzero().squeeze(1))
    if not real.numel():
        return dict(trace.terms)
    *_, values, targets, log_ratios = real.unbind()
    return {
        **trace.terms,
        **dict(zip(means, real[:-1].mean(1), strict=True)),
        "value/explained_variance": explained_variance(values, targets),
        **off_policy_metrics(log_ratios, ratio_clip),
    }


def explained_variance(values: Tensor, targets: Tensor) -> Tensor:
    """Return 1 − Var(G − V) / Var(G): 1 of a critic that says every target, 0 of one that says the same everywhere.

    What is below −1 counts as −1, since targets that are all but alike would outweigh all else; where they are all
    alike it is 0.

    Args:
        values: V, [N].
        targets: G, [N].
    """
    unexplained, variance = (targets - values).var(correction=0), targets.var(correction=0)
    explained: Tensor = 1 - unexplained / variance
    return explained.clamp(min=-1).where(variance > 0, 0)


def off_policy_metrics(log_ratios: Tensor, ratio_clip: float | None = None) -> dict[str, Tensor]:
    """Measure how far the policy has moved from the one that acted, on the actions taken.

    With w = π(a|s) / μ(a|s) and n steps: the share of steps with w above 1, which V-trace's
    default clips cut; the effective sample size (Σw)² / (n·Σw²), a fraction of n; the largest and the smallest w;
    and KL(μ‖π) by the mean of w − 1 − log w, which is unbiased and never negative (Schulman, Approximating KL
    Divergence, 2020). With a clip ε also the share of steps whose w is more than ε away from 1.

    Args:
        log_ratios: log w, of one step or more, [N].
        ratio_clip: ε of the surrogate, or None.
    """
    excess = torch.expm1(log_ratios.clamp(max=MAX_LOG_RATIO))  # w − 1, exact where w is close to 1
    smallest, largest = log_ratios.aminmax()
    # The sample size is the same for all w multiplied by one factor: the largest is made 1.
    ratios = (log_ratios - largest).exp()
    means = {
        "importance/clip_fraction": excess > RATIO_TOLERANCE,
        "policy/kl_from_behaviour": excess - log_ratios,
        "importance/effective_sample_size": ratios.square(),
    }
    if ratio_clip is not None:
        means["surrogate/clip_fraction"] = excess.abs() > ratio_clip
    metrics = dict(zip(means, torch.stack(list(means.values())).mean(1), strict=True))
    metrics["importance/effective_sample_size"] = ratios.mean().square() / metrics["importance/effective_sample_size"]
    metrics["importance/largest_ratio"] = largest.clamp(max=MAX_LOG_RATIO).exp()
    metrics["importance/smallest_ratio"] = smallest.exp()
    return metrics
