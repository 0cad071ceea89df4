"""Several choices at once, each one of finitely many: independent softmaxes of logits."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import torch
from torch import Tensor
from torch.nn import functional as F

from a3c.envs.layouts import MultiDiscreteLayout
from a3c.networks.distributions.base import ActionFamily
from a3c.networks.distributions.categorical import Categorical, gumbel_noise


class MultiCategorical(Categorical):
    """Arrays of G independent choices, each drawn with probability softmax(its logits).

    Args:
        logits: [..., G, K]; −∞ beyond the choices of a group that has fewer than K.
        shape: of an action, of G numbers.
        mask: False where a choice is forbidden, [..., G, K]; None allows all.
    """

    def __init__(self, logits: Tensor, shape: tuple[int, ...], mask: Tensor | None = None) -> None:
        super().__init__(logits, mask)
        self._shape = shape
        self._forbids = True  # some logits may be −∞ without a mask

    def sample(self, noise: Tensor) -> Tensor:
        """Sample each choice by the Gumbel-max trick with noise [..., G, K]: [..., *shape], int64."""
        return self._shaped(super().sample(noise))

    def mode(self) -> Tensor:
        return self._shaped(super().mode())

    def _shaped(self, choices: Tensor) -> Tensor:
        return choices.reshape(*choices.shape[:-1], *self._shape)

    def log_prob(self, actions: Tensor) -> Tensor:
        return super().log_prob(actions.reshape(self.logits.shape[:-1])).sum(-1)

    def entropy(self) -> Tensor:
        return super().entropy().sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        return super().kl(other).sum(-1)


class MultiCategoricalFamily(ActionFamily):
    """Actions of a MultiDiscrete space, which a batch counts from 0.

    The parameters are the logits of one number's choices after those of another, [..., sum(nvec)], and a mask
    says of the same choices which are allowed.
    """

    layout = MultiDiscreteLayout

    def __init__(self, space: gymnasium.Space[Any], squash: bool = False) -> None:
        super().__init__(space, squash)
        assert isinstance(space, gymnasium.spaces.MultiDiscrete), "which is its layout's kind"
        sizes = torch.as_tensor(space.nvec.reshape(-1), dtype=torch.int64)
        self.parameter_count = self.mask_size = int(sizes.sum())
        self._start, self._dtype, self._shape = space.start, space.dtype, space.shape
        self._groups = len(sizes), int(sizes.max())  # G, K
        self._places: Tensor | None = None  # of each group's K choices among the parameters, [G·K]
        if math.prod(self._groups) > self.parameter_count:
            choices, first = torch.arange(self._groups[1]), sizes.cumsum(0) - sizes
            places = first[:, None] + choices
            self._places = places.where(choices < sizes[:, None], self.parameter_count).flatten()

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return gumbel_noise((*shape, *self._groups), generator)

    def __call__(self, parameters: Tensor, mask: Tensor | None = None) -> MultiCategorical:
        logits = self._grouped(parameters, -torch.inf)
        return MultiCategorical(logits, self._shape, None if mask is None else self._grouped(mask, False))

    def _grouped(self, values: Tensor, beyond: float) -> Tensor:
        """Return values of all choices, [..., sum(nvec)], group by group, [..., G, K]; `beyond` in short groups."""
        if self._places is not None:
            self._places = self._places.to(values.device)  # once
            values = F.pad(values, (0, 1), value=beyond).index_select(-1, self._places)
        return values.reshape(*values.shape[:-1], *self._groups)

    def for_env(self, actions: Any) -> Any:
        if isinstance(actions, Tensor):
            return actions + torch.from_numpy(self._start)
        return (actions + self._start).astype(self._dtype, copy=False)
