"""The network's tensors on their way to actors: as one array in Ray's object store, with a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from a3c.rollouts.weights import copy_tensors, fields_of, tensors_of
from a3c.rollouts.workers.shared_memory import Field, carve, layout


class SentWeights:
    """A copy of a network's tensors, which goes with each order to collect; to an actor it pickles as `HeldWeights`.

    Args:
        network: the network to mirror.
        version: of its current tensors: the updates that a resumed run has made before.
    """

    def __init__(self, network: nn.Module, version: int = 0) -> None:
        self._fields = fields_of(network)
        self._bytes = torch.zeros(layout(self._fields)[1], dtype=torch.uint8)
        self._views = list(carve(self._bytes, self._fields).values())
        copy_tensors(self._views, tensors_of(network))
        self.version = version
        self._stored: tuple[int, Any] | None = None  # the version that lies in the object store, and where

    def __reduce__(self) -> tuple[Any, ...]:
        return HeldWeights, (self._fields,)

    def publish(self, network: nn.Module) -> int:
        """Copy the network's tensors in and return their new version."""
        copy_tensors(self._views, tensors_of(network))
        self.version += 1
        return self.version

    def pull(self, network: nn.Module) -> int:
        """Copy the newest tensors out into the network and return their version."""
        copy_tensors(tensors_of(network), self._views)
        return self.version

    def stored(self) -> tuple[int, Any]:
        """Return the version and where it lies in Ray's object store; it is put there once, when first asked for."""
        import ray

        if self._stored is None or self._stored[0] != self.version:
            self._stored = self.version, ray.put(self._bytes.numpy().copy())
        return self._stored

    def forget(self) -> None:
        """Let go of what lies in the object store."""
        self._stored = None


class HeldWeights:
    """What an actor's collector pulls from: the weights that came with the last order.

    Args:
        fields: how tensors lie in the array.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = list(fields)
        self._views: list[Tensor] = []
        self.version = -1

    def hold(self, version: int, array: Any) -> None:
        """Take what came: a version, and its tensors as an array of bytes."""
        if version != self.version:
            self._views = list(carve(torch.from_numpy(array), self._fields).values())
            self.version = version

    def pull(self, network: nn.Module) -> int:
        """Copy the tensors into the network and return their version."""
        copy_tensors(tensors_of(network), self._views)
        return self.version
