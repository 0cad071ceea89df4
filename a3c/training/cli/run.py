"""One run from the command line: its folder, its loggers, its fit and its exit status."""

from __future__ import annotations

import logging
import math
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningCLI
from rich.console import Console

from a3c.envs.source import EnvError
from a3c.envs.watchdog import HangError
from a3c.learner.compiled import CompilationError
from a3c.learner.guard import TrainingDivergedError
from a3c.peers.agreement import LearnerLostError, LearnersDifferError
from a3c.returns.labels import label_of
from a3c.rollouts.workers.failures import WorkerError
from a3c.runs.checkpoints import BEST, DamagedCheckpointError, load, present, read_checkpoint, tidy
from a3c.runs.folder import CHECKPOINTS, METRICS, VIDEOS, FolderInUseError, FolderLock, logging_to, rewind, save_config
from a3c.runs.metrics_file import MetricsFile
from a3c.runs.resume import Start, changes, check_same, dotted, find_start
from a3c.runs.wandb_logger import RunTracker, WandbOptions, make_wandb_logger
from a3c.training.callbacks import (
    BudgetBar,
    Checkpoints,
    DivergenceAlert,
    GreedyEvaluation,
    Interruption,
    RunReport,
)
from a3c.training.callbacks.checkpoints import CheckpointSaveError
from a3c.training.callbacks.interruption import Interrupted, requeue
from a3c.training.cli.final_report import print_summary
from a3c.training.cli.on_demand import log_checkpoints, make_histograms, make_probe, make_video
from a3c.training.cli.usage import UsageError, refusing
from a3c.training.datamodule import RolloutDataModule
from a3c.training.learners import LearnerLauncher
from a3c.training.module import A3C
from a3c.training.seams import callbacks_of, keep_files_in
from a3c.training.trainer_rules import check_arguments, check_loggers, check_tasks, check_trainer

FAILED = 1
# Their message says it all.
PLAIN_ERRORS = (
    *(LearnerLostError, LearnersDifferError, WorkerError, EnvError, HangError),
    *(CheckpointSaveError, TrainingDivergedError, CompilationError),
)

log = logging.getLogger(__name__)


def check_run(cli: LightningCLI) -> None:
    """Refuse a run that cannot be made.

    Raises:
        UsageError: the field, what was given, what is allowed.
    """
    module, data, trainer = cli.model, cli.datamodule, cli.trainer
    with refusing(""):
        check_tasks(learners=trainer.world_size)
    with refusing("trainer."):
        check_arguments(cli.config["trainer"])
        check_trainer(trainer, data.mode)
        check_loggers(trainer)
    with refusing("data."):
        data.mode.check(module)
    with refusing("model."):
        module.check_run(data.mode)


def start_of(cli: LightningCLI) -> tuple[Start, dict[str, Any]]:
    """Find the checkpoint that is asked for, and what it says of its run.

    Raises:
        UsageError: there is none, or the run cannot go on from it.
    """
    module, data = cli.model, cli.datamodule
    wanted, run_dir, run_name = (cli.config.get(key) for key in ("ckpt_path", "run_dir", "run_name"))
    shelf = Path() if run_dir is not None else shelf_of(data, module)
    folder = Path(run_dir) if run_dir is not None else shelf / run_name if run_name is not None else None
    described: dict[str, Any] = {}
    with refusing("ckpt_path: "):
        start = find_start(wanted, folder, shelf, data.seed)
        if start.checkpoint is not None:
            described, _ = read_checkpoint(start.checkpoint)
    if start.checkpoint is not None:
        with refusing(f"ckpt_path: {start.checkpoint} "):
            check_same(described, module.identity(data.mode))
    elif wanted is not None and cli.trainer.is_global_zero:
        sys.stderr.write(f"ckpt_path: {wanted}: {folder} has no checkpoint, so the run begins anew\n")
    return start, described


def shelf_of(data: RolloutDataModule, module: A3C) -> Path:
    """Return where run folders lie that nobody placed: runs/ENV/ESTIMATOR-MODE; no id and no link leads out of runs/.

    Raises:
        UsageError: a link is in the way.
    """
    env = [re.sub(r"^\.+|[^\w.-]|^$", "-", part) for part in data.env.name.split("/")]
    parent = Path("runs", *env, f"{type(module.returns).__name__}-{data.mode.name}")
    inner = [folder for folder in (parent, *parent.parents) if len(folder.parts) > 1]
    if link := next((folder for folder in inner if folder.is_symlink()), None):
        raise UsageError(f"run_dir: got {str(parent)!r} by default, must lead through no link, which {link} is")
    return parent


