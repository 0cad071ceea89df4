"""A process around a task: slots in, announcements out, and an end with its parent.

Everything a worker imports is imported here or below, and neither lightning nor wandb is among it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from a3c.batch import BatchShape, RolloutBatch
from a3c.rollouts.collector import CollectorSpec, Fragment
from a3c.rollouts.memory import Field, carve, layout, shared_zeros

ORPHANED = 3  # exit status of a worker whose parent is gone


@dataclass(frozen=True)
class SlotMemory:
    """The rollout slots of one worker in one shared block.

    Attributes:
        block: bytes of all slots, [slots, bytes of one].
        shape: what one slot holds.
    """

    block: Tensor
    shape: BatchShape

    @staticmethod
    def _fields(shape: BatchShape) -> list[Field]:
        return [Field(name, *size_and_dtype) for name, size_and_dtype in shape.fields().items()]

    @classmethod
    def allocate(cls, shape: BatchShape, slots: int) -> SlotMemory:
        """Gives zeroed slots in shared memory."""
        size = layout(cls._fields(shape))[1]
        return cls(shared_zeros(slots, size, dtype=torch.uint8), shape)

    def views(self) -> list[RolloutBatch]:
        """Gives each slot as a batch over the shared bytes."""
        fields = self._fields(self.shape)
        return [RolloutBatch(**carve(row, fields)) for row in self.block]


class WorkerContext:
    """What a task sees of its process: who it is, its slots, and how to hand them on.

    Attributes:
        worker: number of the worker, from 0.
        slots: the worker's own slots; only one that `next_slot` named may be written.
    """

    def __init__(self, worker: int, slots: Sequence[RolloutBatch], stop: Tensor, connection: Connection) -> None:
        self.worker = worker
        self.slots = slots
        self._stop = stop
        self._connection = connection

    def ready(self) -> None:
        """Tells the pool that set-up is over."""
        self._connection.send(("ready",))

    def next_slot(self) -> int | None:
        """Waits for a free slot; None means stop."""
        try:
            slot: int | None = self._connection.recv()
        except (EOFError, ConnectionResetError):  # the pool is gone
            return None
        # Slots that were freed earlier may still lie in the pipe before the None that ends the wait.
        return None if self.stopped else slot

    def announce(self, slot: int, fragment: Fragment) -> None:
        """Hands a filled slot on.

        It is sent after the last write: a worker that dies earlier has announced nothing.
        """
        self._connection.send(("rollout", slot, fragment))

    def report(self, report: Any, is_last: bool) -> None:
        """Hands on anything that pickles; after the last report the pool expects nothing more."""
        self._connection.send(("report", report, is_last))

    @property
    def stopped(self) -> bool:
        """Whether the pool has asked all workers to stop."""
        return bool(self._stop[0])


Task = Callable[[WorkerContext], None]


@dataclass(frozen=True)
class CollectTask:
    """Fills slot after slot until told to stop, or until its episode budget is used up."""

    spec: CollectorSpec

    def __call__(self, context: WorkerContext) -> None:
        collector = self.spec.build(context.worker)
        try:
            context.ready()
            while (slot := context.next_slot()) is not None:
                fragment = collector.collect(context.slots[slot])
                context.announce(slot, fragment)
                if fragment.is_last:
                    break
        finally:
            collector.close()


def run_worker(worker: int, task: Task, memory: SlotMemory | None, stop: Tensor, connection: Connection) -> None:
    """Runs a task in this process and reports its exception, if any, as text.

    Args:
        worker: number of the worker.
        task: what it does.
        memory: its slots, if it has any.
        stop: flag that the pool raises, bool [1], shared.
        connection: its own pipe to the pool; no lock is shared with anyone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        task(WorkerContext(worker, memory.views() if memory else [], stop, connection))
    except (BrokenPipeError, ConnectionResetError):
        return  # the pool closed while we were announcing
    except BaseException:
        # As text: not every exception can be pickled.
        connection.send(("error", traceback.format_exc()))
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(ORPHANED)
