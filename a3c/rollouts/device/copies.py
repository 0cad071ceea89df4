"""Copies between this machine's memory and a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Copies:
    """Copies of which each is made before the next call, of devices that have no queue for them.

    Args:
        device: that the learner is on.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def host_bytes(self, size: int) -> Tensor:
        """Return memory that the device copies from and to best: zeros, uint8, [size]."""
        return torch.zeros(size, dtype=torch.uint8)

    def send(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Begin to copy tensors to the device, where they may be used once `arrive` was called."""
        return [tensor.to(self.device) for tensor in tensors]

    def arrive(self, sent: Sequence[Tensor]) -> None:
        """Have whatever is computed from now on wait for what was sent."""

    def fetch(self, source: Tensor, target: Tensor) -> Callable[[], None]:
        """Begin to copy what was computed so far on the device; return what waits for its end.

        Args:
            source: on the device; must stay as it is until then.
            target: of `host_bytes`.
        """
        target.copy_(source)
        return _nothing


class CudaCopies(Copies):
    """Copies beside what a CUDA device computes, in a stream for each direction, through page-locked memory.

    Args:
        device: that the learner is on.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._there = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._back = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host_bytes(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8, pin_memory=True)

    def send(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.cuda.stream(self._there):
            return [tensor.pin_memory().to(self.device, non_blocking=True) for tensor in tensors]

    def arrive(self, sent: Sequence[Tensor]) -> None:
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._there)
        for tensor in sent:  # whose memory is the other stream's: it may not be given to another while it is read here
            tensor.record_stream(computing)

    def fetch(self, source: Tensor, target: Tensor) -> Callable[[], None]:
        self._back.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._back):
            target.copy_(source, non_blocking=True)
            arrival: torch.cuda.Event = self._back.record_event()
        return lambda: arrival.synchronize()


def copies_of(device: torch.device) -> Copies:
    """Return how a device's memory is copied from and to."""
    return CudaCopies(device) if device.type == "cuda" else Copies(device)


def _nothing() -> None:
    """Wait for nothing."""
