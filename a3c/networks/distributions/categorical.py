"""One of finitely many actions, by the softmax of logits."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import gymnasium
import torch
from torch import Tensor

from a3c.envs.layouts import DiscreteLayout
from a3c.networks.distributions.base import ActionFamily, Distribution


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw Gumbel noise of a shape: −log E with E ~ Exp(1)."""
    return torch.empty(shape).exponential_(generator=generator).log_().neg_()


def forbid(logits: Tensor, mask: Tensor) -> Tensor:
    """Return logits [..., A] that are −∞ where a mask [..., A] is False; where it forbids everything, as they are.

    Where nothing is allowed, as in a state in which an episode has ended, no action counts.
    """
    return logits.masked_fill(~mask & mask.any(-1, keepdim=True), -torch.inf)


class Categorical(Distribution):
    """Actions drawn with probability softmax(logits).

    Args:
        logits: [..., A].
        mask: False where an action is forbidden, [..., A]; None allows all.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        self.logits = logits if mask is None else forbid(logits, mask)
        self._forbids = mask is not None

    def sample(self, noise: Tensor) -> Tensor:
        """Sample by the Gumbel-max trick: argmax(logits + Gumbel noise [..., A]), [...], int64."""
        return (self.logits + noise).argmax(-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """Normalised log-probabilities of all actions, [..., A]."""
        return self.logits.log_softmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.log_probabilities.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    @cached_property
    def _finite(self) -> Tensor:
        """`log_probabilities` with the least number for −∞: p·log p is 0 there then, and has no gradient."""
        logs = self.log_probabilities
        return logs.clamp(min=torch.finfo(logs.dtype).min) if self._forbids else logs

    def entropy(self) -> Tensor:
        return -(self.log_probabilities.exp() * self._finite).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        ours = self.log_probabilities
        return (ours.exp() * (self._finite - other.log_probabilities.where(ours > -torch.inf, 0))).sum(-1)


class CategoricalFamily(ActionFamily):
    """Actions of a Discrete space; the parameters are their logits, [..., A], and a batch counts them from 0."""

    layout = DiscreteLayout

    def __init__(self, space: gymnasium.Space[Any], squash: bool = False) -> None:
        super().__init__(space, squash)
        self.parameter_count = self.mask_size = int(space.n)  # type: ignore[attr-defined]
        self._start = int(space.start)  # type: ignore[attr-defined]

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return gumbel_noise((*shape, self.parameter_count), generator)

    def __call__(self, parameters: Tensor, mask: Tensor | None = None) -> Categorical:
        return Categorical(parameters, mask)

    def for_env(self, actions: Any) -> Any:
        return actions + self._start if self._start else actions
