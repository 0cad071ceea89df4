"""Observations of any kind as vectors: numbers in a row, and one-hot where they are names of things."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from a3c.networks.actor_critic import Inputs

Flattening = tuple[int, Callable[[Any], Tensor]]


class Flat:
    """Turns inputs of a space into vectors [..., width], float32.

    Of a Box its numbers, those of integers with bounds as fractions of their range; of a MultiBinary its 0s and 1s;
    of a Discrete or MultiDiscrete a one-hot code; of a Dict or Tuple all of its parts' in their order.

    Args:
        space: one that `a3c.envs.spaces` supports.

    Attributes:
        width: length of a vector.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.width, self._flatten = _flattening(space)

    def __call__(self, inputs: Inputs) -> Tensor:
        """Return vectors [..., width] of inputs [..., *shape]."""
        return self._flatten(inputs)


def _flattening(space: gymnasium.Space[Any]) -> Flattening:
    match space:
        case spaces.Dict():
            return _joined({key: _flattening(part) for key, part in space.spaces.items()})
        case spaces.Tuple():
            return _joined(dict(enumerate(map(_flattening, space.spaces))))
        case spaces.Discrete():
            values = list(range(int(space.start), int(space.start + space.n)))
            return len(values), lambda inputs: _one_hot(inputs.unsqueeze(-1), values)
        case spaces.MultiDiscrete():
            firsts, sizes = space.start.ravel().tolist(), space.nvec.ravel().tolist()
            values = [first + place for first, size in zip(firsts, sizes, strict=True) for place in range(size)]
            whose = [number for number, size in enumerate(sizes) for _ in range(size)]
            axes = len(space.shape)
            return len(values), lambda inputs: _one_hot(_row(inputs, axes)[..., whose], values)
        case spaces.Box():
            return math.prod(space.shape), _numbers(space)
    shape = space.shape or ()
    return math.prod(shape), lambda inputs: _row(inputs, len(shape)).to(torch.float32)


def _joined(parts: dict[Any, Flattening]) -> Flattening:
    def flatten(inputs: Inputs) -> Tensor:
        return torch.cat([own(inputs[key]) for key, (_, own) in parts.items()], -1)

    return sum(width for width, _ in parts.values()), flatten


def _row(inputs: Tensor, axes: int) -> Tensor:
    """Return the last axes of a tensor as one."""
    return inputs if axes == 1 else inputs.reshape(*inputs.shape[: inputs.dim() - axes], -1)


def _one_hot(numbers: Tensor, values: list[int]) -> Tensor:
    """Return 1 where a number equals the value of its place, else 0; of padding there is none."""
    return (numbers == torch.tensor(values, device=numbers.device)).to(torch.float32)


def _numbers(space: spaces.Box) -> Callable[[Tensor], Tensor]:
    axes = len(space.shape)
    if not np.issubdtype(space.dtype, np.integer):
        return lambda inputs: _row(inputs, axes).to(torch.float32)
    low, high = (torch.from_numpy(bound.ravel().astype(np.float32)) for bound in (space.low, space.high))
    width = (high - low).clamp(min=1)

    def fractions(inputs: Tensor) -> Tensor:
        numbers = _row(inputs, axes).to(torch.float32)
        return (numbers - low.to(numbers.device)) / width.to(numbers.device)

    return fractions
