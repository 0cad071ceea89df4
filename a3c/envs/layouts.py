"""What observations and actions look like in memory: a class for each kind of space.

Batch memory, the checks of what environments give, descriptions in checkpoints, networks and action
distributions all ask here. A new kind is a subclass of `Layout` and its entry in `OBSERVATIONS`,
`ACTIONS` or both.

Values of a Dict or a Tuple lie in memory as one row of bytes, each part at a place of its own
(`RecordLayout`). So a batch holds tensors only, whatever the spaces are, and a part is a view of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

Space = gymnasium.Space[Any]
ALIGNMENT = 8  # bytes; where a part may begin, so that it can be viewed in its own dtype


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
    def some(self, columns: int) -> Any:
        """Return B values as environments take them, as near to 0 as the space allows: for steps whose action counts
        not.
        """

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

    def leaves(self) -> Iterator[Leaf]:
        """Yield the arrays that a value consists of: one, but for Dict and Tuple."""
        yield Leaf("", self, 0)

    def pack(self, values: Any) -> Any:
        """Return values [B, ...] of environments as they lie in memory, [B, *shape]."""
        return values

    def unpack(self, packed: Any) -> Any:
        """Return views of the parts of what lies in memory, a tensor or an array [..., *shape], as the space has them.

        Of a Dict a dict, of a Tuple a tuple, else what is given.
        """
        return packed


class Leaf:
    """One array of a value that may have several.

    Args:
        path: its keys and places within a Dict or Tuple, with points between them; "" for the only one.
        layout: its own.
        offset: the byte at which it begins in a record.

    Attributes:
        path: see there.
        layout: see there.
        offset: see there.
    """

    def __init__(self, path: str, layout: Layout, offset: int) -> None:
        self.path, self.layout, self.offset = path, layout, offset
        self._bytes = slice(offset, offset + math.prod(layout.shape) * layout.dtype.itemsize)
        self._shape, self._dtype, self._torch_dtype = layout.shape, layout.dtype, layout.torch_dtype

    def of(self, packed: Any) -> Any:
        """Return its view, [..., *its shape], of a tensor or an array in memory, [..., *shape]."""
        if not self.path:
            return packed
        own = packed[..., self._bytes].view(self._torch_dtype if isinstance(packed, Tensor) else self._dtype)
        return own if len(self._shape) == 1 else own.reshape(*packed.shape[:-1], *self._shape)


class BoxLayout(Layout):
    """Arrays of numbers with bounds, of any shape and dtype."""

    kind, words = spaces.Box, "Box without NaN as a bound"

    @classmethod
    def supports(cls, space: Space) -> bool:
        if not super().supports(space):
            return False
        assert isinstance(space, spaces.Box), "which is its kind"
        return not any(np.isnan(np.asarray(bound, np.float64)).any() for bound in (space.low, space.high))

    def __init__(self, space: spaces.Box) -> None:
        self._space = space
        self.shape, self.dtype = space.shape, np.dtype(space.dtype)

    def some(self, columns: int) -> NDArray[Any]:
        space = self._space
        value = np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
        return np.repeat(value[None].astype(space.dtype), columns, axis=0)

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
        return {"low": space.low, "high": space.high, "shape": list(space.shape), "dtype": np.dtype(space.dtype).name}

    @classmethod
    def build(cls, arguments: Mapping[str, Any]) -> Space:
        dtype = np.dtype(arguments["dtype"])
        low, high = (np.asarray(arguments[key], dtype) for key in ("low", "high"))
        return spaces.Box(low, high, tuple(arguments["shape"]), dtype.type)


class ControlLayout(BoxLayout):
    """Continuous actions: what a Gaussian has drawn, before it is brought within the space's bounds."""

    words = "Box of floats with lower bounds below the upper ones"

    @classmethod
    def supports(cls, space: Space) -> bool:
        if not super().supports(space):
            return False
        assert isinstance(space, spaces.Box), "which is its kind"
        return np.issubdtype(space.dtype, np.floating) and bool((space.low < space.high).all()) and 0 not in space.shape

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space)
        self.dtype = np.dtype(np.float32)


