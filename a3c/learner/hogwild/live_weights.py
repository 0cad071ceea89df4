"""The network's tensors in shared memory, stepped in place by many workers."""

from __future__ import annotations

from torch import nn

from a3c.learner.hogwild.tally import Tally
from a3c.rollouts.weights import copy_tensors, shared_copy, tensors_of


class LiveWeights:
    """A network's tensors in shared memory that many processes step in place, without a lock.

    Recht et al. (2011), Hogwild!, arXiv:1106.5730.

    Args:
        network: the network to mirror.
        tally: counts the updates, which are the version.

    Attributes:
        parameters: the shared parameters, in the network's order.
        buffers: the shared buffers.
    """

    def __init__(self, network: nn.Module, tally: Tally) -> None:
        self._tally = tally
        self._block = shared_copy(network)
        self._count = len(list(network.parameters()))
        self._map()

    def _map(self) -> None:
        views = list(self._block.views.values())
        self.parameters, self.buffers = views[: self._count], views[self._count :]

    def __getstate__(self) -> dict[str, object]:
        return {"_tally": self._tally, "_block": self._block, "_count": self._count}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def version(self) -> int:
        """Number of updates that all workers have made."""
        return self._tally.updates

    def pull(self, network: nn.Module) -> int:
        """Copy the tensors out into the network and return the version that they have at least.

        Accepted race: another worker may step meanwhile, and the copy is then torn between two
        versions. That is what Hogwild is; each number in it is whole.
        """
        version = self.version
        copy_tensors(tensors_of(network), [*self.parameters, *self.buffers])
        return version

    def write_buffers(self, network: nn.Module) -> None:
        """Copy the network's buffers in; of several workers the last one wins."""
        copy_tensors(self.buffers, list(network.buffers()))
