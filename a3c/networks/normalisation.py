"""What a network normalises by itself: observations by their running moments, values by PopArt.

The statistics are buffers, so they are wherever the weights are: shared memory, checkpoints, evaluations. A
forward pass never changes them; the learner does, after an update.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from a3c.peers.agreement import Moments, pooled

if TYPE_CHECKING:
    from a3c.networks.actor_critic import ActorCritic, Inputs

log = logging.getLogger(__name__)

FIRST_COUNT = 1e-4  # Gymnasium's own, of a mean of 0 and a variance of 1
EPSILON = 1e-8  # below a square root
SMALLEST_STD, LARGEST_STD = 1e-4, 1e6  # of values
CRITIC_HEAD = "critic_head"  # attribute of a network


class RunningMoments(nn.Module):
    """Mean and variance of each number of an array, over all arrays so far.

    Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance": the moments of two samples
    together. They begin as in Gymnasium's `RunningMeanStd`.

    Args:
        shape: of an array.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        # Of 64 bits: in 32 a count stands still at 2**24, and a mean that is large takes the variance's digits.
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(FIRST_COUNT, dtype=torch.float64))

    def forward(self, numbers: Tensor) -> Tensor:
        """Return (x − mean) / √(variance + ε), [..., *shape], in the dtype of x, of integers in float32."""
        dtype = torch.promote_types(numbers.dtype, torch.float32)
        std = (self.variance + EPSILON).sqrt()
        normalised = (numbers - self.mean.to(dtype)).div_(std.to(dtype))
        return normalised.to(numbers.dtype) if numbers.is_floating_point() else normalised

    @torch.no_grad()
    def update(self, numbers: Tensor) -> None:
        """Take in N arrays, [N, *shape], and those of all other learners; none changes nothing."""
        numbers = numbers.to(torch.float32 if numbers.dtype == torch.uint8 else torch.float64)  # bytes may be images
        new, mean, variance = pooled(_moments(numbers))
        if new == 0:
            return
        total = self.count + new
        delta = mean - self.mean
        squares = self.variance * self.count + variance * new + delta.square() * self.count * new / total
        self.mean += delta * new / total
        self.variance.copy_(squares / total)
        self.count.copy_(total)


def _moments(numbers: Tensor) -> Moments:
    """Return the moments of N arrays, [N, *shape]; of none zeros."""
    if len(numbers) == 0:
        return Moments(0, *numbers.new_zeros(2, *numbers.shape[1:]))
    variance, mean = torch.var_mean(numbers, 0, correction=0)
    return Moments(len(numbers), mean, variance)


class ObservationNormaliser(nn.Module):
    """Brings every number of a Box to mean 0 and variance 1, a pixel too; all other parts stay as they are.

    Args:
        space: of the inputs: a Box of floats or integers, or a Dict or Tuple with one somewhere in it.
        clip: normalised numbers are clipped to ±clip, > 0; None for no clipping.

    Attributes:
        clip: see there.
        moments: of each such array, in the order of the parts.
    """

    def __init__(self, space: gymnasium.Space[Any], clip: float | None = None) -> None:
        super().__init__()
        self._space, self.clip = space, clip
        self.moments = nn.ModuleList(RunningMoments(shape) for shape in _shapes(space))

    def forward(self, inputs: Inputs) -> Inputs:
        """Return normalised inputs, [..., *shape]."""
        moments = iter(self.moments)

        def normalised(part: Tensor) -> Tensor:
            numbers: Tensor = next(moments)(part)
            return numbers if self.clip is None else numbers.clamp_(-self.clip, self.clip)

        return _with_numbers(self._space, inputs, normalised)

    def update(self, inputs: Inputs) -> None:
        """Take in N inputs, [N, *shape], not normalised."""
        moments: Any = iter(self.moments)
        _with_numbers(self._space, inputs, lambda part: next(moments).update(part))


def _has_numbers(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.number)