class DiscreteLayout(Layout):
    """Whole numbers from `start` on."""

    kind, words = spaces.Discrete, "Discrete"
    shape = ()

    def __init__(self, space: spaces.Discrete) -> None:
        self._space, self.dtype = space, np.dtype(space.dtype)

    def some(self, columns: int) -> NDArray[Any]:
        return np.full(columns, self._space.start, self._space.dtype)

    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        first, number = int(self._space.start), int(self._space.n)
        return np.array([first]), np.array([first + number - 1])

    def arguments(self) -> dict[str, Any]:
        space = self._space
        return {"n": int(space.n), "start": int(space.start), "dtype": np.dtype(space.dtype).name}

    @classmethod
    def build(cls, arguments: Mapping[str, Any]) -> Space:
        return spaces.Discrete(arguments["n"], start=arguments["start"], dtype=np.dtype(arguments["dtype"]).type)


class MultiDiscreteLayout(Layout):
    """Arrays of whole numbers, each with a range of its own."""

    kind, words = spaces.MultiDiscrete, "MultiDiscrete"

    def __init__(self, space: spaces.MultiDiscrete) -> None:
        self._space = space
        self.shape, self.dtype = space.shape, np.dtype(space.dtype)

    def some(self, columns: int) -> NDArray[Any]:
        return np.repeat(self._space.start[None].astype(self._space.dtype), columns, axis=0)

    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        first = self._space.start.ravel().astype(np.int64)
        return first, first + self._space.nvec.ravel() - 1

    def arguments(self) -> dict[str, Any]:
        space = self._space
        return {"nvec": space.nvec, "start": space.start, "dtype": np.dtype(space.dtype).name}

    @classmethod
    def build(cls, arguments: Mapping[str, Any]) -> Space:
        return spaces.MultiDiscrete(
            np.asarray(arguments["nvec"]),
            np.dtype(arguments["dtype"]).type,
            start=np.asarray(arguments["start"], arguments["dtype"]),
        )


class MultiBinaryLayout(Layout):
    """Arrays of 0s and 1s."""

    kind, words = spaces.MultiBinary, "MultiBinary"
    dtype = np.dtype(np.int8)

    def __init__(self, space: spaces.MultiBinary) -> None:
        self._space = space
        self.shape = space.shape

    def some(self, columns: int) -> NDArray[Any]:
        return np.zeros((columns, *self.shape), self.dtype)

    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        return np.zeros(math.prod(self.shape), self.dtype), np.ones(math.prod(self.shape), self.dtype)

    def arguments(self) -> dict[str, Any]:
        return {"n": self._space.n}


