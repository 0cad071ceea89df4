"""Whether W&B can be reached, how long a run waits for it, and how it is taken out of the process after that."""

from __future__ import annotations

import concurrent.futures
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import wandb

# What a run waits for W&B in vain, in seconds: in all; for its server to answer; for its service's end.
PATIENCE = 8.5
LOOK = 2.5
END = 1.5
MODES = ("online", "offline", "disabled", "shared")  # that WANDB_MODE may say
LEAST = 0.5  # granted to every wait, also when patience is used up; 10 s remain the bound

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Patience:
    """Seconds that a run waits for W&B in vain, in all; a wait that was rewarded costs nothing."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._left = seconds

    def wait(self, what: Callable[[], _T], at_most: float = math.inf) -> _T:
        """Call a function of W&B's in a thread that can be left behind, and return its result.

        W&B waits without end in many places: for a service that was stopped, for an upload.

        Args:
            what: the function.
            at_most: bound on this wait, in seconds.

        Raises:
            TimeoutError: it has not come back; the thread is still at it.
            Exception: whatever the function raises.
        """
        limit = max(LEAST, min(self._left, at_most))
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def call() -> None:
            try:
                future.set_result(what())
            except BaseException as error:  # SystemExit too: wandb.teardown raises it
                future.set_exception(error)

        started = time.monotonic()
        # A daemon, unlike an executor's threads, for which the interpreter waits at its end.
        threading.Thread(target=call, name="a3c-wandb-wait", daemon=True).start()
        came_back = bool(concurrent.futures.wait([future], limit).done)
        if not came_back or future.exception() is not None:
            self._left = max(0.0, self._left - (time.monotonic() - started))
        if not came_back:
            raise TimeoutError(f"no answer within {limit:.1f} s")
        return future.result()


def choose_mode(patience: Patience) -> str:
    """Decide, before W&B is started, how it runs: WANDB_MODE, else online if logged in, else offline.

    It never asks: a prompt would stop a run that nobody watches. And online only if the server
    answers: a start that waits for it takes seconds, and then fails.
    """
    chosen = {"dryrun": "offline", "run": "online"}.get(wanted := os.environ.get("WANDB_MODE", ""), wanted)
    if chosen in ("offline", "disabled"):
        return chosen
    if chosen not in ("", *MODES):
        _log.warning("WANDB_MODE: got %r, must be one of %s; the run is kept offline", chosen, ", ".join(MODES))
        return "offline"
    host: str | None = "its server"

    def logged_in() -> bool:
        """Return whether somebody is; raise an error of any kind if the server does not answer."""
        nonlocal host
        if not wandb.login(prompt=False, verify=False):
            return False
        settings = wandb.setup().settings
        host = urlsplit(settings.base_url).hostname
        own = {scheme: proxy for scheme in ("http", "https") if (proxy := getattr(settings, f"{scheme}_proxy"))}
        with suppress(requests.exceptions.SSLError):  # somebody is there; W&B has certificates of its own
            answer = requests.get(settings.base_url, timeout=LOOK, proxies=own, stream=True, allow_redirects=False)
            answer.close()
            if answer.status_code in (502, 503, 504):  # a gateway with nothing behind it
                raise ConnectionError
        return True

    try:
        if patience.wait(logged_in, LOOK):
            return chosen or "online"
        if chosen:
            _log.warning("W&B: WANDB_MODE is %s, but nobody is logged in; the run is kept offline", chosen)
    except Exception:
        _log.warning("W&B: %s does not answer; the run is kept offline, for wandb sync", host)
    return "offline"


def let_go(patience: Patience, kill: bool = True) -> None:
    """Take W&B out of this process, so that neither its next start nor the interpreter's end waits for it.

    Args:
        patience: what the run still waits for W&B.
        kill: its service first, so that whatever waits for it fails at once, instead of when it
            has not ended in time. What it has written can still be synced.
    """
    services = _services()
    if kill:
        _kill(services)
    with suppress(Exception, SystemExit):  # it takes W&B's exit hook out, which would wait or print a traceback
        patience.wait(wandb.teardown, END)
    _kill(services)


def _services() -> list[int]:
    """Return the process ids of the W&B services that this process has started, also of those killed since."""
    children = [child for file in Path("/proc/self/task").glob("*/children") for child in _read(file).split()]
    return [int(child) for child in children if _read(Path(f"/proc/{child}/comm")) == "wandb-core\n"]


def _read(file: Path) -> str:
    """Read what /proc says of a thread or process; nothing of one that has just ended."""
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _kill(services: list[int]) -> None:
    """Kill services and their helpers: each leads a group with them, which outlives it."""
    for service in services:
        with suppress(OSError):
            os.killpg(service, signal.SIGKILL)
