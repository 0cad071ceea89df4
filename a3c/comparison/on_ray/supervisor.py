"""Runs one Python program and sees to its end: ``python -m a3c.comparison.on_ray.supervisor SCRIPT ARGUMENTS``.

An actor cannot be the program's parent: Ray kills the children of an actor that it ends, and a run must have the time
to save. This process is killed in its place, and the kernel then sends the program SIGINT. Each byte on standard
input is the number of a signal for the program; its end, as when the actor is gone, stands for SIGINT.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial

from a3c.rollouts.workers.server_lifetime import signal_at_end_of

ORDERS = 0  # file descriptor: standard input


def main() -> int:
    """Run the program; return its exit status, or end by the signal that it has ended by."""
    # Ray blocks SIGINT in what it starts on this machine, and both would be inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program = subprocess.Popen(
        [sys.executable, *sys.argv[1:]],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=partial(signal_at_end_of, os.getpid(), signal.SIGINT),  # this process has no other thread
    )
    heard = [ORDERS, os.pidfd_open(program.pid)]
    while program.poll() is None:
        if ORDERS not in select.select(heard, [], [])[0]:
            continue
        orders = os.read(ORDERS, 64)
        if not orders:
            heard.remove(ORDERS)
        for number in orders or [signal.SIGINT]:
            _send(program, number)
    status = program.wait()
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler that could be set
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _send(program: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a program that is not reaped; SIGKILL to all of its group."""
    if program.poll() is not None:
        return
    if number == signal.SIGKILL:
        os.killpg(program.pid, number)
    else:
        program.send_signal(number)


if __name__ == "__main__":
    sys.exit(main())
