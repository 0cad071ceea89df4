"""What other processes see of a forked one in /proc and `ps`: the command that it stands for, not its parent's."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path


def show_command(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Write a command line, and environment variables, over those that this process was started with.

    Linux shows the memory in which they were handed over, so as much of them is seen as has room there.
    Only for a process whose environment variables have been set anew, so that nothing reads the old ones.

    Args:
        command: its words.
        environment: its variables; None leaves what is seen of them.
    """
    places = [
        int(field) for field in Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[45:49]
    ]
    _write(places[0], places[1], command)
    if environment is not None:
        _write(places[2], places[3], [f"{name}={value}" for name, value in environment.items()])


def _write(start: int, end: int, words: Sequence[str]) -> None:
    room = max(end - start, 1) - 1  # the last byte stays zero, or Linux reads on behind it
    text = b"\0".join(word.encode(errors="surrogateescape") for word in words)[:room]
    if start:  # 0 where the kernel does not say
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, text, len(text))
