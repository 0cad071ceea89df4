"""Runs what a grid lacks, in processes of their own, with a progress bar, and has the report made."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from a3c.comparison.analysis import Comparison, compare, missing_cells
from a3c.comparison.grid import Grid, PlannedRun
from a3c.comparison.programs import Starter
from a3c.comparison.records import Run, read_run
from a3c.comparison.registry import RunRegistry, is_finished
from a3c.comparison.schedule import USAGE_ERROR, Outcome, Schedule, Task
from a3c.rollouts.workers.resources import available_cores
from a3c.runs.checkpoints import present
from a3c.runs.folder import CHECKPOINTS, FolderInUseError, FolderLock
from a3c.training.cli.usage import UsageError
from a3c.training.modes import MODES
from a3c.training.options import AUTO, Workers

FAILED = 1
STOPPED = (128 + signal.SIGINT, -signal.SIGINT)  # of a run that saved at its end, or had not begun
SHOWN = 12  # differences in the terminal; those that hold come first


@dataclass(frozen=True)
class GridRun:
    """Runs what a grid still lacks, and reports.

    Args:
        grid: all runs.
        folder: the comparison's; made if it is not there.
        registry: what runs there were started with.
        train: path of the script that makes a run.
        jobs: runs at a time.
        console: where to write.
        command: the command line that asks for all this, for the report.
        starter: that starts the runs.
        place: on what, in words.
    """

    grid: Grid
    folder: Path
    registry: RunRegistry
    train: Path
    jobs: int
    console: Console
    command: str
    starter: Starter
    place: str

    def execute(self) -> int:
        """Run and report; runs that are there with other settings are removed, and begun anew.

        Returns:
            The exit status: 0; 1 if a run failed; 128 + n after signal n.

        Raises:
            UsageError: the folder cannot be used, or all runs are refused.
        """
        states = {run: self.registry.state_of(run) for run in self.grid.runs}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.folder)
        except FolderInUseError as error:
            raise UsageError(f"output: {error}") from error
        except OSError as error:
            raise UsageError(f"output: got {str(self.folder)!r}, must be a folder that can be made: {error}") from error
        try:
            for run in (run for run, state in states.items() if state == "changed"):
                shutil.rmtree(self.folder / run.folder)
            waiting = [run for run, state in states.items() if state != "finished"]
            at_a_time = "one run" if self.jobs == 1 else f"{self.jobs} runs"
            self.registry.write(waiting, f"{at_a_time} at a time on {self.place}")
            self._say_what_is_done(len(self.grid.runs) - len(waiting), waiting)
            return self._run_and_report(waiting)
        finally:
            lock.release()

    def _say_what_is_done(self, finished: int, waiting: Sequence[PlannedRun]) -> None:
        self.console.print(
            f"{len(self.grid.runs)} runs of {self.grid.budget:,} env steps: "
            f"{finished} finished, {len(waiting)} to do, {self.jobs} at a time",
            highlight=False,
        )
        for run in waiting:
            folder = self.folder / run.folder
            if folder.is_dir() and any(folder.iterdir()):
                how = "goes on from its checkpoint" if present(folder / CHECKPOINTS) else "begins anew"
                self.console.print(f"  {run.name}: unfinished, {how}", highlight=False, soft_wrap=True)

    def _run_and_report(self, waiting: Sequence[PlannedRun]) -> int:
        with _Bar(self.console, len(waiting)) as bar:
            schedule = Schedule([self._task(run) for run in waiting], self.jobs, bar.update, self.starter)
            outcomes = schedule.run()
        if schedule.signal is not None:
            self.console.print(f"{schedule.signal.name}: stopped; the same command goes on", highlight=False)
            return 128 + schedule.signal
        failed = [outcome for outcome in outcomes if outcome.status != 0]
        if len(outcomes) < len(waiting):  # refused for its command line, and so would the others be
            refused = next(outcome for outcome in failed if outcome.status == USAGE_ERROR)
            raise UsageError(f"{refused.name}: {refused.reason}")
        troubles = [f"{outcome.name}: failed with status {outcome.status}: {outcome.reason}" for outcome in failed]
        for trouble in troubles:
            sys.stderr.write(f"{trouble}\n")
        finished = [run for run in self.grid.runs if is_finished(self.folder / run.folder)]
        # Called as the grid does: what varies there may be the same in those that are finished.
        runs = [replace(read_run(self.folder / run.folder), variant=run.variant) for run in finished]
        named, incomplete = _complete(runs)
        for trouble in incomplete:
            sys.stderr.write(f"{trouble}\n")
        if not named:
            sys.stderr.write("no run is finished, so there is nothing to report\n")
            return FAILED
        conditions = self.registry.conditions(finished)
        origin = f"Made by: {'; '.join([self.command, *conditions])}."
        report(compare(named), self.folder, self.console, [*troubles, *incomplete], origin)
        return FAILED if failed else 0

    def _task(self, run: PlannedRun) -> Task:
        folder = self.folder / run.folder
        place = [f"--run_dir={folder}", "--ckpt_path=auto"]
        tags = [os.environ.get("WANDB_TAGS", ""), "compare"]
        ours = {"WANDB_RUN_GROUP": self.folder.resolve().name, "WANDB_JOB_TYPE": str(run.variant)}
        environment = {**ours, **os.environ, "WANDB_TAGS": ",".join(filter(None, tags))}
        command = (sys.executable, str(self.train), *run.words, *place)
        return Task(run.name, command, folder.with_name(f"{folder.name}.log"), environment)


def _complete(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Leave out variants that are missing in an environment where others are there; say which, a sentence each."""
    missing = missing_cells(runs)
    troubles = [f"{variant}: left out, has no finished run on {env}" for env, variant in missing]
    without = {variant for _, variant in missing}
    return [run for run in runs if run.variant not in without], troubles


