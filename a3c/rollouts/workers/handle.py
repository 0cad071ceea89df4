"""One worker process as its pool sees it: start, signs of life, death, and what it leaves behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import connection
from typing import Any

import torch.multiprocessing
from torch import Tensor

from a3c.batch import BatchShape, RolloutBatch
from a3c.rollouts.workers.heartbeat import Heartbeat
from a3c.rollouts.workers.process import STACK_SIGNAL, SlotMemory, Task, WorkerPlace, run_worker

MESSAGE_SECONDS = 2  # a whole number; a message that has begun is whole within microseconds
STACK_SECONDS = 0.5  # a worker that is asked where it is answers at once, unless it is stopped
REAP_SECONDS = 5.0  # a process that was killed is gone in milliseconds, unless the kernel holds it
EXIT_UNKNOWN = 255  # its code went with the fork server
IMPORT_SECONDS = 60.0  # for a process to start: the fork server's imports
GLANCE_SECONDS = 1.0  # most silence that one look adds: while nobody looks, workers may stand still with us


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Keep a process that is started from importing the main script again.

    A script without a guard would start its own training there, and a notebook, or a script from the standard
    input, has no file. Nothing is looked for in it: what is defined there reaches a worker by value.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


class WorkerHandle:
    """A worker process with a pipe, slots and a process group of its own.

    Its slots are new memory, not those of the worker whose place it takes: what that one announced
    stays readable, and no late write of it can reach anyone.

    Args:
        number: of the worker.
        restarts: workers that had this number before.
        task: what it does.
        slots: buffers of it.
        shape: what a slot holds; None without slots.
        heartbeat: its signs of life, which go on from its predecessor's.
        stop: flag that the pool raises, bool [1], shared.

    Attributes:
        connection: the pool's end of the pipe.
        exit_handle: readable once the process has ended, whoever its parent was.
        ready: whether its set-up is over.
        finished: whether nothing more comes from it.
        pid: process id, which is also that of its process group.
        closed: whether it is gone, and what it held here is freed.
        exit_code: once it is closed; -n after signal n.
    """

    def __init__(
        self,
        number: int,
        restarts: int,
        task: Task,
        slots: int,
        shape: BatchShape | None,
        heartbeat: Heartbeat,
        stop: Tensor,
    ) -> None:
        context = torch.multiprocessing.get_context("forkserver")
        self.number, self.restarts = number, restarts
        self.ready = self.finished = self.closed = False
        self.exit_code = EXIT_UNKNOWN
        memory = SlotMemory.allocate(shape, slots) if shape and slots else None
        self._views: list[RolloutBatch] = memory.views() if memory else []
        self._given: set[int] = set()  # slots that it may write
        self._heartbeat = heartbeat
        heartbeat.end()  # of its predecessor's fragment
        self._beats = self._beats_before = heartbeat.beats
        self._silence, self._looked = 0.0, time.monotonic()
        self.connection, theirs = context.Pipe()
        _limit_reads(self.connection)
        self._stacks, stacks = context.Pipe(duplex=False)
        os.set_blocking(self._stacks.fileno(), False)
        os.set_blocking(stacks.fileno(), False)  # it must not wait for a reader while it crashes
        place = WorkerPlace(number, restarts, memory, heartbeat, stop, theirs, stacks)
        self.process: Any = context.Process(
            target=run_worker, args=(place, task), name=f"a3c-worker-{number}", daemon=True
        )
        try:
            # A task that the main script defines, and what it reports, are looked for there.
            with nullcontext() if task.__module__ == "__main__" else _main_left_alone():
                self.process.start()
            self.pid: int = self.process.pid or 0
            self.exit_handle = os.pidfd_open(self.pid)
        except BaseException:
            self.connection.close()
            self._stacks.close()
            raise
        finally:
            theirs.close()
            stacks.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return not self.closed and not connection.wait([self.exit_handle], 0)

    def give(self, slot: int) -> None:
        """Let it write a slot."""
        self._given.add(slot)
        if not self.finished and not self.closed:
            # If it died, the next look at its exit handle says so.
            with suppress(OSError):
                self.connection.send(slot)

    def give_all(self) -> None:
        """Let it write all its slots."""
        for slot in range(len(self._views)):
            self.give(slot)

    def take(self, slot: int) -> RolloutBatch:
        """Return a slot that it has announced."""
        self._given.discard(slot)
        return self._views[slot]

    def is_silent(self, timeout: float) -> bool:
        """Return whether it has been busy for so many seconds without a sign of life, as far as somebody looked.

        Its very first sign may take longer: before it, all that is imported is imported.

        Busy is who has a slot to write, learns, or is still setting up. A gap between two looks counts
        for a second at most: in an evaluation, or a whole machine that was halted, nobody looked.
        """
        now, beats = time.monotonic(), self._heartbeat.beats
        busy = bool(self._given) or not self.ready
        if beats != self._beats or not busy:
            self._silence = 0.0
        else:
            self._silence += min(now - self._looked, GLANCE_SECONDS)
        self._beats, self._looked = beats, now
        return self._silence > (timeout if beats != self._beats_before else max(timeout, IMPORT_SECONDS))

    def be_heard(self) -> None:
        """Count silence anew, as a message does."""
        self._silence = 0.0

    def stack(self) -> str:
        """Ask where it is, and return what it says: the stacks of its threads."""
        if self._is_stopped():
            return "it was stopped by a signal"
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.exit_handle, STACK_SIGNAL)
        select.select([self._stacks], [], [], STACK_SECONDS)
        time.sleep(0.01)  # the rest of the stack is written within microseconds
        return self.crash_report() or "it did not say where it is"

    def _is_stopped(self) -> bool:
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8") as file:
                return file.read().rpartition(")")[2].split()[0] in ("T", "t")
        except OSError:
            return False

    def crash_report(self) -> str:
        """Return what it wrote down of its stack, asked or in a crash."""
        words = b""
        with suppress(BlockingIOError):
            while part := os.read(self._stacks.fileno(), 65536):
                words += part
        lines = words.decode(errors="replace").strip().splitlines()
        return "\n".join(line for line in lines if not line.startswith("Extension modules:"))

    def dismiss(self) -> None:
        """Ask it to end."""
        if not self.finished:
            with suppress(OSError):
                self.connection.send(None)

    def end(self, grace: float) -> None:
        """Wait for its end, then kill it with all that its environments have started.

        Args:
            grace: seconds that it has to end by itself.

        Raises:
            RuntimeError: the kernel keeps it.
        """
        connection.wait([self.exit_handle], grace)
        # Its group, which outlives it in its children; and itself, in case it does not lead it yet.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.exit_handle, signal.SIGKILL)
        if not connection.wait([self.exit_handle], REAP_SECONDS):
            raise RuntimeError(f"worker {self.number}, process {self.pid}, cannot be killed")

    def messages_left(self) -> list[tuple[Any, ...]]:
        """Return what it has sent and nobody has read, once it is gone."""
        messages = []
        with suppress(EOFError, OSError):  # the second for a message that was cut short
            while self.connection.poll(0):
                messages.append(self.connection.recv())
        return messages

    def steps_lost(self) -> int:
        """Return the real env steps of the fragment that it was writing, once it is gone."""
        fragment = self._heartbeat.fragment
        if fragment is None or fragment[0] not in self._given:  # an announced one is not lost
            return 0
        slot, written = fragment
        return self._views[slot].real_steps(written)

    def close(self) -> str:
        """Free what it held here, once it is gone, and return what it wrote down of its stack."""
        words = self.crash_report()
        self.process.join(REAP_SECONDS)
        if self.process.exitcode is not None:
            self.exit_code = int(self.process.exitcode)
        self.connection.close()
        self._stacks.close()
        os.close(self.exit_handle)
        self.process.close()
        self.closed = True
        return words


def _limit_reads(pipe: connection.Connection) -> None:
    """Have a read fail with an OSError where the rest of a message does not come: its writer was stopped in it."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as ours:  # the option is the pipe's, whoever sets it
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", MESSAGE_SECONDS, 0))


def describe_end(code: int) -> str:
    """Describe how a process ended: by which signal, or with which status."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
