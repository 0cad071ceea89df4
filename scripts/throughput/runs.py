"""Real runs for the model of scaling: built from the flags of scripts/train.py, cut by the clock, and watched."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback

from a3c.learner.metrics import mean_lag
from a3c.rollouts.workers.pool import WorkerPool
from a3c.runs.metrics_file import MetricsFile
from a3c.training.cli.command import TrainCLI, build
from a3c.training.cli.run import check_run
from a3c.training.cli.screening import Screening
from a3c.training.cli.typed_words import expanded, in_order
from a3c.training.cli.usage import UsageError
from a3c.training.seams import callbacks_of, data_of, module_of

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "cartpole.yaml"
BARE = [
    *("--stop_when_solved", "false"),
    *("--evaluation.every_env_steps", "null"),
    *("--evaluation.final_episodes", "0"),
    *("--data.max_env_steps", "1000000000000"),
    *("--data.worker_timeout", "120"),
]
PIECE = 0.5  # seconds between two readings
QUIET = 0.15  # cores that other programs may keep busy while it is measured
TICKS = os.sysconf("SC_CLK_TCK")


class Measured(NamedTuple):
    """What a real run did between two of its updates.

    Attributes:
        env_steps_per_second: trained on, reset steps included.
        real_share: of these steps, those that are no reset steps.
        lag: mean policy lag, in updates.
        learner_busy: share of the time in which the learner's process was on a core.
        learner_queued: share of the time in which the learner was ready and waited for a core.
        workers_queued: the same of a worker, mean over all; 0 in mode sync.
        seconds: between the two updates.
        updates: made in them.
        others: cores that other programs kept busy meanwhile.
        worker_mebibytes: memory of a worker, proportional set size, mean over all.
    """

    env_steps_per_second: float
    real_share: float
    lag: float
    learner_busy: float
    learner_queued: float
    workers_queued: float
    seconds: float
    updates: int
    others: float
    worker_mebibytes: float | None


def make(flags: Sequence[str]) -> TrainCLI:
    """Build module, data and trainer as scripts/train.py does, without evaluations and without an end.

    Raises:
        UsageError: the field, what was given, what is allowed.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    words = in_order(expanded([*flags, *BARE]))
    screening = Screening(words)
    screening.restrict_parser()
    cli = build(CONFIG, screening, words)
    check_run(cli)
    if cli.model.returns.horizon is None or cli.model.returns.needs_segments:
        name = type(cli.model.returns).__name__
        raise UsageError(
            f"model.returns: got {name}, must be an estimator of rollouts of n_steps that do not end early"
        )
    return cli


class Window(Callback):
    """Watches a fit from its warm-up on, in pieces, and ends it after some seconds in which other programs were quiet.

    Args:
        warm_up: seconds that are not looked at, from the first update on.
        seconds: to look at.
        patience: seconds after which it ends in any case; what is measured is then all of them, unless other programs
            were quiet for at least a fifth of `seconds`.
    """

    def __init__(self, warm_up: float, seconds: float, patience: float) -> None:
        self._warm_up, self._seconds, self._patience = warm_up, seconds, patience
        self._first: float | None = None
        self._last: _Reading | None = None
        self._pieces: list[Piece] = []
        self.measured: Measured | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        now = time.perf_counter()
        self._first = now if self._first is None else self._first
        begins = self._warm_up if self._last is None else self._last.wall + PIECE - self._first
        if self.measured is not None or now - self._first < begins:
            return
        reading = _Reading.take(trainer)
        if self._last is not None:
            self._pieces.append(Piece.between(self._last, reading))
        self._last = reading
        quiet = [piece for piece in self._pieces if piece.others <= QUIET * piece.seconds]
        seconds, all_seconds = (sum(piece.seconds for piece in pieces) for pieces in (quiet, self._pieces))
        if seconds >= self._seconds or all_seconds >= self._patience:
            self._conclude(trainer, quiet if seconds >= self._seconds / 5 else self._pieces)
            data_of(trainer).stopping.stop()

    def _conclude(self, trainer: Any, pieces: Sequence[Piece]) -> None:
        seconds, updates = (sum(getattr(piece, name) for piece in pieces) for name in ("seconds", "updates"))
        mode = data_of(trainer).mode
        collection, returns = mode.collection, module_of(trainer).returns
        steps = updates * (returns.horizon or 1) * collection.envs_per_worker * collection.rollouts_per_update
        memory = [_mebibytes(pid) for pid in mode.source.pids] if isinstance(mode.source, WorkerPool) else []
        self.measured = Measured(
            steps / seconds,
            sum(piece.env_steps for piece in pieces) / steps,
            mean_lag(sum((piece.lags for piece in pieces), Counter())) or 0.0,
            sum(piece.learner for piece in pieces) / seconds,
            sum(piece.learner_queued for piece in pieces) / seconds,
            sum(piece.workers_queued for piece in pieces) / seconds,
            seconds,
            updates,
            sum(piece.others for piece in pieces) / seconds,
            sum(memory) / len(memory) if memory else None,
        )


