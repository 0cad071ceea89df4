"""Signs of life of environments in this process, and an end to what one does not come back from.

Workers are watched by their pool. But the environments of an evaluation, of `sync`, and the one that
is made to look at its spaces live in the main process, which nobody else watches.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

_listeners: list[Callable[[], None]] = []  # to signs of life; the last one to come is told
WAKE_UP = signal.SIGVTALRM  # not the alarm of the real time, which others use


def listen(listener: Callable[[], None]) -> None:
    """Have somebody told of every sign of life, instead of whoever was told before."""
    _listeners.append(listener)


def sign_of_life() -> None:
    """Say that an environment of this process has come back from a call."""
    if _listeners:
        _listeners[-1]()


class HangError(RuntimeError):
    """An environment in the main process gave no sign of life; its traceback shows where it is."""


class StepWatch:
    """Raises in the main thread when it is silent for too long, while it is inside `with`.

    A thread looks at the clock, and a signal breaks off what the main thread waits for. What runs in
    C without letting other threads run cannot be broken off.

    Args:
        timeout: seconds without a `beat`, > 0.
        what: what is watched, for the message.
    """

    def __init__(self, timeout: float, what: str) -> None:
        self._timeout = timeout
        self._what = what
        self._beaten = 0.0
        self._left = threading.Event()
        self._previous: Any = None
        self._watching = False

    def beat(self) -> None:
        """Say that the main thread is alive."""
        self._beaten = time.monotonic()

    def rest(self) -> None:
        """Do not look until the next `beat`."""
        self._beaten = math.inf

    def __enter__(self) -> Self:
        self.beat()
        if threading.current_thread() is threading.main_thread():  # a signal reaches no other
            self._watching = True
            listen(self.beat)
            self._previous = signal.signal(WAKE_UP, self._raise)
            self._left.clear()
            threading.Thread(target=self._watch, name="a3c-step-watch", daemon=True).start()
        return self

    def _watch(self) -> None:
        while not self._left.wait(min(1.0, self._timeout / 4)):
            if time.monotonic() - self._beaten > self._timeout:
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE_UP)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if not self._left.is_set() and time.monotonic() - self._beaten > self._timeout:
            self.beat()  # what handles the error has as long again
            raise HangError(f"{self._what} gave no sign of life for {self._timeout:g} s (worker_timeout)")

    def __exit__(self, *error: object) -> None:
        self._left.set()
        if self._watching:
            _listeners.remove(self.beat)
            signal.signal(WAKE_UP, self._previous)
            self._watching = False
