"""Whether W&B can be reached, how long a run waits for it, and how it is taken out of the process after that."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import signal
import ssl
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import wandb

# What a run waits for W&B in vain, in seconds: in all; for its server to answer; for its service's end.
PATIENCE = 8.5
LOOK = 2.5
END = 1.5
LEAST = 0.5  # granted to every wait, also when patience is used up; 10 s remain the bound

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Patience:
    """Seconds that a run waits for W&B in vain, in all; a wait that was rewarded costs nothing."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._left = seconds

    def wait(self, what: Callable[[], _T], at_most: float | None = None, spare: float = 0.0) -> _T:
        """Return what a function of W&B's gives, called in a thread that can be left behind.

        W&B waits without end in many places: for a service that was stopped, for an upload.

        Args:
            what: the function.
            at_most: bound on this wait, in seconds; without it, all that is left.
            spare: seconds that are kept for later waits.

        Raises:
            TimeoutError: it has not come back; the thread is still at it.
            Exception: whatever the function raises.
        """
        limit = max(LEAST, min(self._left - spare, at_most if at_most is not None else self._left))
        given: list[_T] = []
        raised: list[BaseException] = []

        def call() -> None:
            try:
                given.append(what())
            except BaseException as error:  # SystemExit too: wandb.teardown raises it
                raised.append(error)

        # A daemon, so that the interpreter does not wait for it at the end.
        thread = threading.Thread(target=call, name="a3c-wandb-wait", daemon=True)
        started = time.monotonic()
        thread.start()
        thread.join(limit)
        if given:
            return given[0]
        self._left = max(0.0, self._left - (time.monotonic() - started))
        raise raised[0] if raised else TimeoutError(f"no answer within {limit:.1f} s")


def choose_mode(patience: Patience) -> str:
    """Decide, before W&B is started, how it runs: WANDB_MODE, else online if logged in, else offline.

    It never asks: a prompt would stop a run that nobody watches. And online only if the server
    answers: a start that waits for it takes minutes, and then fails.
    """
    chosen = {"dryrun": "offline", "run": "online"}.get(wanted := os.environ.get("WANDB_MODE", ""), wanted)
    if chosen in ("offline", "disabled"):
        return chosen
    host: str | None = "its server"

    def logged_in() -> bool:
        if not wandb.login(prompt=False, verify=False):
            return False
        nonlocal host
        settings = wandb.setup().settings
        host = urlsplit(settings.base_url).hostname
        if not _answers(settings.base_url, settings.http_proxy, settings.https_proxy):
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


def _answers(url: str, http_proxy: str | None, https_proxy: str | None) -> bool:
    """Tell whether an HTTP server answers; a gateway that says that nothing is behind it does not count."""
    parts = urlsplit(url)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    own = {scheme: proxy for scheme, proxy in (("http", http_proxy), ("https", https_proxy)) if proxy}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({**urllib.request.getproxies(), **own}))
    try:
        opener.open(url, timeout=LOOK).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code not in (502, 503, 504)
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # somebody is there; W&B has certificates of its own
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


def check_writable(folder: Path) -> None:
    """Raise OSError where W&B would fail, or silently write to the system's temporary folder."""
    folder.mkdir(exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def let_go(patience: Patience, run: wandb.Run | None = None, kill: bool = True, services: Sequence[int] = ()) -> None:
    """Take W&B out of this process, so that neither its next start nor the interpreter's end waits for it.

    Args:
        patience: what the run still waits for W&B.
        run: a run that could not be finished.
        kill: its service first, so that whatever waits for it fails at once, instead of when it
            has not ended in time. What it has written can still be synced.
        services: process ids of services that may be dead by now, and their helpers not.
    """

    def forget() -> None:
        if run is not None:
            with contextlib.suppress(Exception):
                run.finish()  # takes it out of wandb.run
        wandb.teardown()  # takes W&B's exit hook out, which would wait for the service or print a traceback

    services = [*services, *service_ids()]
    if kill:
        kill_groups(services)
    with contextlib.suppress(Exception, SystemExit):
        patience.wait(forget, END)
    kill_groups(services)


def service_ids() -> list[int]:
    """Process ids of W&B's services that this process has started; each leads a group with its helpers."""
    ours = os.getpid()
    return [process.pid for process in _wandb_processes() if process.name == "wandb-core" and process.parent == ours]


def kill_groups(services: Collection[int]) -> None:
    """Kill services and their helpers, which are left where a service was killed."""
    for process in _wandb_processes():
        if process.group in services:
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)


class _Process(NamedTuple):
    pid: int
    name: str
    parent: int
    group: int


def _wandb_processes() -> list[_Process]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
            if name.startswith("wandb-"):
                _, parent, group, *_ = fields.split()
                found.append(_Process(int(pid), name, int(parent), int(group)))
    return found
