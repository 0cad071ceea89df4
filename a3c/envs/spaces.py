"""What observations and actions look like in memory: a class for each kind of space.

Batch memory, the checks of what environments give, descriptions in checkpoints, networks and action
distributions all ask here. A new kind is a subclass of `Layout` and its entry in `OBSERVATIONS`,
`ACTIONS` or both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from a3c.batch import BatchShape

Space = gymnasium.Space[Any]


class Spaces(NamedTuple):
    """The spaces of one environment, or those that a network was made for."""

    observation: Space
    action: Space

    @property
    def words(self) -> str:
        """What they are, in one line."""
        return " ".join(f"observations {self.observation} and actions {self.action}".split())


class Layout(ABC):
    """How values of one space lie in memory.

    Args:
        space: one that `supports` says yes to.

    Attributes:
        kind: the class of Gymnasium's spaces.
        words: which of them are supported, in words.
        shape: of one value.
        dtype: of one value, as NumPy says it.
    """

    kind: ClassVar[type[Space]]
    words: ClassVar[str]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def supports(cls, space: Space) -> bool:
        """Return whether a space is of this kind; a child of Gymnasium's class may mean something else."""
        return type(space) is cls.kind

    @abstractmethod
    def __init__(self, space: Any) -> None: ...

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch says it."""
        dtype: torch.dtype = getattr(torch, self.dtype.name)
        return dtype

    @abstractmethod
    def some(self, columns: int) -> NDArray[Any]:
        """Return values within the space, [B, *shape], as near to 0 as it allows: for steps whose action counts not."""

    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return lowest and highest value of each number, [n]; None if no finite number could be outside."""
        return None

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments from which `build` makes the space again."""

    @classmethod
    def build(cls, arguments: Mapping[str, Any]) -> Space:
        """Build the space from its arguments, of which arrays may have become lists."""
        return cls.kind(**arguments)


class BoxLayout(Layout):
    """Arrays of numbers with bounds, of any shape and dtype."""

    kind, words = spaces.Box, "Box"

    def __init__(self, space: spaces.Box) -> None:
        self._space = space
        self.shape, self.dtype = space.shape, np.dtype(space.dtype)

    def some(self, columns: int) -> NDArray[Any]:
        value = np.clip(np.zeros(self.shape, self.dtype), self._space.low, self._space.high)
        return np.repeat(value[None].astype(self.dtype), columns, axis=0)

    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        low, high = self._space.low.ravel(), self._space.high.ravel()
        if self.dtype == np.bool_:
            return None
        limits: Any = np.finfo(self.dtype) if np.issubdtype(self.dtype, np.floating) else np.iinfo(self.dtype)
        if (low <= limits.min).all() and (high >= limits.max).all():
            return None
        # Of a side without a bound the largest number is one: what lies beyond it is infinite.
        return np.maximum(low, limits.min), np.minimum(high, limits.max)

    def arguments(self) -> dict[str, Any]:
        space = self._space
        return {"low": space.low, "high": space.high, "shape": list(self.shape), "dtype": self.dtype.name}

    @classmethod
    def build(cls, arguments: Mapping[str, Any]) -> Space:
        dtype = np.dtype(arguments["dtype"])
        low, high = (np.asarray(arguments[key], dtype) for key in ("low", "high"))
        return spaces.Box(low, high, tuple(arguments["shape"]), dtype.type)


class DiscreteLayout(Layout):
    """Whole numbers from 0 on."""

    kind, words = spaces.Discrete, "Discrete starting at 0"
    shape, dtype = (), np.dtype(np.int64)

    def __init__(self, space: spaces.Discrete) -> None:
        self._space = space

    @classmethod
    def supports(cls, space: Space) -> bool:
        return super().supports(space) and space.start == 0  # type: ignore[attr-defined]

    def some(self, columns: int) -> NDArray[Any]:
        return np.zeros(columns, self.dtype)

    def arguments(self) -> dict[str, Any]:
        return {"n": int(self._space.n), "start": int(self._space.start)}


OBSERVATIONS: tuple[type[Layout], ...] = (BoxLayout,)
ACTIONS: tuple[type[Layout], ...] = (DiscreteLayout,)
_DESCRIBED = {layout.kind: layout for layout in (*OBSERVATIONS, *ACTIONS)}
KINDS = tuple(_DESCRIBED)  # that a description can hold


def _words(layouts: tuple[type[Layout], ...]) -> str:
    return ", ".join(layout.words for layout in layouts)


SUPPORTED = f"observations: {_words(OBSERVATIONS)}; actions: {_words(ACTIONS)}"


def _layout(space: Space, name: str, layouts: tuple[type[Layout], ...]) -> Layout:
    for layout in layouts:
        if layout.supports(space):
            return layout(space)
    raise ValueError(f"{name}: got {space}, must be one of: {_words(layouts)}")


def observation_layout(space: Space) -> Layout:
    """Return how observations of a space lie in memory.

    Raises:
        ValueError: they are not supported; says which are.
    """
    return _layout(space, "observation_space", OBSERVATIONS)


def action_layout(space: Space) -> Layout:
    """Return how actions of a space lie in memory.

    Raises:
        ValueError: they are not supported; says which are.
    """
    return _layout(space, "action_space", ACTIONS)


def are_supported(given: Spaces) -> bool:
    """Return whether both spaces of an environment are supported."""
    return any(layout.supports(given.observation) for layout in OBSERVATIONS) and any(
        layout.supports(given.action) for layout in ACTIONS
    )


def agree(one: Spaces, other: Spaces) -> bool:
    """Return whether a policy for the one can act in the other: bounds of observations may differ."""
    ours, theirs = observation_layout(one.observation), observation_layout(other.observation)
    return (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype) and one.action == other.action


def batch_shape(length: int, columns: int, given: Spaces) -> BatchShape:
    """Return the memory of a batch of T steps and B columns of these spaces."""
    observation, action = observation_layout(given.observation), action_layout(given.action)
    return BatchShape(length, columns, observation.shape, observation.torch_dtype, action.shape, action.torch_dtype)


def space_arguments(space: Space) -> dict[str, Any]:
    """Return the arguments from which `build_space` makes a space of one of `KINDS` again.

    Raises:
        KeyError: it is of another kind.
    """
    return _DESCRIBED[type(space)](space).arguments()


def build_space(kind: type[Space], arguments: Mapping[str, Any]) -> Space:
    """Build a space of one of `KINDS` from its arguments."""
    return _DESCRIBED[kind].build(arguments)
