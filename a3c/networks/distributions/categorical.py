"""Action distributions over one parameter tensor, cheap enough for a collector's inner loop.

A collector samples every step of every environment, and a ``torch.distributions`` object a step
costs more than a small network. So noise is drawn for a whole fragment at once, a sample is one
argmax, and log-probabilities are taken once a fragment.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import gymnasium
import torch
from torch import Tensor


class Categorical:
    """Actions drawn with probability softmax(logits).

    Args:
        logits: unnormalised log-probabilities, [..., A].
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @staticmethod
    def parameter_count(action_space: gymnasium.Space[Any]) -> int:
        """Number of parameters an action of this space needs: its logits."""
        return int(action_space.n)  # type: ignore[attr-defined]

    @staticmethod
    def noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw Gumbel noise for `sample`: −log E with E ~ Exp(1), of the parameters' shape."""
        return torch.empty(shape).exponential_(generator=generator).log_().neg_()

    def sample(self, noise: Tensor) -> Tensor:
        """Sample by the Gumbel-max trick: argmax(logits + Gumbel noise), [...], int64."""
        return (self.logits + noise).argmax(-1)

    def mode(self) -> Tensor:
        """Return the most probable action, [...], int64."""
        return self.logits.argmax(-1)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """Normalised log-probabilities of all actions, [..., A]."""
        return self.logits.log_softmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log π(a), [...], for actions [...]."""
        return self.log_probabilities.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, [...]."""
        log_probabilities = self.log_probabilities
        return -(log_probabilities.exp() * log_probabilities).sum(-1)
