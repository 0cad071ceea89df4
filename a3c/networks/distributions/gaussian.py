"""Continuous actions: independent Gaussians, whose draws are brought within the bounds by clipping or by tanh.

A batch holds what the Gaussian has drawn, u. Where both bounds of a number are finite, u counts half widths from the
middle, so mean 0 and standard deviation 1 cover the space; else u is in the environment's own units. Densities
are those in the environment's units.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from a3c.envs.layouts import ControlLayout
from a3c.networks.distributions.base import ActionFamily, Distribution

LOG_STD_RANGE = (-10.0, 2.0)
"""Where log standard deviations are clamped; beyond, they have no gradient.

Below, the rounding of u to float32 would be seen in (u − mean)/std: at −10 it is off by up to 0.001 for |u| ≤ 1. Above,
a standard deviation of more than 7 half widths, which an entropy bonus would let grow forever, changes little but
how often an action is at a bound. Haarnoja et al. (2018), "Soft Actor-Critic", have [−20, 2] in their code. Actions
without bounds that need more than that are the environment's to scale.
"""
LOG_2PI = math.log(2 * math.pi)
NODES = torch.linspace(-5, 5, 33, dtype=torch.float64)
"""Places, in standard deviations, of the trapezoidal rule for the entropy of squashed actions.

Against a fine numerical integral, for means from −3 to 3, the entropy of a number is off by less than 5e-6 for
σ ≤ 2, 3e-5 for σ ≤ 3 and 0.008 for σ ≤ e². Gauss–Hermite quadrature with 32 nodes: 2e-4, 3e-3 and 0.09; log(1 − tanh²u)
is like −2|u| from afar, and the trapezoidal rule is the better one for what is no polynomial: Trefethen
(2022), "Exactness of quadrature formulas".
"""
WEIGHTS = torch.softmax(-(NODES**2) / 2, 0)


def log_tanh_slope(u: Tensor) -> Tensor:
    """Return log(1 − tanh²u), the logarithm of tanh's derivative, as 2(log 2 − u − softplus(−2u)): finite if u is."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


class Gaussian(Distribution):
    """Arrays of A independent numbers, each normally distributed.

    Args:
        parameters: means, then log standard deviations, of u, [..., 2A]; the latter are clamped to `LOG_STD_RANGE`.
        shape: of an action, of A numbers.
        log_scale: Σ log(half width) over the numbers that have one, the logarithm of the volume of a unit of u.
    """

    def __init__(self, parameters: Tensor, shape: tuple[int, ...], log_scale: float = 0.0) -> None:
        self.mean, log_std = parameters.chunk(2, -1)
        self.log_std = log_std.clamp(*LOG_STD_RANGE)
        self._shape, self._log_scale = shape, log_scale

    @cached_property
    def std(self) -> Tensor:
        """Standard deviations of u, [..., A]."""
        return self.log_std.exp()

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std · standard normal noise [..., A]: u, [..., *shape]."""
        return self._shaped(self.mean + self.std * noise)

    def mode(self) -> Tensor:
        """Return the mean u, [..., *shape]; where u is squashed, that is the median, and the mode before the tanh."""
        return self._shaped(self.mean)

    def _shaped(self, u: Tensor) -> Tensor:
        return u.reshape(*u.shape[:-1], *self._shape)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-density, in the environment's units and before clipping, of u [..., *shape]: [...]."""
        z = (actions.reshape(self.mean.shape) - self.mean) / self.std
        return (-z * z / 2 - self.log_std - LOG_2PI / 2).sum(-1) - self._log_scale

    def entropy(self) -> Tensor:
        """Return the differential entropy in the environment's units, before clipping, [...]: negative if narrow."""
        return (self.log_std + (1 + LOG_2PI) / 2).sum(-1) + self._log_scale

    def kl(self, other: Gaussian) -> Tensor:
        """Return KL(self‖other), [...]; that of u, since a bijection of both changes nothing."""
        log_ratio = self.log_std - other.log_std
        distance = (self.mean - other.mean) / other.std
        return (((2 * log_ratio).exp() + distance * distance - 1) / 2 - log_ratio).sum(-1)


