"""What runs on the nodes: the actor that starts one run there, and the look for files that a run needs."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

from a3c.comparison.programs import Program

SEEN_SECONDS = 5.0  # in which a file that was written on one machine is seen on another
FREE_SECONDS = 90.0  # in which a run whose node was lost may save, and its lock is given up
LOOK_SECONDS = 0.1


class RunActor:
    """Starts one program on its node, with the node's own Python, and waits for its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a signal comes in a thread of its own, and perhaps before the start is over
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def node(self) -> str:
        """Return the name and address of the node."""
        import ray

        return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"

    def run(self, program: Program, again: bool) -> int:
        """Run the program; return its exit status, -n after signal n.

        Args:
            program: what is run; its own Python is not used.
            again: whether it ran on a node that was lost, so that its output goes on.

        Raises:
            OSError: it cannot be started here.
        """
        with program.output.open("ab") as output:
            self._await_its_end(output)
            if not again:
                output.truncate(0)
            with self._lock:
                if self._stopped:
                    return -signal.SIGINT
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "a3c.comparison.on_ray.supervisor", *program.command[1:]],
                    cwd=program.folder,
                    env=dict(program.environment),  # this actor's own has Ray's variables in it
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    bufsize=0,
                )
        return self._process.wait()

    def send(self, number: int) -> None:
        """Send the program a signal; SIGKILL goes to all processes of its group."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.stdin is not None:
                with suppress(OSError):  # it has ended
                    self._process.stdin.write(bytes([number]))

    def _await_its_end(self, output: BinaryIO) -> None:
        """Wait until no process, on whichever node, writes to the output; lock it for what is started next.

        A run whose node is lost may still live and save. All that it has started has inherited its lock.
        """
        deadline = time.monotonic() + FREE_SECONDS
        while not self._stopped and time.monotonic() < deadline:
            try:
                fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOOK_SECONDS)
            except OSError:
                return  # a file system without locks
            else:
                return


def first_missing(paths: Sequence[str]) -> str | None:
    """Return the first path that is not there, None if all are; what was written elsewhere is given time to be seen."""
    deadline = time.monotonic() + SEEN_SECONDS
    for path in paths:
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                return path
            time.sleep(LOOK_SECONDS)
    return None