class Piece(NamedTuple):
    """What happened between two readings; times in seconds, on cores but for the first."""

    seconds: float
    updates: int
    env_steps: int
    lags: Counter[int]
    learner: float
    learner_queued: float
    workers_queued: float
    others: float

    @classmethod
    def between(cls, begin: _Reading, end: _Reading) -> Piece:
        """Return the difference of two readings."""
        own = sum(end.processes.get(pid, before) - before for pid, before in begin.processes.items())
        queued = {pid: end.queued[pid] - before for pid, before in begin.queued.items() if pid in end.queued}
        learner_queued = queued.pop(os.getpid())
        return cls(
            end.wall - begin.wall,
            end.updates - begin.updates,
            end.env_steps - begin.env_steps,
            end.lags - begin.lags,
            end.process - begin.process,
            learner_queued,
            sum(queued.values()) / len(queued) if queued else 0.0,
            max(0.0, end.machine - begin.machine - own),
        )


class _Reading(NamedTuple):
    """Clocks and counters at one moment; times in seconds."""

    wall: float
    process: float
    machine: float
    processes: dict[int, float]
    queued: dict[int, float]
    updates: int
    env_steps: int
    lags: Counter[int]

    @classmethod
    def take(cls, trainer: Any) -> _Reading:
        """Read them."""
        mode = data_of(trainer).mode
        pids = [os.getpid(), *(mode.source.pids if isinstance(mode.source, WorkerPool) else [])]
        return cls(
            time.perf_counter(),
            time.process_time(),
            busy_seconds(),
            {pid: core_seconds(pid) for pid in pids},
            {pid: queued_seconds(pid) for pid in pids},
            module_of(trainer).updates,
            mode.progress.env_steps,
            Counter(module_of(trainer).lags.counts),
        )


def busy_seconds() -> float:
    """Return the seconds in which the machine's cores have been busy, all together; 0 where nobody says."""
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, soft_interrupts = map(int, fields[:7])
    return (user + nice + system + interrupts + soft_interrupts) / TICKS


def core_seconds(pid: int) -> float:
    """Return the seconds that a process has been on a core; 0 where nobody says."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def queued_seconds(pid: int) -> float:
    """Return the seconds that a process's first thread was ready and had no core; 0 where nobody says."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) * 1e-9
    except OSError:
        return 0.0


def _mebibytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run(flags: Sequence[str], warm_up: float, seconds: float, patience: float) -> Measured:
    """Train for some seconds, with metrics.csv as the only logger, and return what was measured.

    Args:
        flags: of scripts/train.py.
        warm_up: see `Window`.
        seconds: see `Window`.
        patience: see `Window`.

    Raises:
        UsageError: the flags cannot be used.
        RuntimeError: the run ended before there was something to measure.
    """
    cli = make(flags)
    window = Window(warm_up, seconds, patience)
    callbacks_of(cli.trainer).append(window)
    with tempfile.TemporaryDirectory() as folder:
        cli.trainer.loggers = [MetricsFile(Path(folder) / "metrics.csv")]
        try:
            cli.trainer.fit(cli.model, cli.datamodule)
        finally:
            cli.datamodule.close()
    if window.measured is None:
        raise RuntimeError(f"the run ended before its {warm_up + seconds:g} s were over")
    return window.measured