def _shapes(space: gymnasium.Space[Any]) -> list[tuple[int, ...]]:
    """Return the shapes of the arrays of numbers within a space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return [shape for part in parts for shape in _shapes(part)]
    return [tuple(space.shape or ())] if _has_numbers(space) else []


def _with_numbers(space: gymnasium.Space[Any], inputs: Inputs, function: Callable[[Tensor], Any]) -> Inputs:
    """Return inputs with a function of each array of numbers in its place, in the order of `_shapes`."""
    if isinstance(space, spaces.Dict):
        return {key: _with_numbers(part, inputs[key], function) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_with_numbers(part, given, function) for part, given in zip(space.spaces, inputs, strict=True))
    return function(inputs) if _has_numbers(space) else inputs


class PopArt(nn.Module):
    """A linear layer that learns values of mean 0 and variance 1, and says them in the units of the targets.

    Its weights say n = w·x + b, and it gives σ·n + μ. When μ and σ follow the targets, w and b are rescaled
    so that what it gives stays as it is: van Hasselt et al. (2016), "Learning values across many orders of
    magnitude", arXiv:1602.07714, proposition 1. Here μ and σ move once an update, after its step, and what an
    optimizer keeps of w and b (Adam's moments) stays in the units of before.

    Args:
        linear: layer with one output and a bias, whose parameters become its own.
        rate: step size β of the moving averages, in (0, 1]. The n-th step is β / (1 − (1 − β)ⁿ), with which
            they do not depend on where they begin: Sutton & Barto (2nd ed.), exercise 2.7.

    Attributes:
        rate: see there.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, linear: nn.Linear, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        """The unit of the normalised values, σ."""
        return self.variance.sqrt().clamp(SMALLEST_STD, LARGEST_STD)

    def forward(self, features: Tensor) -> Tensor:
        """Return values [..., 1], in the units of the targets, of features [..., F]."""
        normalised = F.linear(features, self.weight, self.bias)
        return normalised * self.std.to(normalised.dtype) + self.mean.to(normalised.dtype)

    @torch.no_grad()
    def update(self, targets: Tensor) -> None:
        """Have μ and σ follow N targets, [N], and those of all other learners; keep the values as they are.

        No target changes nothing.
        """
        new, mean, variance = pooled(_moments(targets.to(torch.float64)))
        if new == 0:
            return
        self.count += 1
        rate = (self.rate / (1 - (1 - self.rate) ** self.count)).clamp(max=1)  # of the first step rounding makes more
        before_mean, before_std = self.mean.clone(), self.std
        delta = mean - self.mean
        self.mean += rate * delta
        # The averages ν of squares and μ of targets in one, as ν − μ² would lose digits.
        self.variance.copy_((1 - rate) * (self.variance + rate * delta.square()) + rate * variance)
        self.weight.copy_(self.weight * (before_std / self.std))
        self.bias.copy_((before_std * self.bias + before_mean - self.mean) / self.std)


@dataclass(frozen=True)
class Normalisation:
    """What a network is to normalise; the names are the flags'.

    Attributes:
        normalise_observations: observations by their running mean and variance.
        clip_observations: these to ±C, > 0; None for no clipping.
        popart: the critic's values by the running mean and variance of their targets.
        popart_beta: step size of the latter, in (0, 1].

    Raises:
        ValueError: a value outside its range, or a limit for what is not normalised.
    """

    normalise_observations: bool = False
    clip_observations: float | None = None
    popart: bool = False
    popart_beta: float = 3e-4

    def __post_init__(self) -> None:
        clip = self.clip_observations
        if clip is not None and not (clip > 0 and math.isfinite(clip)):
            raise ValueError(f"clip_observations: got {clip}, must be above 0 and finite, or null")
        if clip is not None and not self.normalise_observations:
            raise ValueError(f"clip_observations: got {clip}, must be null without normalise_observations")
        if not 0 < self.popart_beta <= 1:
            raise ValueError(f"popart_beta: got {self.popart_beta}, must be above 0 and at most 1")

    def attach(self, network: ActorCritic) -> None:
        """Have a network normalise; statistics that it has already are kept.

        Raises:
            ValueError: it cannot, or it has learned with what is not asked for.
        """
        self._attach_normaliser(network)
        self._attach_popart(network)

    def _attach_normaliser(self, network: ActorCritic) -> None:
        if not self.normalise_observations:
            if network.normaliser is not None:
                raise ValueError("normalise_observations: got false, must be true: the network has learned with it")
        elif not _shapes(network.input_space):  # said, not refused: one configuration may be for all environments
            given = " ".join(str(network.input_space).split())
            log.warning("normalise_observations: no part of %s is a Box of numbers, so nothing is normalised", given)
        elif network.normaliser is None:
            network.normaliser = ObservationNormaliser(network.input_space, self.clip_observations)
        else:
            network.normaliser.clip = self.clip_observations

    def _attach_popart(self, network: ActorCritic) -> None:
        head = getattr(network, CRITIC_HEAD, None)
        if not self.popart:
            if isinstance(head, PopArt):
                raise ValueError("popart: got false, must be true: the network has learned with it")
        elif isinstance(head, PopArt):
            head.rate = self.popart_beta
        elif isinstance(head, nn.Linear) and head.out_features == 1 and head.bias is not None:
            setattr(network, CRITIC_HEAD, PopArt(head, self.popart_beta))
        else:
            raise ValueError(
                f"popart: got true, must be false: {type(network).__name__} has no {CRITIC_HEAD}, "
                "a Linear with one output and a bias"
            )