class TanhGaussian(Gaussian):
    """Arrays of A independent numbers, of which those with two bounds are tanh of a normally distributed u.

    Haarnoja et al. (2018), "Soft Actor-Critic", appendix C.

    Args:
        parameters: as of `Gaussian`.
        shape: of an action, of A numbers.
        log_scale: as of `Gaussian`.
        squashed: 1 where a number is squashed, else 0, [A].
    """

    def __init__(self, parameters: Tensor, shape: tuple[int, ...], log_scale: float, squashed: Tensor) -> None:
        super().__init__(parameters, shape, log_scale)
        self._squashed = squashed

    def log_prob(self, actions: Tensor) -> Tensor:
        slope = log_tanh_slope(actions.reshape(self.mean.shape))
        return super().log_prob(actions) - (slope * self._squashed).sum(-1)

    def entropy(self) -> Tensor:
        """Return H(u) + Σ E[log(1 − tanh²u)], [...], the expectation by the trapezoidal rule on `NODES`."""
        nodes, weights = NODES.to(self.mean), WEIGHTS.to(self.mean)
        slope = log_tanh_slope(self.mean.unsqueeze(-1) + self.std.unsqueeze(-1) * nodes) @ weights
        return super().entropy() + (slope * self._squashed).sum(-1)


class GaussianFamily(ActionFamily):
    """Actions of a Box of floats; the parameters are means, then log standard deviations, of u, [..., 2A].

    The environment gets a = middle + half·u, or a = u where a side is without bound, clipped to the bounds.
    """

    layout = ControlLayout
    squashes = False

    def __init__(self, space: gymnasium.Space[Any], squash: bool = False) -> None:
        super().__init__(space, squash)
        assert isinstance(space, gymnasium.spaces.Box), "which is its layout's kind"
        self._shape, self._dtype = space.shape, space.dtype
        numbers = math.prod(space.shape)
        self.parameter_count = 2 * numbers
        self.free = range(numbers, 2 * numbers)
        limits: Any = np.finfo(space.dtype)  # the largest number is no bound, as in `BoxLayout.bounds`
        self._bounded = (space.low > limits.min) & (space.high < limits.max)
        self._low = np.maximum(space.low, limits.min).astype(np.float64)
        self._high = np.minimum(space.high, limits.max).astype(np.float64)
        self._middle = np.where(self._bounded, self._low / 2 + self._high / 2, 0)
        self._half = np.where(self._bounded, self._high / 2 - self._low / 2, 1)
        self._log_scale = float(np.log(self._half).sum())

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn((*shape, self.parameter_count // 2), generator=generator)

    def __call__(self, parameters: Tensor, mask: Tensor | None = None) -> Gaussian:
        return Gaussian(parameters, self._shape, self._log_scale)

    def for_env(self, actions: Any) -> Any:
        # Clipped in float64, in which every bound is exact; and rounding keeps an order.
        if isinstance(actions, Tensor):
            middle, half, low, high = map(torch.as_tensor, (self._middle, self._half, self._low, self._high))
            return (middle + half * actions.double()).clamp(low, high)
        clipped: NDArray[Any] = np.clip(self._middle + self._half * actions, self._low, self._high)
        return clipped.astype(self._dtype)


class TanhGaussianFamily(GaussianFamily):
    """Actions of a Box of floats, which tanh brings within the bounds: a = middle + half·tanh(u).

    Numbers with a side without bound are as `GaussianFamily` has them.
    """

    squashes = True

    def __init__(self, space: gymnasium.Space[Any], squash: bool = True) -> None:
        super().__init__(space, squash)
        self._squashed = torch.as_tensor(self._bounded.reshape(-1), dtype=torch.float32)

    def __call__(self, parameters: Tensor, mask: Tensor | None = None) -> TanhGaussian:
        self._squashed = self._squashed.to(parameters.device)  # once
        return TanhGaussian(parameters, self._shape, self._log_scale, self._squashed)

    def for_env(self, actions: Any) -> Any:
        if isinstance(actions, Tensor):
            return super().for_env(actions.double().tanh().where(torch.as_tensor(self._bounded), actions.double()))
        return super().for_env(np.where(self._bounded, np.tanh(actions, dtype=np.float64), actions))
