"""Observations as a person gives them, one or several, and actions as they are given back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from a3c.envs.layouts import DictLayout, Layout, RecordLayout, Space


def read_observations(layout: Layout, given: Any) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return observations as they lie in memory, [B, *shape], and the axes that they had in front.

    Args:
        layout: of the observation space.
        given: one observation or several, with the same axes in front of all its parts; of a Dict a mapping, of a
            Tuple a sequence of its parts. Numbers that lose nothing by it are cast.

    Raises:
        ValueError: a part is missing or too much, has another shape, is not finite or is no number of its dtype.
    """
    arrays = dict(_arrays(layout, given, "observation"))
    leads = {name: array.shape[: array.ndim - len(leaf.shape)] for name, (array, leaf) in arrays.items()}
    first, lead = next(iter(leads.items()))
    packed = np.zeros((math.prod(lead), *layout.shape), layout.dtype)
    for (name, (array, part)), leaf in zip(arrays.items(), layout.leaves(), strict=True):
        if leads[name] != lead:
            raise ValueError(f"{name}: got shape {array.shape}, must be {(*lead, *part.shape)} beside {first}")
        leaf.of(packed)[...] = array.reshape(len(packed), *part.shape)
    return packed, lead


def _arrays(layout: Layout, given: Any, name: str) -> Iterator[tuple[str, tuple[NDArray[Any], Layout]]]:
    if not isinstance(layout, RecordLayout):
        yield name, (_cast(layout, given, name), layout)
        return
    kind, words = (Mapping, "a dict") if isinstance(layout, DictLayout) else (list | tuple, "a tuple")
    if not isinstance(given, kind):
        raise ValueError(f"{name}: got {type(given).__name__}, must be {words} of its parts")
    if isinstance(given, Mapping) and given.keys() != layout.parts.keys():
        raise ValueError(f"{name}: got {', '.join(map(str, given)) or 'nothing'}, must be {', '.join(layout.parts)}")
    if len(given) != len(layout.parts):
        raise ValueError(f"{name}: got {len(given)} parts, must be {len(layout.parts)}")
    for (key, part), value in zip(layout.parts.items(), layout.values(given), strict=True):
        yield from _arrays(part, value, f"{name}.{key}")


def _cast(layout: Layout, given: Any, name: str) -> NDArray[Any]:
    """Return an array in its own dtype, [..., *shape]."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name}: got rows of several lengths, must end in shape {layout.shape}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: got {array.dtype}, must be {layout.dtype}")
    if array.shape[array.ndim - len(layout.shape) :] != layout.shape:
        raise ValueError(f"{name}: got shape {array.shape}, must end in {layout.shape}")
    with np.errstate(invalid="ignore", over="ignore"):  # which is looked at below
        cast: NDArray[Any] = array.astype(layout.dtype)
    is_float = cast.dtype.kind == "f"
    good = np.isfinite(cast) if is_float else cast == array
    if not good.all():
        must = "finite" if is_float else f"a number of {layout.dtype}"
        raise ValueError(f"{name}: got {array[~good][0]}, must be {must}")
    return cast


def give_actions(space: Space, actions: Any, lead: tuple[int, ...]) -> Any:
    """Return actions in the space's own form, with the axes that the observations had in front.

    Args:
        space: of the actions.
        actions: as environments take them, [B, ...].
        lead: axes in front; () for one action, in which a Discrete is an int.
    """
    match space:
        case spaces.Dict():
            return {key: give_actions(part, actions[key], lead) for key, part in space.items()}
        case spaces.Tuple():
            return tuple(give_actions(part, own, lead) for part, own in zip(space, actions, strict=True))
    array = np.asarray(actions, space.dtype)
    array = array.reshape((*lead, *array.shape[1:]))
    return int(array) if isinstance(space, spaces.Discrete) and not lead else array