class TrainingRun:
    """One run from the command line.

    Args:
        cli: the parsed command line.
        console: where the table at the end goes; stdout by default.
        remarks: what the user should know of the command line, a sentence each.

    Raises:
        UsageError: the run folder is in use or its name leads elsewhere, or there is no checkpoint that
            this run can go on from.
    """

    def __init__(self, cli: LightningCLI, console: Console | None = None, remarks: Sequence[str] = ()) -> None:
        self.module: A3C = cli.model
        self.data: RolloutDataModule = cli.datamodule
        self.trainer = cli.trainer
        self.evaluation: GreedyEvaluation = cli.config_init["evaluation"]
        self._parser, self._config = cli.parser, cli.config
        self._console = console or Console()
        self._remarks = remarks
        _check_name(cli.config["run_name"], cli.config["run_dir"])
        self.run_name: str | None = cli.config["run_name"]
        self.estimator = type(self.module.returns).__name__
        with refusing("checkpoint."):  # their folder follows, once there is one
            every_seconds = cli.config["checkpoint"]["every_seconds"]
            self.checkpoints = Checkpoints(Path(CHECKPOINTS), self.evaluation, every_seconds)
        check_run(cli)
        self._probe = make_probe(cli.config_init["probe"], self.data.mode)
        self._video = make_video(cli.config["video_every"], self.data)
        self._wandb: WandbOptions = cli.config_init["wandb"]
        self._histograms = make_histograms(self._wandb.histograms_every, self.data.mode)
        self._tracker: RunTracker | None = None
        self.start, self._described = start_of(cli)
        self.folder = self.start.folder or self._make_folder(cli.config["run_dir"])
        with refusing("run_dir: ", FolderInUseError):
            self._lock = FolderLock(self.folder)
        self.checkpoints.folder = self.folder / CHECKPOINTS
        if self._video is not None:
            self._video.folder = self.folder / VIDEOS
        self.interruption = Interruption()
        self.report = RunReport(self.folder, self.evaluation, self.start.checkpoint)

    def _make_folder(self, wanted: str | None) -> Path:
        """Make the run's folder; nothing that is there already is written into."""
        if wanted is None:
            parent = shelf_of(self.data, self.module)
            name = self.run_name or f"seed{self.data.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
            more = [] if self.run_name else [parent / f"{name}-{number}" for number in range(2, 100)]
            candidates = [parent / name, *more]
        else:
            candidates = [Path(wanted)]
        for folder in candidates:
            try:
                folder.mkdir(parents=True)  # of two runs started in one second, one gets the next name
            except FileExistsError:
                if wanted is None or not folder.is_dir() or any(folder.iterdir()):
                    continue
            except OSError as error:
                raise UsageError(f"run_dir: got {str(folder)!r}, must be a folder that can be made: {error}") from error
            return folder
        if self.run_name:
            raise UsageError(f"run_name: got {self.run_name!r}, must be new: {candidates[-1]} exists")
        raise UsageError(f"run_dir: got {str(candidates[-1])!r}, must be a folder that is new or empty")

    def execute(self) -> int:
        """Train, and return the exit status: 0, 1 after a failure, 128 + n after signal n."""
        self.interruption.install()
        status = FAILED
        try:
            with logging_to(self.folder):
                try:
                    status = self._train()
                finally:
                    with suppress(Interrupted):
                        self._finish(status)
                    self.interruption.disarm()
                if self.interruption.signal == signal.SIGUSR1:
                    requeue()  # at the very end: SLURM ends the job there and then
        finally:
            self._lock.release()
            self.interruption.restore()
        return self._status(status)

    def _status(self, status: int) -> int:
        """Return the exit status as it stands: a failure outranks a signal."""
        number = self.interruption.signal
        return status if status == FAILED or number is None else 128 + number

    def _train(self) -> int:
        """Fit, with a last line for every way out."""
        status = 0
        try:
            for remark in self._remarks:
                log.warning("%s", remark)
            if self.start.folder is not None:
                self._go_on_in_folder()
            config, checkpoint = self._save_config(), self.start.checkpoint
            if checkpoint is not None:
                log.info("goes on from %s", checkpoint)
                # Of the model's the module says what changes, wherever it is trained.
                for change in changes(dotted(self._described.get("config", {})), dotted(config | {"ckpt_path": None})):
                    log.info("%s", change)
            self._attach(config)
            # Weights only in any case: without a path Lightning may find a checkpoint by itself, on SLURM.
            self.trainer.fit(self.module, self.data, ckpt_path=checkpoint, weights_only=True)
        except Interrupted:
            pass
        except (Exception, SystemExit) as error:  # the second from an environment in this process
            status = FAILED
            self._say_why(error)
        with suppress(Interrupted):
            if self.report.summary and status == 0:
                can_go_on = self.interruption.signal is not None and bool(present(self.checkpoints.folder))
                print_summary(self.report.summary, self.folder, can_go_on, self._console)
        return status

    def _say_why(self, error: BaseException) -> None:
        text = str(error) if isinstance(error, PLAIN_ERRORS) else traceback.format_exc()
        launcher = self.trainer.strategy.launcher
        if isinstance(error, LearnerLostError) and isinstance(launcher, LearnerLauncher):
            text = launcher.explain() or text
        files = present(self.checkpoints.folder)
        saved = f"the newest checkpoint is {files[0]}" if files else "there is no checkpoint"
        last_line = f"failed after {self.data.progress.env_steps:,} env steps; {saved}"
        log.info("%s\n%s", text, last_line)
        sys.stderr.write(f"error: {text.rstrip()}\nerror: {last_line}\n")
        if self._tracker is not None:
            self._tracker.alert("the run failed", f"{last_line}\n{type(error).__name__}: {error}")

    def _finish(self, status: int) -> None:
        """Stop the workers, the other learners, and W&B."""
        self.data.close()
        if isinstance(launcher := self.trainer.strategy.launcher, LearnerLauncher):
            launcher.end()
        if self._tracker is not None:
            if self._wandb.artifacts:
                log_checkpoints(self._tracker, self.checkpoints.folder, self.report.summary)
            self._tracker.finish(self._status(status), self.report.summary)

    def _go_on_in_folder(self) -> None:
        """Make the folder what it was when the checkpoint was saved."""
        rewind(self.folder, -1 if self.start.checkpoint is None else self._described.get("env_steps", math.inf))
        tidy(self.checkpoints.folder)
        best = self.checkpoints.folder / BEST
        if best.is_file():
            try:
                self.evaluation.best = load(best)["callbacks"]["GreedyEvaluation"]["best"]
            except (DamagedCheckpointError, KeyError) as error:
                log.warning("the next evaluation replaces %s: %s", best, error)

    def _save_config(self) -> dict[str, Any]:
        """Write config.yaml; without names of this run's files, so that it can be run again."""
        config = self._config.clone()
        config["run_dir"] = config["run_name"] = None
        config["ckpt_path"] = None if self.start.checkpoint is None else str(self.start.checkpoint)
        config["allow"] = None  # a file has no say in whom the next user trusts
        text = self._parser.dump(config, skip_unset=False)
        save_config(self.folder, text)
        parsed: dict[str, Any] = yaml.safe_load(text)
        return parsed

    def _attach(self, config: dict[str, Any]) -> None:
        """Give the trainer the loggers and callbacks that need the run folder."""
        self._tracker = make_wandb_logger(
            self.folder,
            env=self.data.env.name,
            estimator=label_of(self.module.returns),
            mode=self.data.mode.name,
            seed=self.data.seed,
            config=config,
            run_id=self._described.get("wandb_run_id") if self.start.folder is not None else None,
            name=self.run_name,
        )
        self.checkpoints.notes |= {"wandb_run_id": self._tracker.run_id, "config": config}
        others = self.trainer.loggers
        for logger in others:
            logger.log_hyperparams(config)
        self.trainer.loggers = [MetricsFile(self.folder / METRICS), self._tracker, *others]
        keep_files_in(self.folder, self.trainer)
        callbacks = callbacks_of(self.trainer)
        callbacks.insert(0, self.interruption)
        callbacks += [each for each in (self._video, self._probe, self._histograms) if each is not None]
        callbacks += [DivergenceAlert(self._tracker.alert)]
        bars = [] if self.trainer.progress_bar_callback is not None else [BudgetBar()]
        callbacks += [self.checkpoints, self.report, *bars]


def _check_name(name: str | None, folder: str | None) -> None:
    """Refuse a name that leads to another folder than its own."""
    if name is None:
        return
    if folder is not None:
        raise UsageError(f"run_name: got {name!r} and run_dir {folder!r}, must be one of them")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(
            f"run_name: got {name!r}, must be 1 to 100 letters, digits, '.', '_' and '-', and not begin with '.'"
        )
