"""Ends a worker, and all that its environments have started, at the moment its parent is gone."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import select
import signal
import threading

ORPHANED = 3  # exit status of a worker whose parent is gone
F_SETSIG = 10  # Linux's number, which Python's fcntl does not name


def lead_group() -> None:
    """Make this process the leader of a process group, which what it starts belongs to."""
    os.setpgid(0, 0)


def end_with_parent() -> None:
    """Have this process's group killed when the parent ends, however it ends.

    The parent holds the other end of a pipe. When it closes, which the kernel sees to, the kernel
    itself sends SIGKILL to the whole group: no thread of ours has to run for that, so it works while
    an environment keeps the interpreter locked. (PR_SET_PDEATHSIG would look at the fork server
    instead, and spare the group.)
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    pipe: int = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(pipe, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it ended before the kernel was told
        _end_group()
    # Where the kernel does not keep to it (it is a Linux affair), a thread does what it can.
    threading.Thread(target=_watch, args=(pipe,), daemon=True).start()


def _watch(pipe: int) -> None:
    select.select([pipe], [], [])
    _end_group()


def _end_group() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(ORPHANED)
