"""Processes of a run, found by a mark in their environment, and what they hold: memory, files, /dev/shm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MARK = "A3C_RUN_MARK"  # children inherit it, those of environments and orphans too; parentage would lose orphans
SHARED_MEMORY = Path("/dev/shm")


class Process(NamedTuple):
    """A process as /proc shows it.

    Attributes:
        pid: its id.
        parent: its parent's; 1, or that of a reaper, once the parent is gone.
        state: R, S, D, T (stopped), …
        command: its command line.
    """

    pid: int
    parent: int
    state: str
    command: str


class Usage(NamedTuple):
    """What all processes of a run hold together.

    Attributes:
        processes: how many they are.
        memory: bytes that processes have allocated, summed. What a worker still shares with the process it
            was forked from counts in both: to copy such a page when it is written is no growth.
        files: open file descriptors.
        shared: bytes of files in /dev/shm that are open or mapped, each once, deleted ones too.
    """

    processes: int
    memory: int
    files: int
    shared: int


def marked_environment(mark: str, **variables: str) -> dict[str, str]:
    """Gives this process's environment for a run that `processes_of` can find, without W&B's variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return {**kept, "WANDB_MODE": "disabled", MARK: mark, **variables}


def processes_of(mark: str) -> list[Process]:
    """Gives the living processes that carry a mark; one that is dead and not yet reaped is not among them."""
    wanted = f"\0{MARK}={mark}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in b"\0" + (folder / "environ").read_bytes() + b"\0":
                continue
            state, parent, *_ = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it is another user's, or has just ended
            continue
        if state not in "ZX":
            found.append(Process(int(folder.name), int(parent), state, command))
    return sorted(found)


def workers_of(mark: str) -> list[Process]:
    """Gives a run's workers: what its fork server forked, which runs under the same command line."""
    processes = processes_of(mark)
    servers = {process.pid for process in processes if "forkserver" in process.command}
    return [process for process in processes if process.parent in servers and "forkserver" in process.command]


def usage_of(mark: str) -> Usage:
    """Gives what a run holds at this moment."""
    pids = [process.pid for process in processes_of(mark)]
    shared: dict[int, int] = {}
    for pid in pids:
        shared |= _shared_files(pid)
    return Usage(len(pids), sum(map(_memory, pids)), sum(map(_files, pids)), sum(shared.values()))


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:")), 0)


def _files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _shared_files(pid: int) -> dict[int, int]:
    """Gives the bytes of each file in /dev/shm that a process has open or mapped, by inode."""
    sizes: dict[int, int] = {}
    try:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            if f" {SHARED_MEMORY}/" in line:
                addresses, _, offset, _, inode = line.split()[:5]
                first, last = (int(address, 16) for address in addresses.split("-"))
                sizes[int(inode)] = max(sizes.get(int(inode), 0), int(offset, 16) + last - first)
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(link).startswith(f"{SHARED_MEMORY}/"):
                status = link.stat()
                sizes[status.st_ino] = status.st_size
    except OSError:
        pass
    return sizes


def shared_names() -> set[str]:
    """Gives what has a name in /dev/shm."""
    return set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.exists() else set()


def wait_until(condition: Callable[[], object], seconds: float, what: str, interval: float = 0.01) -> float:
    """Waits until a condition is true, and gives the seconds that it took.

    Raises:
        TimeoutError: it did not become true in time.
    """
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(interval)
    return time.monotonic() - start


def seconds_until_gone(mark: str, seconds: float) -> float:
    """Waits until no process carries a mark, and gives the seconds that it took.

    Raises:
        TimeoutError: some are left; it names them.
    """
    start = time.monotonic()
    while left := processes_of(mark):
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"after {seconds} s there are still {left}")
        time.sleep(0.01)
    return time.monotonic() - start
