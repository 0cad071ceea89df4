"""Running means and variances that wrappers keep, shared by all environments of a run.

A wrapper such as Gymnasium's `NormalizeObservation` keeps statistics of its own environment: each column
would act on other numbers than the next one, and an evaluation's would begin from nothing. Here one
`RunningMeanStd` in shared memory stands in for those of all columns and workers; evaluations, videos and
agents look at it and leave it as it is; checkpoints keep it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.wrappers.utils import RunningMeanStd
from numpy.typing import NDArray

from a3c.envs.wrappers import layers_of

FIRST_COUNT = 1e-4  # Gymnasium's own, of a mean of 0 and a variance of 1


class _Place(NamedTuple):
    """Where a wrapper keeps statistics: in which attribute, and which of the run's they are."""

    wrapper: Any
    attribute: str
    key: str


class SharedMeanStd(RunningMeanStd):
    """Mean, variance and count in shared memory, updated by whoever sees new values.

    Accepted race: of two workers that update at the same moment one may be lost, and who reads meanwhile
    may find the mean of one moment with the variance of the next. Both are estimates, and go on changing.

    Args:
        cells: mean, variance and count, [2n + 1].
        like: what it stands in for, which says shape and dtype.
    """

    def __init__(self, cells: NDArray[np.float64], like: RunningMeanStd) -> None:
        shape, size = np.shape(like.mean), int(np.size(like.mean))
        self._dtype = np.asarray(like.mean).dtype
        self._mean, self._var, self._count = cells[:size].reshape(shape), cells[size:-1].reshape(shape), cells[-1:]

    @property
    def mean(self) -> Any:
        """The mean, [*shape]."""
        return self._mean.astype(self._dtype)

    @mean.setter
    def mean(self, value: Any) -> None:
        self._mean[...] = value

    @property
    def var(self) -> Any:
        """The variance, [*shape]."""
        return self._var.astype(self._dtype)

    @var.setter
    def var(self, value: Any) -> None:
        self._var[...] = value

    @property
    def count(self) -> float:
        """Number of values, and a little to begin with."""
        return float(self._count[0])

    @count.setter
    def count(self, value: float) -> None:
        self._count[0] = value


class RunStatistics:
    """The statistics of all wrappers of a run's environments; it pickles to a worker by handle.

    Args:
        sizes: how many numbers each has a mean of, by the wrapper's place and attribute.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self._cells = {key: torch.zeros(2 * size + 1, dtype=torch.float64) for key, size in sizes.items()}
        for key, cells in self._cells.items():
            cells[sizes[key] : -1], cells[-1] = 1, FIRST_COUNT
            cells.share_memory_()  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, env: VectorEnv) -> RunStatistics | None:
        """Make those that an environment's wrappers need; None if they keep none."""
        sizes = {place.key: int(np.size(getattr(place.wrapper, place.attribute).mean)) for place in _places(env)}
        return cls(sizes) if sizes else None

    def attach(self, env: VectorEnv, learns: bool) -> None:
        """Have the wrappers of an environment use these.

        Args:
            env: one that is made as that which they were made for.
            learns: what it sees changes them; else they stay as they are.
        """
        for wrapper, attribute, key in list(_places(env)):
            setattr(wrapper, attribute, SharedMeanStd(self._cells[key].numpy(), getattr(wrapper, attribute)))
            if not learns:
                wrapper.update_running_mean = False

    def state_dict(self) -> dict[str, Any]:
        """Return copies of them, by the wrapper's place and attribute."""
        return {key: cells.clone() for key, cells in self._cells.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            ValueError: it is that of other wrappers.
        """
        ours, theirs = ({key: len(cells) for key, cells in each.items()} for each in (self._cells, state))
        if ours != theirs:
            raise ValueError(f"statistics of wrappers: got those of {list(theirs)}, must be of {list(ours)}")
        for key, cells in state.items():
            self._cells[key].copy_(cells)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RunStatistics:
        """Make them from what `state_dict` gave."""
        made = cls({key: (len(cells) - 1) // 2 for key, cells in state.items()})
        made.load_state_dict(state)
        return made


def _places(env: VectorEnv) -> Iterator[_Place]:
    """Find all places of a vector of environments; those of its columns share their keys."""
    layers = layers_of(env)
    yield from _places_in("vector", layers)
    for single in layers[-1].envs if isinstance(layers[-1], SyncVectorEnv) else ():
        yield from _places_in("single", layers_of(single))


def _places_in(where: str, layers: Sequence[Any]) -> Iterator[_Place]:
    seen = Counter[str]()
    for layer in reversed(layers):
        for attribute, value in list(vars(layer).items()):
            if isinstance(value, RunningMeanStd):
                key = f"{where} {type(layer).__name__}.{attribute}"
                seen[key] += 1  # counted, since an evaluation's have a time limit more, and a video's a picture
                yield _Place(layer, attribute, f"{key} {seen[key]}")


def unshared(env: VectorEnv) -> list[str]:
    """Name the wrappers that keep statistics of another make, which cannot be shared."""
    layers = layers_of(env)
    singles = layers[-1].envs[:1] if isinstance(layers[-1], SyncVectorEnv) else []
    return [
        f"{type(layer).__name__}.{attribute}"
        for layer in (*layers, *(layer for single in singles for layer in layers_of(single)))
        for attribute, value in vars(layer).items()
        if not isinstance(value, RunningMeanStd) and all(hasattr(value, name) for name in ("mean", "var", "update"))
    ]
