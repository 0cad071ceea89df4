"""Runs programs side by side, each in a process of its own, and leaves none behind."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from a3c.comparison.programs import FreshCommands, Program, RunningProgram, Starter, StartError

INTERVAL = 0.05  # seconds between two looks at the processes
GRACE_SECONDS = 60.0  # in which a program that was told to stop may save; a second signal does not wait
LAST_SECONDS = 5.0
KILL_SECONDS = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
USAGE_ERROR = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A program that is to be run.

    Attributes:
        name: how it is called in messages.
        command: its words.
        output: file for what it prints; its folder is made.
        environment: all of its environment variables.
    """

    name: str
    command: tuple[str, ...]
    output: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        name: of its task.
        status: its exit status, negative for a signal.
        seconds: how long it ran.
        reason: the last line of its error; empty after status 0.
    """

    name: str
    status: int
    seconds: float
    reason: str


@dataclass
class _Running:
    task: Task
    process: RunningProgram
    started: float


class Schedule:
    """Runs tasks, some at a time, until all have ended or a signal stops them.

    One signal (SIGINT, SIGTERM or SIGHUP) sends SIGINT to what runs, and nothing more is started; a second
    one does so again, at which a run of `scripts/train.py` leaves at once. Programs run in sessions of
    their own, so that a terminal's Ctrl-C reaches them once, through here; should this process be
    killed, or whatever has started them, they get SIGINT.

    Args:
        tasks: in the order of their start.
        jobs: how many at the same time.
        watch: called at each look, with the names of what runs and with outcomes that are new.
        starter: that starts them; if it no longer can, they are started as fresh commands.

    Attributes:
        signal: the signal that ended the schedule, or None.
        outcomes: of all tasks that have ended by themselves or were stopped.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        jobs: int,
        watch: Callable[[Sequence[str], Sequence[Outcome]], None],
        starter: Starter | None = None,
    ) -> None:
        self._waiting, self._jobs, self._watch = deque(tasks), jobs, watch
        self._starter: Starter = starter or FreshCommands()
        self._running: list[_Running] = []
        self._signals = 0
        self._stop_at: float | None = None
        self.signal: signal.Signals | None = None
        self.outcomes: list[Outcome] = []

    def run(self) -> list[Outcome]:
        """Run them all; return the outcomes in the order of their end.

        What is refused for its command line (status 2) before anything has succeeded would be refused again:
        then nothing more is started.
        """
        # What nohup wants is respected; SIGINT is heeded also where a shell ignores it for background jobs.
        passed_over = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        heeded = [number for number in SIGNALS if number not in passed_over]
        previous = {number: signal.signal(number, self._handle) for number in heeded}
        try:
            while self._running or (self._waiting and not self._signals):
                while self._waiting and len(self._running) < self._jobs and not self._signals:
                    self._running.append(self._start(self._waiting.popleft()))
                    if self._signals:  # which came while it was started, and reached only the others
                        self._running[-1].process.send_signal(signal.SIGINT)
                ended = self._reap()
                self.outcomes += ended
                if any(one.status == USAGE_ERROR for one in ended) and all(one.status for one in self.outcomes):
                    self._waiting.clear()
                self._watch([one.task.name for one in self._running], ended)
                if self._stop_at is not None and time.monotonic() > self._stop_at:
                    self._end_all()  # what was told to stop and has not
                time.sleep(INTERVAL)
        finally:
            self._end_all()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self.outcomes

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)
        self._signals += 1
        self._stop_at = time.monotonic() + (GRACE_SECONDS if self._signals == 1 else LAST_SECONDS)
        for one in self._running:
            one.process.send_signal(signal.SIGINT)

    def _start(self, task: Task) -> _Running:
        started = time.monotonic()
        task.output.parent.mkdir(parents=True, exist_ok=True)
        program = Program(task.command, dict(task.environment), Path.cwd(), task.output)
        try:
            process = self._starter.start(program)
        except StartError as error:
            log.warning("%s; further runs are started as fresh commands", error)
            self._starter = FreshCommands()
            process = self._starter.start(program)
        return _Running(task, process, started)

    def _reap(self) -> list[Outcome]:
        ended = [(one, status) for one in self._running if (status := one.process.poll()) is not None]
        self._running = [one for one in self._running if one.process.returncode is None]
        return [
            Outcome(one.task.name, status, time.monotonic() - one.started, _reason(status, one.task.output))
            for one, status in ended
        ]

    def _end_all(self) -> None:
        left = [one for one in self._running if one.process.poll() is None]
        for one in left:
            log.warning("%s did not stop, and was killed", one.task.name)
            one.process.kill()
        for one in left:
            with suppress(subprocess.TimeoutExpired):  # on a machine that no longer answers, perhaps
                one.process.wait(KILL_SECONDS)


def last_error(output: Path) -> str:
    """Return the last line that a program printed; the one before it where the last only says how far it came."""
    lines = [line.strip() for line in output.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("error: failed after ")]
    return (telling or lines or ["it printed nothing"])[-1]


def _reason(status: int, output: Path) -> str:
    if status == 0:
        return ""
    line = last_error(output)
    return f"{signal.Signals(-status).name}: {line}" if status < 0 else line
