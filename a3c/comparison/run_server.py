"""Starts Python programs at once: by forking them from one process that has imported what a training run needs.

A run of `scripts/train.py` imports for seconds, and a small one trains for less than one. Here the imports
are made once. What is forked is then what a fresh command would be: a process with its own session,
environment variables, folder, output and exit status, whose end touches no other.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing.process
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from a3c.comparison.programs import STATUS_UNKNOWN, Program, StartError
from a3c.rollouts.workers.fork_server import PRELOADED, THREAD_VARIABLES, fork_fork_server
from a3c.rollouts.workers.process_title import show_command
from a3c.rollouts.workers.server_lifetime import signal_at_end_of

# What a run needs, and what its workers and W&B import on the way.
IMPORTED = ("a3c.training.cli.command", *PRELOADED, "gymnasium.envs.classic_control", "wandb.apis.public")
ROOM = 16_384  # bytes for a program's command line and environment variables, as `ps` shows them
CLOSE_SECONDS = 5.0


class ForkedProcess:
    """A program that a server has forked, with what is used of `subprocess.Popen`.

    Until its end is noticed here the server leaves it unreaped: its process id is nobody else's.

    Args:
        server: that forked it.
        pid: its process id, which is also that of its session and process group.

    Attributes:
        returncode: its exit status, -n after signal n; None while it runs.
    """

    def __init__(self, server: RunServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self._handle = os.pidfd_open(pid)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        if self.returncode is None and select.select([self._handle], [], [], 0)[0]:
            self.returncode = self._server.reap(self.pid)
            os.close(self._handle)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit status.

        Args:
            timeout: seconds; None for ever.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            select.select([self._handle], [], [], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended; asks nothing of the server, so a signal handler may call it."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """Kill it, with all processes of its group."""
        if self.poll() is None:  # and so it is unreaped
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class RunServer:
    """The process that programs are forked from, as its parent sees it; started at once, and not waited for.

    It ends with the thread that made it. When it ends, however that happens, the kernel sends SIGINT to what it forked.

    Args:
        environment: its environment variables; this process's by default.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            words = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(os.getpid()), " " * ROOM]
            self._process = subprocess.Popen(
                words,
                env={**(os.environ if environment is None else environment), "A3C_ROOM": "-" * ROOM},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is not for it
            )
        self._channel = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def start(self, program: Program) -> ForkedProcess:
        """Fork a program; the first one waits for the imports.

        What Python and libraries read when they are started or imported, they have read in the server's environment.

        Raises:
            StartError: the server is gone, or has threads, whose locks a fork could copy in any state.
        """
        answer = self._ask(program)
        if isinstance(answer, str):
            raise StartError(answer)
        return ForkedProcess(self, answer)

    def reap(self, pid: int) -> int:
        """Return the exit status of a program that has ended; `STATUS_UNKNOWN` if the server is gone."""
        try:
            return int(self._ask(pid))
        except StartError:
            return STATUS_UNKNOWN

    def _ask(self, request: Program | int) -> int | str:
        try:
            self._channel.send(request)
            answer: int | str = self._channel.recv()
        except (EOFError, OSError) as error:
            raise StartError("the process that runs are forked from has ended") from error
        return answer

    def close(self) -> None:
        """End the server, which interrupts what it forked and still runs."""
        self._channel.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:  # in the middle of an import, say
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Import all, then fork what the parent asks for; a forked program returns from here as its script ends."""
    descriptor, parent = (int(word) for word in sys.argv[1:3])
    signal_at_end_of(parent, signal.SIGKILL)
    show_command([*sys.orig_argv[:4], "server"])
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no collection goes through what was imported, which would copy its pages into every program
    channel, server = Connection(descriptor), os.getpid()
    program = _serve(channel)
    if program is not None:
        _become(program, channel, server)
        runpy.run_path(program.command[1], run_name="__main__")


def _serve(channel: Connection) -> Program | None:
    """Answer requests; return the program in the process that is forked for it, None once the parent is gone."""
    while True:
        try:
            request: Program | int = channel.recv()
        except EOFError:
            return None
        if isinstance(request, int):
            channel.send(os.waitstatus_to_exitcode(os.waitpid(request, 0)[1]))
        elif len(threads := list(Path("/proc/self/task").iterdir())) > 1:
            names = ", ".join((thread / "comm").read_text(encoding="utf-8").strip() for thread in threads)
            channel.send(f"the process that runs are forked from has {len(threads)} threads: {names}")
        elif os.fork() == 0:
            return request


def _become(program: Program, channel: Connection, server: int) -> None:
    """Make this process, which was just forked from the server, what a fresh command would be."""
    os.setsid()
    signal_at_end_of(server, signal.SIGINT)
    channel.send(os.getpid())  # its session is there, so it can be killed by its group
    channel.close()
    os.chdir(program.folder)
    for path, descriptors in ((program.output, [1, 2]), (program.errors, [2])):
        if path is not None:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            for descriptor in descriptors:
                os.dup2(file, descriptor)
            os.close(file)
    os.environ.clear()
    os.environ.update(program.environment)
    show_command(program.command, program.environment)
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()  # type: ignore[attr-defined]
    tempfile.tempdir = None
    script = os.path.abspath(program.command[1])
    sys.argv, sys.orig_argv = list(program.command[1:]), list(program.command)
    sys.path.insert(0, os.path.dirname(script))
    # Python's generator draws itself a seed after a fork; these would go on from the server's.
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].default_generator.seed()
    fork_fork_server()


if __name__ == "__main__":
    main()
