"""The network's parameters and buffers in shared memory, with a version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from a3c.rollouts.workers.shared_memory import Field, SharedBlock, layout, shared_zeros


class WeightSource(Protocol):
    """Where a collector's weights come from."""

    @property
    def version(self) -> int:
        """Number of updates that have been made to the weights."""

    def pull(self, network: nn.Module) -> int:
        """Copy the newest tensors into the network and return their version."""


@runtime_checkable
class PublishedWeights(WeightSource, Protocol):
    """Weights that the learner hands on."""

    def publish(self, network: nn.Module) -> int:
        """Copy the network's tensors in and return their new version."""


def tensors_of(network: nn.Module) -> list[Tensor]:
    """Return a network's parameters and buffers, in its order."""
    return [*network.parameters(), *network.buffers()]


def fields_of(network: nn.Module) -> list[Field]:
    """Return what its tensors are in a block of memory, in their order."""
    return [Field(str(index), tensor.shape, tensor.dtype) for index, tensor in enumerate(tensors_of(network))]


def shared_nbytes(network: nn.Module) -> int:
    """Return the bytes of shared memory that a network's tensors take."""
    return layout(fields_of(network))[1]


def shared_copy(network: nn.Module) -> SharedBlock:
    """Return the network's tensors in shared memory, in their order."""
    block = SharedBlock(fields_of(network))
    copy_tensors(list(block.views.values()), tensors_of(network))
    return block


@torch.no_grad()
def copy_tensors(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors into others of the same shapes, all at once."""
    if targets:
        torch._foreach_copy_(list(targets), list(sources))


class SharedWeights:
    """A copy of a network's tensors that one process writes and many read, without a lock.

    A version counter is odd while a write goes on and even after it (a sequence lock): a reader
    copies, and copies again unless it saw the same even number before and after. The two orders
    it relies on, stores with stores and loads with loads, are those of x86; on weakly ordered
    machines the many interpreter instructions between them, each with its own synchronisation,
    make a reordering across a whole copy implausible rather than impossible.

    Args:
        network: the network to mirror.
        version: of its current tensors: the updates that a resumed run has made before.
    """

    def __init__(self, network: nn.Module, version: int = 0) -> None:
        self._block = shared_copy(network)
        self._sequence = shared_zeros(1, dtype=torch.int64).fill_(2 * version)
        self._map()

    def _map(self) -> None:
        self._views = list(self._block.views.values())
        self._counter = self._sequence.numpy()

    def __getstate__(self) -> dict[str, object]:
        return {"_block": self._block, "_sequence": self._sequence}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def version(self) -> int:
        """Number of times that weights have been published, those of a resumed run's past included."""
        return int(self._counter[0]) // 2

    def publish(self, network: nn.Module) -> int:
        """Copy the network's tensors in and return their new version; one process only."""
        self._counter[0] += 1
        copy_tensors(self._views, tensors_of(network))
        self._counter[0] += 1
        return self.version

    def pull(self, network: nn.Module, timeout: float = 10.0) -> int:
        """Copy the newest tensors out into the network and return their version.

        Args:
            network: a network of the mirrored architecture.
            timeout: seconds after which a write that never ends is given up on.

        Raises:
            TimeoutError: no quiet moment came: the writer died in a write, or never pauses.
        """
        tensors = tensors_of(network)
        deadline = time.monotonic() + timeout
        while True:
            before = int(self._counter[0])
            if before % 2 == 0:
                copy_tensors(tensors, self._views)
                # Accepted race: the copy may tear. It is then seen here and made again.
                if int(self._counter[0]) == before:
                    return before // 2
            if time.monotonic() > deadline:
                raise TimeoutError(f"the shared weights stayed in the middle of a write for {timeout} s")
            time.sleep(0)
