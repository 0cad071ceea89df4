"""Observations of any kind as vectors: numbers in a row, and one-hot where they are names of things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from a3c.networks.actor_critic import Inputs


class Flat:
    """Turns inputs of a space into vectors [..., width], float32.

    Of a Box its numbers, those of integers with bounds as fractions of their range; of a MultiBinary its 0s and 1s;
    of a Discrete or MultiDiscrete a one-hot code; of a Dict or Tuple all of its parts' in their order.

    Args:
        space: one that `a3c.envs.layouts` supports.

    Attributes:
        width: length of a vector.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self._part = _part(space)
        self.width = self._part.width

    def __call__(self, inputs: Inputs) -> Tensor:
        """Return vectors [..., width] of inputs [..., *shape]."""
        return self._part(inputs)


class _Numbers:
    """The numbers of an array in a row; integers that are not normalised are brought to 0..1 by their bounds."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self._axes = len(space.shape or ())
        self.width = math.prod(space.shape or ())
        self._bounds: tuple[Tensor, Tensor] | None = None
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
            low, high = (torch.from_numpy(bound.ravel().astype(np.float32)) for bound in (space.low, space.high))
            self._bounds = low, (high - low).clamp(min=1)

    def __call__(self, inputs: Inputs) -> Tensor:
        numbers = _row(inputs, self._axes).to(torch.float32)
        if self._bounds is None or inputs.is_floating_point():  # that are normalised
            return numbers
        low, width = (bound.to(numbers.device) for bound in self._bounds)
        return (numbers - low) / width


class _OneHot:
    """A place for each value of each number, which is 1 where the number has it; of padding there may be none."""

    def __init__(self, firsts: Sequence[int], sizes: Sequence[int], axes: int) -> None:
        values = [first + place for first, size in zip(firsts, sizes, strict=True) for place in range(size)]
        self.width, self._axes = len(values), axes
        self._values = torch.tensor(values)
        self._whose = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)])

    def __call__(self, inputs: Inputs) -> Tensor:
        numbers = _row(inputs, self._axes).index_select(-1, self._whose.to(inputs.device))
        return (numbers == self._values.to(inputs.device)).to(torch.float32)


class _Joined:
    """All parts of a Dict or Tuple, one after another."""

    def __init__(self, parts: dict[Any, gymnasium.Space[Any]]) -> None:
        self._parts = {key: _part(part) for key, part in parts.items()}
        self.width: int = sum(part.width for part in self._parts.values())

    def __call__(self, inputs: Inputs) -> Tensor:
        return torch.cat([part(inputs[key]) for key, part in self._parts.items()], -1)


def _part(space: gymnasium.Space[Any]) -> _Numbers | _OneHot | _Joined:
    match space:
        case spaces.Dict():
            return _Joined(dict(space.spaces))
        case spaces.Tuple():
            return _Joined(dict(enumerate(space.spaces)))
        case spaces.Discrete():
            return _OneHot([int(space.start)], [int(space.n)], 0)
        case spaces.MultiDiscrete():
            return _OneHot(space.start.ravel().tolist(), space.nvec.ravel().tolist(), len(space.shape))
    return _Numbers(space)


def _row(inputs: Tensor, axes: int) -> Tensor:
    """Return the last axes of a tensor as one."""
    return inputs if axes == 1 else inputs.reshape(*inputs.shape[: inputs.dim() - axes], -1)
