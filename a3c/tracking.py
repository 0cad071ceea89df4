"""The run's record in Weights & Biases, which may fail, hang or be killed without harm to the training."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import queue
import re
import signal
import ssl
import tempfile
import threading
import time
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np
import wandb
from lightning.pytorch.loggers import WandbLogger

PROJECT = "a3c"
# What a run waits for W&B in vain, in seconds: in all; for its server to answer, a start online, its service's end.
PATIENCE = 8.5
LOOK = 2.5
START = 4.5
END = 1.5
LEAST = 0.5  # granted to every wait, also when patience is used up; 10 s remain the bound
BACKLOG = 2000  # rows that may wait for W&B
LONGEST_TAG = 64  # characters

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Patience:
    """Seconds that a run waits for W&B in vain, in all; a wait that was rewarded costs nothing."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._left = seconds

    def wait(self, what: Callable[[], _T], at_most: float | None = None, spare: float = 0.0) -> _T:
        """Gives what a function of W&B's gives, called in a thread that can be left behind.

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


class RunTracker(WandbLogger):
    """Lightning's W&B logger, which no failure of W&B's can stop, and which logs counts as histograms.

    Rows go to W&B from a thread of their own, in order. The first thing that fails closes the
    tracker: one warning, then silence; metrics.csv goes on.

    Args:
        run: the W&B run; a disabled one if there is no W&B.
        patience: what the run still waits for W&B.
        folder: the run folder.
    """

    def __init__(self, run: wandb.Run, patience: Patience, folder: Path) -> None:
        super().__init__(experiment=run, project=PROJECT, save_dir=folder)
        self._run = run
        self._record = Path(run.dir).parent
        self._patience = patience
        self._services = _services()  # of a service that was killed the helpers are left, in its process group
        self._failed = threading.Event()
        self._finished = False
        self._rows: queue.Queue[dict[str, Any] | None] = queue.Queue(BACKLOG)
        self._thread = threading.Thread(target=self._send_rows, name="a3c-wandb", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The W&B run's id, by which it can be gone on with; None if nothing is recorded."""
        return None if self._run.disabled else self._run.id

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Sends nothing: the run was started with the whole configuration."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Queues a row; never waits, and never raises for W&B's sake."""
        if self._failed.is_set() or self._finished:
            return
        row = {key: _histogram(value) if isinstance(value, Mapping) else value for key, value in metrics.items()}
        if step is not None:
            row["trainer/global_step"] = step
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._fail(TimeoutError(f"{BACKLOG} rows wait for its service"))

    def finish(self, status: int, summary: Mapping[str, Any]) -> None:
        """Sends what is queued and the summary, and ends W&B in this process, within what patience is left.

        Its service too: left to the interpreter's end, that would wait for it, and the service may
        wait for a server that does not answer.

        Args:
            status: the process's exit status.
            summary: what the run came to.
        """
        if self._finished:
            return
        self._finished = True
        came_back = threading.Event()

        def close() -> None:
            try:
                self._rows.put(None)
                self._thread.join()
                if not self._failed.is_set():  # by one of the last rows
                    self._run.summary.update(dict(summary))
                    self._run.finish(exit_code=status)
            finally:
                came_back.set()

        try:
            if not self._failed.is_set():
                self._patience.wait(close, spare=END)
        except Exception as error:
            self._fail(error)
        except BaseException:  # a second Ctrl-C: the interpreter's end must not wait for W&B either
            self._failed.set()
            raise
        finally:
            if self.run_id is not None:
                # A service that answers, even if only that its server does not, first writes down what it has.
                kill = self._failed.is_set() and not came_back.is_set()
                _let_go(self._patience, self._run if self._failed.is_set() else None, kill, self._services)

    def _send_rows(self) -> None:
        while (row := self._rows.get()) is not None:
            if self._failed.is_set():
                continue  # so that whoever waits for room in the queue gets it
            try:
                self._run.log(row)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._failed.is_set():  # two threads may both get here, at worst with two warnings
            self._failed.set()
            _log.warning(
                "W&B failed, and gets nothing more of this run; metrics.csv is whole, "
                "and wandb sync %s uploads what W&B had: %s",
                self._record,
                _plain(error),
            )


