"""What all learners of a run come to know of each other: numbers, values, gradients; in the order of their ranks.

The group is torch.distributed's own, of which a process has one or none; without one a learner is alone, and
nothing here waits or copies. All learners must ask the same questions in the same order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

FIRST_PAUSE, LONGEST_PAUSE = 2e-5, 1e-3  # seconds between two looks whether the others have answered


class LearnerLostError(RuntimeError):
    """Another learner has ended, or can't be reached."""


class LearnersDifferError(RuntimeError):
    """Learners of a run have come to be at different points, or at different weights."""


class Moments(NamedTuple):
    """Of a sample's numbers: how many there are, their means and variances."""

    number: int
    mean: Tensor
    variance: Tensor


def size() -> int:
    """Return the number of learners, this one included."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return which of the learners this one is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def exchange(numbers: Sequence[float]) -> list[list[float]]:
    """Return the numbers of every learner; each gives as many.

    Raises:
        LearnerLostError: one is gone.
    """
    if size() == 1:
        return [list(numbers)]
    return [each.tolist() for each in _gathered(torch.tensor(numbers, dtype=torch.float64))]


def gather(value: Any) -> list[Any]:
    """Return a value of every learner, which pickles.

    Raises:
        LearnerLostError: one is gone.
    """
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    _or_lost(lambda: dist.all_gather_object(values, value))
    return values


def add_up(tensors: Iterable[Tensor]) -> None:
    """Put the sum over all learners in the place of each tensor.

    Raises:
        LearnerLostError: one is gone.
    """
    _in_place(tensors, lambda flat: dist.all_reduce(flat, async_op=True))


def take_over(tensors: Iterable[Tensor]) -> None:
    """Put the first learner's numbers in the place of each tensor's.

    Raises:
        LearnerLostError: one is gone.
    """
    _in_place(tensors, lambda flat: dist.broadcast(flat, 0, async_op=True))


def average(tensors: Iterable[Tensor]) -> None:
    """Put the mean over all learners in the place of each tensor of floats, and the first one's in that of others.

    Raises:
        LearnerLostError: one is gone.
    """
    if size() == 1:
        return
    tensors = list(tensors)
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    add_up(floats)
    for tensor in floats:
        tensor.div_(size())
    take_over(tensor for tensor in tensors if not tensor.is_floating_point())


def pooled(moments: Moments) -> Moments:
    """Return the moments of all learners' samples together; NaN of an empty sample counts for nothing.

    Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance".

    Raises:
        LearnerLostError: one is gone.
    """
    if size() == 1:
        return moments
    shape = moments.mean.shape
    mean, variance = (part.double().reshape(-1) for part in moments[1:])
    each = _gathered(torch.cat([mean.new_tensor([moments.number]), mean, variance]))
    each = [row for row in each if row[0] > 0]
    if not each:
        return moments
    counts = torch.stack([row[0] for row in each])
    means, variances = torch.stack([row[1:] for row in each]).chunk(2, 1)
    shares = (counts / counts.sum()).unsqueeze(1)
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean).square())).sum(0)
    dtype = moments.mean.dtype
    return Moments(int(counts.sum()), mean.to(dtype).reshape(shape), variance.to(dtype).reshape(shape))


def _gathered(numbers: Tensor) -> list[Tensor]:
    everyones = [torch.empty_like(numbers) for _ in range(size())]
    _wait(dist.all_gather(everyones, numbers, async_op=True))
    return everyones


def _in_place(tensors: Iterable[Tensor], collective: Callable[[Tensor], Any]) -> None:
    """Have a collective change tensors, those of one dtype and device in one message."""
    if size() == 1:
        return
    for alike in _by_kind(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        _wait(collective(flat))
        _put(flat, alike)


def _by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())


@torch.no_grad()
def _put(flat: Tensor, into: Sequence[Tensor]) -> None:
    parts = torch.split(flat, [tensor.numel() for tensor in into])
    for tensor, part in zip(into, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _wait(work: Any) -> None:
    """Wait for the others without keeping signals waiting, which Python handles between two of its own steps."""
    pause = FIRST_PAUSE
    while not work.is_completed():
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    _or_lost(work.wait)


def _or_lost(function: Callable[[], Any]) -> None:
    try:
        function()
    except RuntimeError as error:
        # Without the place in gloo's sources, and its guesses.
        text = re.sub(r"^\[[^]]*\] *", "", str(error).partition("\n")[0].partition(". This is")[0])
        raise LearnerLostError(f"another learner of the run is gone: {text}") from error
