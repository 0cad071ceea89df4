"""What a schedule starts: a program, how one is started, and what can be done with one that runs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from a3c.rollouts.workers.server_lifetime import signal_at_end_of

STATUS_UNKNOWN = 255  # of a program whose end nobody saw


class Program(NamedTuple):
    """A Python program that is to be started.

    Attributes:
        command: Python, the script's file and its arguments.
        environment: all of its environment variables.
        folder: in which it runs.
        output: file for what it prints, written anew.
        errors: file for its errors; None for the same.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    output: Path
    errors: Path | None = None


class StartError(RuntimeError):
    """Programs cannot be started in this way, now or later."""


class RunningProgram(Protocol):
    """A program that was started, in a session of its own.

    Attributes:
        returncode: its exit status, -n after signal n; None while it runs.
    """

    returncode: int | None

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, unless it has ended. A signal handler may call this."""
        ...

    def kill(self) -> None:
        """Kill it, with all processes of its group."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        ...


class Starter(Protocol):
    """A way to start programs."""

    def start(self, program: Program) -> RunningProgram:
        """Start a program.

        Raises:
            StartError: this can start none, now or later.
        """
        ...


class FreshCommand(subprocess.Popen[bytes]):
    """A program that was started as a command."""

    def kill(self) -> None:
        """Kill it, with all processes of its group."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class FreshCommands:
    """Starts each program as a command on this machine; the kernel sends it SIGINT when this process ends."""

    def start(self, program: Program) -> FreshCommand:
        """Start a program; where it asks for no other file, its errors go to its output."""
        with program.output.open("wb") as output, (program.errors or Path(os.devnull)).open("wb") as errors:
            return FreshCommand(
                program.command,
                cwd=program.folder,
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors if program.errors else subprocess.STDOUT,
                start_new_session=True,
                # No thread is alive here that a fork could leave a lock of behind.
                preexec_fn=partial(signal_at_end_of, os.getpid(), signal.SIGINT),
            )
