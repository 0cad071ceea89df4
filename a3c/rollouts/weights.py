"""The network's parameters and buffers in shared memory, with a version."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from a3c.rollouts.memory import Field, carve, layout, shared_zeros


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


class SharedWeights:
    """A copy of a network's tensors that one process writes and many read, without a lock.

    A version counter is odd while a write goes on and even after it (a sequence lock): a reader
    copies, and copies again unless it saw the same even number before and after. The two orders
    it relies on, stores with stores and loads with loads, are those of x86; on weakly ordered
    machines the many interpreter instructions between them, each with its own synchronisation,
    make a reordering across a whole copy implausible rather than impossible.

    It pickles to another process by handle, not by content.

    Args:
        network: the network to mirror; its current tensors are version 0.
    """

    def __init__(self, network: nn.Module) -> None:
        tensors = _tensors(network)
        self._fields = [Field(str(index), tensor.shape, tensor.dtype) for index, tensor in enumerate(tensors)]
        self._block = shared_zeros(layout(self._fields)[1], dtype=torch.uint8)
        self._sequence = shared_zeros(1, dtype=torch.int64)
        self._map()
        with torch.no_grad():
            self._copy(self._views, tensors)

    def _map(self) -> None:
        self._views = list(carve(self._block, self._fields).values())
        self._counter = self._sequence.numpy()

    def __getstate__(self) -> dict[str, object]:
        return {"_fields": self._fields, "_block": self._block, "_sequence": self._sequence}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    @staticmethod
    def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
        if targets:
            torch._foreach_copy_(list(targets), list(sources))

    @property
    def version(self) -> int:
        """Number of times that weights have been published."""
        return int(self._counter[0]) // 2

    @torch.no_grad()
    def publish(self, network: nn.Module) -> int:
        """Copies the network's tensors in and gives their new version; one process only."""
        self._counter[0] += 1
        self._copy(self._views, _tensors(network))
        self._counter[0] += 1
        return self.version

    @torch.no_grad()
    def pull(self, network: nn.Module, timeout: float = 10.0) -> int:
        """Copies the newest tensors out into the network and gives their version.

        Args:
            network: a network of the mirrored architecture.
            timeout: seconds after which a write that never ends is given up on.

        Raises:
            TimeoutError: no quiet moment came: the writer died in a write, or never pauses.
        """
        tensors = _tensors(network)
        deadline = time.monotonic() + timeout
        while True:
            before = int(self._counter[0])
            if before % 2 == 0:
                self._copy(tensors, self._views)
                # Accepted race: the copy may tear. It is then seen here and made again.
                if int(self._counter[0]) == before:
                    return before // 2
            if time.monotonic() > deadline:
                raise TimeoutError(f"the shared weights stayed in the middle of a write for {timeout} s")
            time.sleep(0)
