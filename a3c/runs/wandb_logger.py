"""The run's record in Weights & Biases, which may fail, hang or be killed without harm to the training."""

from __future__ import annotations

import logging
import os
import queue
import re
import shutil
import tempfile
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from lightning.pytorch.loggers import WandbLogger

from a3c.runs.wandb_service import END, PATIENCE, Patience, choose_mode, let_go

PROJECT = "a3c"
START = 4.5  # seconds that a run waits for a start online
START_OFFLINE = 30.0  # for one that needs nobody but this machine, which may be busy
BACKLOG = 2000  # jobs that may wait for W&B
MOST_ALERTS = 5  # of one run
TITLE, TEXT = 63, 1000  # characters of an alert
LONGEST_TAG = 64  # characters

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WandbOptions:
    """What W&B gets on demand.

    Attributes:
        histograms_every: updates from one set of histograms of weights and gradients to the next, ≥ 1;
            null for none.
        artifacts: keep last.ckpt and best.ckpt as an artifact at the end of the run.

    Raises:
        ValueError: histograms_every < 1.
    """

    histograms_every: int | None = None
    artifacts: bool = False

    def __post_init__(self) -> None:
        if self.histograms_every is not None and self.histograms_every < 1:
            raise ValueError(f"histograms_every: got {self.histograms_every}, must be at least 1, or null")


