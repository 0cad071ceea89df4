"""Typed tensors laid out in one block of bytes: one shared mapping, however many tensors.

A shared tensor of its own for each field would cost a file descriptor each in every process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes: a cache line, and enough for every dtype


class Field(NamedTuple):
    """One tensor of a block."""

    name: str
    shape: Sequence[int]
    dtype: torch.dtype


def shared_zeros(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return a zeroed tensor in shared memory; it has no name there, so nothing of it outlives its users."""
    tensor: Tensor = torch.zeros(*shape, dtype=dtype).share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def layout(fields: Sequence[Field]) -> tuple[list[int], int]:
    """Return each field's offset and the whole size, in bytes; every field starts aligned."""
    offsets, size = [], 0
    for field in fields:
        offsets.append(size)
        nbytes = math.prod(field.shape) * field.dtype.itemsize
        size += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, size


def carve(block: Tensor, fields: Sequence[Field]) -> dict[str, Tensor]:
    """Return the fields as views of a block of bytes, by name.

    Args:
        block: uint8, [at least `layout(fields)[1]`].
        fields: what lies in it.
    """
    offsets, _ = layout(fields)
    views = {}
    for field, offset in zip(fields, offsets, strict=True):
        nbytes = math.prod(field.shape) * field.dtype.itemsize
        views[field.name] = block[offset : offset + nbytes].view(field.dtype).view(tuple(field.shape))
    return views


class SharedBlock:
    """Named tensors in one shared mapping; it pickles to another process by handle, not by content.

    Args:
        fields: what lies in it; all zeros at first.

    Attributes:
        views: the tensors by name.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = list(fields)
        self._bytes = shared_zeros(layout(self._fields)[1], dtype=torch.uint8)
        self.views = carve(self._bytes, self._fields)

    def __getstate__(self) -> dict[str, object]:
        return {"_fields": self._fields, "_bytes": self._bytes}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.views = carve(self._bytes, self._fields)