class _Bar:
    """A progress bar over the runs of a grid, with a line above it for each that has ended.

    Args:
        console: where to draw; only lines where it is no terminal.
        total: number of runs.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._ended = console, total, 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[names]}"),
            console=console,
            auto_refresh=False,  # a thread of its own could be in the middle of something when a run is forked
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("runs", total=total, names="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._progress.stop()

    def update(self, names: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        """Draw what runs, and say what has ended."""
        for outcome in outcomes:
            self._ended += 1
            how = f"failed with status {outcome.status}: {outcome.reason}"
            if outcome.status in (0, *STOPPED):
                how = "stopped" if outcome.status else "done"
            line = f"{self._ended} of {self._total}: {outcome.name}: {how}, {outcome.seconds:.0f} s"
            self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._progress.update(self._task, completed=self._ended, names=", ".join(names), refresh=True)


def cores_of(grid: Grid, workers: Workers, learners: int = 1) -> int:
    """Return how many cores the largest run of a grid keeps busy: one for each of its processes that collects.

    A learner by itself counts for nothing: while it starts, evaluates and draws its workers wait, and it waits while
    they collect. Two runs of a learner and a worker on two cores had the policy lags of one at a time.

    Args:
        grid: the runs.
        workers: of each learner; "auto" stands for all that a machine has cores for, whatever the number of learners.
        learners: of each run.
    """
    collecting = max(MODES[mode].collecting(workers) for mode in {run.variant.mode for run in grid.runs})
    return collecting if workers == AUTO else collecting * learners


def default_jobs(cores: int) -> int:
    """Return how many runs that keep so many cores busy this machine allows at a time."""
    return max(1, available_cores() // cores)


def report(
    comparison: Comparison, folder: Path, console: Console, troubles: Sequence[str] = (), origin: str = ""
) -> None:
    """Write the report of a comparison, and say what can be told.

    Args:
        comparison: what is reported.
        folder: where the report goes; its name is the comparison's.
        console: where the words go too.
        troubles: what went wrong with runs that are not in the comparison, a sentence each.
        origin: by what the report was made, a sentence.
    """
    from a3c.comparison.report import write_report  # matplotlib, and only now
    from a3c.comparison.settings import differences
    from a3c.comparison.words import sentences

    page = write_report(comparison, folder, folder.resolve().name, troubles, origin)
    told = list(sentences(comparison, comparison.final))
    more = [f"{len(told) - SHOWN} more are in the report"] if len(told) > SHOWN else []
    for line in (*comparison.notes, *differences(comparison), *told[:SHOWN], *more, f"report: {page}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
