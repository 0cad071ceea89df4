"""One of finitely many actions, by the softmax of logits."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import gymnasium
import torch
from torch import Tensor

from a3c.envs.spaces import DiscreteLayout
from a3c.networks.distributions.base import Distribution


class Categorical(Distribution):
    """Actions drawn with probability softmax(logits); the parameters are the logits, [..., A]."""

    layout = DiscreteLayout

    @staticmethod
    def parameter_count(action_space: gymnasium.Space[Any]) -> int:
        return int(action_space.n)  # type: ignore[attr-defined]

    @staticmethod
    def noise(action_space: gymnasium.Space[Any], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw Gumbel noise: −log E with E ~ Exp(1), [..., A]."""
        actions = Categorical.parameter_count(action_space)
        return torch.empty((*shape, actions)).exponential_(generator=generator).log_().neg_()

    def sample(self, noise: Tensor) -> Tensor:
        """Sample by the Gumbel-max trick: argmax(logits + Gumbel noise), [...], int64."""
        return (self.parameters + noise).argmax(-1)

    def mode(self) -> Tensor:
        return self.parameters.argmax(-1)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """Normalised log-probabilities of all actions, [..., A]."""
        return self.parameters.log_softmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.log_probabilities.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        log_probabilities = self.log_probabilities
        return -(log_probabilities.exp() * log_probabilities).sum(-1)
