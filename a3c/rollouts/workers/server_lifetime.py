"""Imported first by the fork server: it then ends with its parent, even in the middle of an import.

The server itself looks whether its parent is there only once it has imported all that workers need,
seconds later. Importing this anywhere else does nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal

PARENT_VARIABLE = "A3C_FORK_SERVER_OF"  # set for the server alone: process id of its parent
SAFE_PATH = "PYTHONSAFEPATH"  # set for the server, and not for what workers start
PR_SET_PDEATHSIG = 1


def signal_at_end_of(parent: int, number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, or end now if the parent is gone.

    Args:
        parent: process id of the parent.
        number: the signal.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(0)


def guard(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; other signals are the parent's affair."""
    for number in (signal.SIGTERM, signal.SIGUSR1):  # schedulers send them to every process
        signal.signal(number, signal.SIG_IGN)
    signal_at_end_of(parent, signal.SIGKILL)


if PARENT_VARIABLE in os.environ:
    os.environ.pop(SAFE_PATH, None)
    guard(int(os.environ.pop(PARENT_VARIABLE)))