class RunTracker(WandbLogger):
    """Lightning's W&B logger, which no failure of W&B's can stop, and which logs counts as histograms.

    All that goes to W&B does so from a thread of its own, in order. The first row that fails closes the
    tracker: one warning, then silence; metrics.csv goes on. Media, alerts and checkpoints that fail cost
    a warning and nothing else, and they take at most half of the queue, so that rows find room.

    Args:
        run: the W&B run; a disabled one if there is no W&B.
        patience: what the run still waits for W&B.
        folder: the run folder.
    """

    takes_counts = True  # by value, as histograms

    def __init__(self, run: wandb.Run, patience: Patience, folder: Path) -> None:
        super().__init__(experiment=run, project=PROJECT, save_dir=folder)
        self._run = run
        self._record = Path(run.dir).parent
        self._patience = patience
        self._failed = threading.Event()
        self._finished = False
        self._alerts = 0
        self._crowded = False  # the one warning of what found no room is given
        # What W&B is to be told; what has a name can be left out, with a warning.
        self._jobs: queue.SimpleQueue[tuple[Callable[[], object], str | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="a3c-wandb", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The W&B run's id, by which it can be gone on with; None if nothing is recorded."""
        return None if self._run.disabled else self._run.id

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Send nothing: the run was started with the whole configuration."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Queue a row; never waits, and never raises for W&B's sake."""
        row = {key: _histogram(value) if isinstance(value, Mapping) else value for key, value in metrics.items()}
        if step is not None:
            row["trainer/global_step"] = step
        self._queue(lambda: self._run.log(row))

    def log_media(self, rows: Mapping[str, Any], env_steps: int) -> None:
        """Queue images, videos, tables or histograms; never waits, and never raises for W&B's sake.

        A file that one is made of must stay where it is until the run ends.

        Args:
            rows: `wandb.Image`, `wandb.Video`, `wandb.Table`, `wandb.Histogram` and the like, by key.
            env_steps: where they stand on the x-axis.
        """
        row = {**rows, "env_steps": float(env_steps)}
        self._queue(lambda: self._run.log(row), ", ".join(rows))

    def alert(self, title: str, text: str) -> None:
        """Queue an alert, which W&B sends by mail or to a chat; the first `MOST_ALERTS` of a run only."""
        if self._alerts < MOST_ALERTS:
            self._alerts += 1
            title, text = (_without_secrets(part)[:most] for part, most in ((title, TITLE), (text, TEXT)))
            self._queue(lambda: self._run.alert(title, text, "ERROR"), f"the alert {title!r}")

    def log_checkpoints(self, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Queue checkpoints as one artifact; never waits, and never raises for W&B's sake.

        The record keeps a copy of each file, so that `wandb sync` finds it whatever is saved later.

        Args:
            files: by alias.
            metadata: what the artifact says of them.
        """

        def send() -> None:
            artifact = wandb.Artifact(f"checkpoints-{self._run.id}", "model", metadata=dict(metadata))
            kept = self._record / "checkpoints"
            kept.mkdir(exist_ok=True)
            for file in files.values():  # as immutable: else W&B copies it once more, into the home folder
                artifact.add_file(str(shutil.copy(file, kept)), policy="immutable")
            self._run.log_artifact(artifact, aliases=list(files))

        if files and self.run_id is not None:
            self._queue(send, "the checkpoints")

    def _queue(self, call: Callable[[], object], name: str | None = None) -> None:
        if self._failed.is_set() or self._finished:
            return
        waiting = self._jobs.qsize()  # only the main thread adds to them
        if waiting < (BACKLOG if name is None else BACKLOG // 2):
            self._jobs.put((call, name))
        elif name is None:
            self._fail(TimeoutError(f"{BACKLOG} rows wait for its service"))
        elif not self._crowded:
            self._crowded = True
            _log.warning("W&B does not get %s: %d jobs wait", name, waiting)

    def finish(self, status: int, summary: Mapping[str, Any]) -> None:
        """Send what is queued and the summary, and end W&B in this process, within what patience is left.

        Its service too: left to the interpreter's end, that would wait for it, and the service may
        wait for a server that does not answer.

        Args:
            status: the process's exit status.
            summary: what the run came to.
        """
        if self._finished:
            return
        self._finished = True
        had_failed = self._failed.is_set()

        def close() -> None:
            self._run.summary.update(dict(summary))
            self._run.finish(exit_code=status)

        self._jobs.put((close, None))
        self._jobs.put(None)
        try:
            if not had_failed:
                self._patience.wait(self._thread.join, PATIENCE - END)
        except TimeoutError as error:
            self._fail(error)
        except BaseException:  # a second Ctrl-C: the interpreter's end must not wait for W&B either
            self._failed.set()
            raise
        finally:
            if self.run_id is not None:
                # A service that answers, even if only that its server does not, first writes down what it has.
                let_go(self._patience, had_failed or (self._failed.is_set() and self._thread.is_alive()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, name = job
            try:
                if not self._failed.is_set():
                    call()
            except Exception as error:
                if name is None:
                    self._fail(error)
                else:  # if it was W&B's service that failed, the next row will say so
                    _log.warning("W&B does not get %s: %s", name, _plain(error))

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
    """Start a W&B run whose x-axis is env steps, and return its Lightning logger.

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
        name: the run's name, instead of WANDB_NAME or ESTIMATOR-MODE-sSEED.
        run_id: W&B run to go on with: what is logged is appended to it, online at once, offline
            by `wandb sync` of both folders.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    # W&B's reports on itself: sent at the interpreter's end, which waits 10 s for a server that is silent.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # Out of W&B's sight, which raises at tags that it does not take: none empty or too long, each once.
    words = [env, estimator, mode, *os.environ.pop("WANDB_TAGS", "").split(",")]
    tags = list(dict.fromkeys(word.strip()[:LONGEST_TAG] for word in words if word.strip()))
    patience = Patience()

    def start(wandb_mode: str) -> wandb.Run:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=folder.absolute(),  # W&B's service may have been started in another working folder
            mode=wandb_mode,  # type: ignore[arg-type]
            group=os.environ.get("WANDB_RUN_GROUP") or f"{env}/{estimator}",
            job_type=os.environ.get("WANDB_JOB_TYPE") or f"{estimator} · {mode}",
            name=name or os.environ.get("WANDB_NAME") or f"{estimator}-{mode}-s{seed}",
            tags=tags,
            config=dict(config),
            id=run_id,
            resume="allow" if run_id else None,
            settings=wandb.Settings(
                console="off",
                # Before we stop waiting: its own end leaves less behind.
                init_timeout=(START_OFFLINE if wandb_mode == "offline" else START) - 0.5,
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
        let_go(patience)
        raise
    return RunTracker(run, patience, folder)


def _start_somehow(start: Callable[[str], wandb.Run], folder: Path, patience: Patience) -> wandb.Run:
    """Start the run online, or offline, or disabled: the first of them that works."""
    mode = choose_mode(patience)
    if mode != "disabled":
        try:
            (folder / "wandb").mkdir(exist_ok=True)  # where it cannot write, W&B fails or takes the temporary folder
            tempfile.TemporaryFile(dir=folder / "wandb").close()
        except OSError as error:
            _log.warning("W&B is left out of this run: its folder cannot be written to: %s", _plain(error))
            mode = "disabled"
    steps = {
        mode: (patience, START, "W&B did not start online; the run is kept offline, for wandb sync: %s"),
        "offline": (Patience(START_OFFLINE), START_OFFLINE, "W&B is left out of this run, it did not start: %s"),
    }
    for step, (waiting, most, warning) in steps.items() if mode != "disabled" else ():
        try:
            return waiting.wait(partial(start, step), most)
        except Exception as error:
            _log.warning(warning, _plain(error))
            let_go(patience)
    return start("disabled")  # local, and without a service


def _plain(error: BaseException) -> str:
    """The error's kind and first line, without key or credentials."""
    return _without_secrets(f"{type(error).__name__}: {error}".splitlines()[0])


def _without_secrets(text: str) -> str:
    key = os.environ.get("WANDB_API_KEY")
    if key:
        text = text.replace(key, "(key)")
    return re.sub(r"//[^/@\s]*@", "//", text)


def _histogram(counts: Mapping[int, int]) -> wandb.Histogram:
    """Return a bin for every whole number, or at most W&B's 512 of them."""
    low, high = min(counts, default=0), max(counts, default=0)
    bins = min(high - low + 1, wandb.Histogram.MAX_LENGTH)
    heights, edges = np.histogram(list(counts), bins=bins, range=(low - 0.5, high + 0.5), weights=list(counts.values()))
    return wandb.Histogram(np_histogram=(heights, edges))