class RecordLayout(Layout):
    """Several parts side by side: one row of bytes, in which each part can be viewed in its own dtype."""

    dtype = np.dtype(np.uint8)

    @classmethod
    def kinds(cls) -> tuple[type[Layout], ...]:
        """Return the kinds that a part may be of."""
        return OBSERVATIONS

    @staticmethod
    @abstractmethod
    def parts_of(space: Any) -> dict[str, Space]:
        """Return the spaces of its parts by key, or by place in words."""

    @classmethod
    def supports(cls, space: Space) -> bool:
        if not super().supports(space):
            return False
        parts = cls.parts_of(space)
        return bool(parts) and all(any(kind.supports(part) for kind in cls.kinds()) for part in parts.values())

    def __init__(self, space: Any) -> None:
        self._space = space
        self.parts = {key: _layout(part, key, self.kinds()) for key, part in self.parts_of(space).items()}
        sizes = [_aligned(math.prod(part.shape) * part.dtype.itemsize) for part in self.parts.values()]
        self.offsets = dict(zip(self.parts, accumulate(sizes, initial=0), strict=False))
        self.shape = (sum(sizes),)
        self._own = {key: Leaf(key, part, self.offsets[key]) for key, part in self.parts.items()}
        self._leaves = [
            Leaf(f"{key}.{leaf.path}".rstrip("."), leaf.layout, self.offsets[key] + leaf.offset)
            for key, part in self.parts.items()
            for leaf in part.leaves()
        ]

    def leaves(self) -> Iterator[Leaf]:
        yield from self._leaves

    def part(self, key: str, packed: Any) -> Any:
        """Return one part as it lies in memory, [..., *its shape]."""
        return self._own[key].of(packed)

    def pack(self, values: Any) -> NDArray[np.uint8]:
        arrays = list(self._arrays(values))
        packed = np.zeros((len(arrays[0]), *self.shape), self.dtype)
        for leaf, array in zip(self._leaves, arrays, strict=True):
            leaf.of(packed)[...] = array
        return packed

    def _arrays(self, values: Any) -> Iterator[NDArray[Any]]:
        for value, part in zip(self.values(values), self.parts.values(), strict=True):
            if isinstance(part, RecordLayout):
                yield from part._arrays(value)
            else:
                yield np.asarray(value)

    @abstractmethod
    def values(self, given: Any) -> Sequence[Any]:
        """Return what environments give for each part, in the order of the parts."""

    @abstractmethod
    def joined(self, parts: Sequence[Any]) -> Any:
        """Return what environments give, or take, of what there is for each part."""

    def unpack(self, packed: Any) -> Any:
        return self.joined([part.unpack(self.part(key, packed)) for key, part in self.parts.items()])

    def some(self, columns: int) -> Any:
        return self.joined([part.some(columns) for part in self.parts.values()])


class DictLayout(RecordLayout):
    """Parts with names."""

    kind, words = spaces.Dict, "Dict of these"

    @staticmethod
    def parts_of(space: Any) -> dict[str, Space]:
        return dict(space.spaces)

    @classmethod
    def supports(cls, space: Space) -> bool:
        return type(space) is cls.kind and all(type(key) is str and key for key in space) and super().supports(space)

    def values(self, given: Any) -> Sequence[Any]:
        return [given[key] for key in self.parts]

    def joined(self, parts: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.parts, parts, strict=True))

    def arguments(self) -> dict[str, Any]:
        return {"spaces": dict(self._space.spaces)}


class TupleLayout(RecordLayout):
    """Parts in an order."""

    kind, words = spaces.Tuple, "Tuple of these"

    @staticmethod
    def parts_of(space: Any) -> dict[str, Space]:
        return {str(place): part for place, part in enumerate(space.spaces)}

    def values(self, given: Any) -> Sequence[Any]:
        return list(given)

    def joined(self, parts: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(parts)

    def arguments(self) -> dict[str, Any]:
        return {"spaces": list(self._space.spaces)}


class ActionDictLayout(DictLayout):
    """Actions of several parts with names."""

    @classmethod
    def kinds(cls) -> tuple[type[Layout], ...]:
        return ACTIONS


class ActionTupleLayout(TupleLayout):
    """Actions of several parts in an order."""

    @classmethod
    def kinds(cls) -> tuple[type[Layout], ...]:
        return ACTIONS


OBSERVATIONS: tuple[type[Layout], ...] = (
    BoxLayout,
    DiscreteLayout,
    MultiDiscreteLayout,
    MultiBinaryLayout,
    DictLayout,
    TupleLayout,
)
ACTIONS: tuple[type[Layout], ...] = (
    DiscreteLayout,
    MultiDiscreteLayout,
    MultiBinaryLayout,
    ControlLayout,
    ActionDictLayout,
    ActionTupleLayout,
)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _words(layouts: tuple[type[Layout], ...]) -> str:
    return ", ".join(layout.words for layout in layouts)


SUPPORTED = f"observations: {_words(OBSERVATIONS)}; actions: {_words(ACTIONS)}"


def _layout(space: Space, name: str, layouts: tuple[type[Layout], ...]) -> Layout:
    for layout in layouts:
        if layout.supports(space):
            return layout(space)
    given = " ".join(str(space).split())  # large arrays come in several lines
    raise ValueError(f"{name}: got {given}, must be one of: {_words(layouts)}")


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
