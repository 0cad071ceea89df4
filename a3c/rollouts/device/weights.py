"""The weights of a network that is on a device, on their way to those who act on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn

from a3c.networks.actor_critic import ActorCritic
from a3c.rollouts.device.copies import Copies
from a3c.rollouts.weights import PublishedWeights, copy_tensors, fields_of, tensors_of
from a3c.rollouts.workers.shared_memory import carve, layout


class HostCopy:
    """A copy, on the CPU, of a network that is on a device; all of its tensors come in one transfer.

    Args:
        network: that is on a device.
        copies: of that device.

    Attributes:
        network: the copy.
    """

    def __init__(self, network: ActorCritic, copies: Copies) -> None:
        here = {id(tensor): _on_cpu(tensor) for tensor in tensors_of(network)}
        self.network = copy.deepcopy(network, here)  # all else of it, with these in the place of its tensors
        self._copies = copies
        fields = fields_of(self.network)
        size = layout(fields)[1]
        self._host = copies.host_bytes(size)
        self._device = torch.zeros(size, dtype=torch.uint8, device=copies.device)
        self._on_device = list(carve(self._device, fields).values())
        for tensor, place in zip(tensors_of(self.network), carve(self._host, fields).values(), strict=True):
            place.copy_(tensor.detach())
            tensor.data = place

    def fetch(self, network: nn.Module) -> Callable[[], None]:
        """Begin to take over the tensors of the network as they are now; return what waits for the end of that."""
        copy_tensors(self._on_device, tensors_of(network))  # on the device, so that there is one transfer
        return self._copies.fetch(self._device, self._host)

    def send(self, network: nn.Module) -> None:
        """Give the network the copy's tensors."""
        (sent,) = self._copies.send([self._host])
        self._copies.arrive([sent])
        self._device.copy_(sent)
        copy_tensors(tensors_of(network), self._on_device)


class DeviceWeights:
    """What publishes a network that is on a device, while the learner goes on with the next update.

    Args:
        host: the copy that those who act on the CPU have their weights from.
        shared: where they find them.
        waits: publish before the learner goes on, where those who act may not lag behind.

    Attributes:
        version: number of updates that have been made to the weights.
    """

    def __init__(self, host: HostCopy, shared: PublishedWeights, waits: bool) -> None:
        self._host, self._shared, self._waits = host, shared, waits
        self.version = shared.version
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._publication: Future[int] | None = None

    def publish(self, network: nn.Module) -> int:
        """Begin to hand the network's tensors on, and return their new version."""
        self.settle()
        arrival = self._host.fetch(network)
        self.version += 1
        self._publication = self._thread.submit(self._hand_on, arrival)
        if self._waits:
            self.settle()
        return self.version

    def _hand_on(self, arrival: Callable[[], None]) -> int:
        arrival()
        return self._shared.publish(self._host.network)

    def settle(self) -> None:
        """Wait until those who act can see what was published last."""
        if self._publication is not None:
            self._publication.result()
            self._publication = None

    def pull(self, network: nn.Module) -> int:
        """Give the network on the device the tensors that were published last, and return their version."""
        self.settle()
        self._shared.pull(self._host.network)
        self._host.send(network)
        return self.version

    def acting(self) -> ActorCritic:
        """Return the copy on the CPU, with what was published last; nobody may change it."""
        self.settle()
        return self._host.network

    def close(self) -> None:
        """End the thread that publishes. Idempotent."""
        self._thread.shutdown()


def _on_cpu(tensor: Tensor) -> Tensor:
    data = tensor.detach().cpu()
    return nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data


def device_of(network: nn.Module) -> torch.device:
    """Return the device that a network is on; the CPU, if it has no tensors."""
    return next((tensor.device for tensor in tensors_of(network)), torch.device("cpu"))
