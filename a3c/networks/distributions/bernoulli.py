"""Several switches at once, each on with a probability of its own."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from a3c.envs.layouts import MultiBinaryLayout
from a3c.networks.distributions.base import ActionFamily, Distribution


class Bernoulli(Distribution):
    """Arrays of n independent numbers that are 1 with probability sigmoid(logit), else 0.

    Args:
        logits: [..., n].
        shape: of an action, of n numbers.
    """

    def __init__(self, logits: Tensor, shape: tuple[int, ...]) -> None:
        self.logits = logits
        self._shape = shape

    def sample(self, noise: Tensor) -> Tensor:
        """Return where logits and logistic noise [..., n] are above 0 together: [..., *shape], int8."""
        return self._shaped(self.logits + noise > 0)

    def mode(self) -> Tensor:
        return self._shaped(self.logits > 0)

    def _shaped(self, switches: Tensor) -> Tensor:
        return switches.to(torch.int8).reshape(*switches.shape[:-1], *self._shape)

    def log_prob(self, actions: Tensor) -> Tensor:
        on = actions.reshape(self.logits.shape) > 0
        return logsigmoid(self.logits.where(on, -self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        # Of |logit|, for which log(1 + e^l) − l·sigmoid(l) has no large terms that cancel.
        size = self.logits.abs()
        return (softplus(-size) + size * (-size).sigmoid()).sum(-1)

    def kl(self, other: Bernoulli) -> Tensor:
        ours, theirs = self.logits, other.logits
        on = ours.sigmoid() * (logsigmoid(ours) - logsigmoid(theirs))
        off = (-ours).sigmoid() * (logsigmoid(-ours) - logsigmoid(-theirs))
        return (on + off).sum(-1)


class BernoulliFamily(ActionFamily):
    """Actions of a MultiBinary space; the parameters are the logits of a 1, [..., n]."""

    layout = MultiBinaryLayout

    def __init__(self, space: gymnasium.Space[Any], squash: bool = False) -> None:
        super().__init__(space, squash)
        assert isinstance(space, gymnasium.spaces.MultiBinary), "which is its layout's kind"
        self._shape = space.shape
        self.parameter_count = math.prod(space.shape)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        # A uniform number of float32 may be 0 and is never 1; so rare odds are cut at 2⁻²⁴ on both sides.
        return torch.rand((*shape, self.parameter_count), generator=generator).logit_(eps=2**-24)

    def __call__(self, parameters: Tensor, mask: Tensor | None = None) -> Bernoulli:
        return Bernoulli(parameters, self._shape)
