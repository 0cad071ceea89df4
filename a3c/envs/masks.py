"""Which actions are allowed: masks, and actions that heed them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from a3c.envs.layouts import Space, action_layout

ACTION_MASK = "action_mask"  # key of a Dict of observations, and of `info`: which actions are allowed


def action_choices(space: Space) -> list[int]:
    """Return how many choices there are for each part of an action that can be forbidden, as a mask has them."""
    match space:
        case spaces.Discrete():
            return [int(space.n)]
        case spaces.MultiDiscrete():
            return [int(number) for number in space.nvec.ravel()]
        case spaces.Dict():
            return [choices for part in space.spaces.values() for choices in action_choices(part)]
        case spaces.Tuple():
            return [choices for part in space.spaces for choices in action_choices(part)]
    return []


def has_mask(space: Space) -> bool:
    """Return whether observations say which actions are allowed."""
    return isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces


def some_actions(space: Space, columns: int, observations: Any = None) -> Any:
    """Return B actions as environments take them that an `action_mask` among observations [B, ...], if any, allows."""
    mask = observations.get(ACTION_MASK) if isinstance(observations, Mapping) else None
    if mask is None:
        return action_layout(space).some(columns)
    return _allowed(space, columns, iter(np.split(_flat(mask), np.cumsum(action_choices(space))[:-1], axis=1)))


def _flat(mask: Any) -> NDArray[np.bool_]:
    flat: NDArray[np.bool_] = np.asarray(mask).reshape(len(mask), -1) != 0
    return flat


def _allowed(space: Space, columns: int, masks: Iterator[NDArray[np.bool_]]) -> Any:
    match space:
        case spaces.Discrete():
            return (next(masks).argmax(1) + space.start).astype(space.dtype)
        case spaces.MultiDiscrete():
            choices = np.stack([next(masks).argmax(1) for _ in space.nvec.ravel()], axis=1)
            return (choices.reshape(columns, *space.shape) + space.start).astype(space.dtype)
        case spaces.Dict():
            return {key: _allowed(part, columns, masks) for key, part in space.spaces.items()}
        case spaces.Tuple():
            return tuple(_allowed(part, columns, masks) for part in space.spaces)
    return action_layout(space).some(columns)