def make_wandb_logger(
    folder: Path,
    *,
    env: str,
    estimator: str,
    mode: str,
    seed: int,
    config: Mapping[str, Any],
    name: str | None = None,
    run_id: str | None = None,
) -> RunTracker:
    """Starts a W&B run whose x-axis is env steps, and gives its Lightning logger.

    Its group is ENV/ESTIMATOR and its job type ESTIMATOR · MODE, unless WANDB_RUN_GROUP and
    WANDB_JOB_TYPE say otherwise; the tags of WANDB_TAGS come after its own.

    Online if W&B is logged in and answers, else offline, and where neither starts, not at all; each
    step down is one warning.

    Args:
        folder: the run folder; W&B writes into its wandb/.
        env: environment id.
        estimator: label of the return estimator.
        mode: update mode.
        seed: the run's seed.
        config: the whole configuration.
        name: the run's name, instead of ESTIMATOR-MODE-sSEED.
        run_id: W&B run to go on with: what is logged is appended to it, online at once, offline
            by `wandb sync` of both folders.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    # W&B's reports on itself: sent at the interpreter's end, which waits 10 s for a server that is silent.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    patience = Patience()

    def start(wandb_mode: str) -> wandb.Run:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=folder.absolute(),  # W&B's service may have been started in another working folder
            mode=wandb_mode,  # type: ignore[arg-type]
            group=os.environ.get("WANDB_RUN_GROUP") or f"{env}/{estimator}",
            job_type=os.environ.get("WANDB_JOB_TYPE") or f"{estimator} · {mode}",
            name=name or f"{estimator}-{mode}-s{seed}",
            tags=_tags([env, estimator, mode, *os.environ.get("WANDB_TAGS", "").split(",")]),
            config=dict(config),
            id=run_id,
            resume="allow" if run_id else None,
            settings=wandb.Settings(
                console="off",
                silent=True,
                init_timeout=START - 0.5,  # before we stop waiting: its own end leaves less behind
                finish_timeout=PATIENCE / 2,
                finish_timeout_raises=True,
            ),
        )
        # The axis first, and never Lightning's: updates are not comparable between estimators.
        run.define_metric("env_steps")
        run.define_metric("*", step_metric="env_steps", step_sync=True)
        return run

    try:
        run = _start_somehow(start, folder, patience)
    except BaseException:  # a Ctrl-C while it starts: the interpreter's end must not wait for it
        _let_go(patience)
        raise
    return RunTracker(run, patience, folder)


def _tags(words: Sequence[str]) -> list[str]:
    """Gives tags as W&B takes them: each once, none empty or longer than it allows."""
    return list(dict.fromkeys(word.strip()[:LONGEST_TAG] for word in words if word.strip()))


def _start_somehow(start: Callable[[str], wandb.Run], folder: Path, patience: Patience) -> wandb.Run:
    """Starts the run online, or offline, or disabled: the first of them that works."""
    mode = _choose_mode(patience)
    if mode != "disabled":
        try:
            _check_writable(folder / "wandb")
        except OSError as error:
            _log.warning("W&B is left out of this run: its folder cannot be written to: %s", _plain(error))
            mode = "disabled"
    if mode not in ("offline", "disabled"):
        try:
            return patience.wait(lambda: start(mode), START)
        except Exception as error:
            _log.warning("W&B did not start online; the run is kept offline, for wandb sync: %s", _plain(error))
            _let_go(patience)
            mode = "offline"
    if mode == "offline":
        try:
            return patience.wait(lambda: start(mode), spare=1.0)
        except Exception as error:
            _log.warning("W&B is left out of this run, it did not start: %s", _plain(error))
            _let_go(patience)
    return start("disabled")  # local, and without a service


def _choose_mode(patience: Patience) -> str:
    """Decides, before W&B is started, how it runs: WANDB_MODE, else online if logged in, else offline.

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
    """Tells whether an HTTP server answers; a gateway that says that nothing is behind it does not count."""
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


def _check_writable(folder: Path) -> None:
    """Raises OSError where W&B would fail, or silently write to the system's temporary folder."""
    folder.mkdir(exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def _let_go(patience: Patience, run: wandb.Run | None = None, kill: bool = True, services: Sequence[int] = ()) -> None:
    """Takes W&B out of this process, so that neither its next start nor the interpreter's end waits for it.

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

    services = [*services, *_services()]
    if kill:
        _kill_groups(services)
    with contextlib.suppress(Exception, SystemExit):
        patience.wait(forget, END)
    _kill_groups(services)


def _services() -> list[int]:
    """Process ids of W&B's services that this process has started; each leads a group with its helpers."""
    ours = os.getpid()
    return [process.pid for process in _wandb_processes() if process.name == "wandb-core" and process.parent == ours]


def _kill_groups(services: Collection[int]) -> None:
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


def _plain(error: BaseException) -> str:
    """The error's kind and first line, without key or credentials."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    key = os.environ.get("WANDB_API_KEY")
    if key:
        text = text.replace(key, "(key)")
    return re.sub(r"//[^/@\s]*@", "//", text)


def _histogram(counts: Mapping[int, int]) -> wandb.Histogram:
    """Gives a bin for every whole number, or at most W&B's 512 of them."""
    low, high = min(counts, default=0), max(counts, default=0)
    bins = min(high - low + 1, wandb.Histogram.MAX_LENGTH)
    heights, edges = np.histogram(list(counts), bins=bins, range=(low - 0.5, high + 0.5), weights=list(counts.values()))
    return wandb.Histogram(np_histogram=(heights, edges))
