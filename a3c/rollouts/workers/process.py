"""A process around a task: slots in, announcements out, signs of life, and an end with its parent.

Everything a worker imports is imported here or below, and neither lightning nor wandb is among it.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from a3c.batch import BatchShape, RolloutBatch
from a3c.envs.watchdog import listen
from a3c.rollouts.collector import CollectorSpec, Fragment, Life
from a3c.rollouts.workers.heartbeat import Heartbeat
from a3c.rollouts.workers.lifetime import end_with_parent, lead_group
from a3c.rollouts.workers.shared_memory import Field, carve, layout, shared_zeros

FAILED = 1  # exit status of a worker whose task raised
STACK_SIGNAL = signal.SIGQUIT  # on it a worker writes down where it is, even in the middle of a call into C
PARENTS_AFFAIR = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C and schedulers reach every process


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
        """Return zeroed slots in shared memory."""
        size = layout(cls._fields(shape))[1]
        return cls(shared_zeros(slots, size, dtype=torch.uint8), shape)

    def views(self) -> list[RolloutBatch]:
        """Return each slot as a batch over the shared bytes."""
        fields = self._fields(self.shape)
        return [RolloutBatch(**carve(row, fields)) for row in self.block]


@dataclass(frozen=True)
class WorkerPlace:
    """What a worker is given by its pool.

    Attributes:
        worker: its number, from 0.
        restarts: workers that had this number before, and died.
        memory: its slots, if it has any.
        heartbeat: its signs of life.
        stop: flag that the pool raises, bool [1], shared.
        connection: its own pipe to the pool; no lock is shared with anyone.
        stacks: pipe for what it writes down of its stack, when asked and when it crashes.
    """

    worker: int
    restarts: int
    memory: SlotMemory | None
    heartbeat: Heartbeat
    stop: Tensor
    connection: Connection
    stacks: Connection


class WorkerContext:
    """What a task sees of its process: who it is, its slots, and how to hand them on.

    Args:
        place: what the worker is given.

    Attributes:
        life: who it is.
        slots: the worker's own slots; only one that `next_slot` named may be written.
        heartbeat: where it gives signs of life; who gives none for too long is killed.
    """

    def __init__(self, place: WorkerPlace) -> None:
        self.heartbeat = place.heartbeat
        self.life = Life(place.worker, place.restarts, place.heartbeat.episodes)
        self.slots = place.memory.views() if place.memory else []
        self._stop, self._connection = place.stop, place.connection

    def ready(self) -> None:
        """Tell the pool that set-up is over."""
        self._connection.send(("ready",))

    def next_slot(self) -> int | None:
        """Wait for a free slot; None means stop."""
        try:
            slot: int | None = self._connection.recv()
        except (EOFError, ConnectionResetError):  # the pool is gone
            return None
        # Slots that were freed earlier may still lie in the pipe before the None that ends the wait.
        return None if self.stopped else slot

    def announce(self, slot: int, fragment: Fragment) -> None:
        """Hand a filled slot on.

        It is sent after the last write: a worker that dies earlier has announced nothing.
        """
        self._connection.send(("rollout", slot, fragment))

    def report(self, report: Any, is_last: bool) -> None:
        """Hand on anything that pickles; after the last report the pool expects nothing more."""
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
        heartbeat = context.heartbeat
        collector = self.spec.build(context.life, heartbeat.step)
        try:
            context.ready()
            while (slot := context.next_slot()) is not None:
                heartbeat.begin(slot)
                fragment = collector.collect(context.slots[slot])
                context.announce(slot, fragment)
                heartbeat.end()
                heartbeat.count_episodes(len(fragment.episodes))
                if fragment.is_last:
                    break
        finally:
            collector.close()


def run_worker(place: WorkerPlace, task: Task) -> None:
    """Run a task in this process and report its exception, if any, as text.

    Args:
        place: what the worker is given.
        task: what it does.
    """
    lead_group()
    end_with_parent()
    for number in PARENTS_AFFAIR:
        # A handler, not SIG_IGN: programs that an environment starts would inherit the latter.
        signal.signal(number, _leave_to_parent)
    # Only to Python is it a daemon, so that its parent never waits for it at exit; that would forbid
    # environments to have processes of their own, which die with the worker's group.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    faulthandler.enable(place.stacks.fileno())
    faulthandler.register(STACK_SIGNAL, place.stacks.fileno())
    torch.set_num_threads(1)
    place.heartbeat.beat()
    listen(place.heartbeat.beat)
    try:
        task(WorkerContext(place))
    except (BrokenPipeError, ConnectionResetError):
        return  # the pool closed while we were announcing
    except BaseException as error:
        # As text: not every exception can be pickled.
        place.connection.send(("error", traceback.format_exc(), getattr(error, "fatal", False)))
        raise SystemExit(FAILED) from None


def _leave_to_parent(*_: object) -> None:
    """Do nothing: the parent decides, and says so by its own ways."""
