"""The command line: a LightningCLI without subcommands, one run a call."""

from __future__ import annotations

import logging
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console
from rich.table import Table

from a3c.agent import CheckpointError, read_checkpoint
from a3c.blueprint import describe
from a3c.callbacks import BudgetBar, Checkpoints, GreedyEvaluation, Interruption, RunReport
from a3c.guards import TrainingDivergedError
from a3c.loggers import MetricsFile
from a3c.module import A3C
from a3c.rollouts.datamodule import RolloutDataModule
from a3c.rollouts.pool import WorkerError
from a3c.tracking import RunTracker, make_wandb_logger
from a3c.usage import explain, locate

USAGE_ERROR = 2
TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": -1,  # the budget is in env steps: the dataset ends the fit
    "log_every_n_steps": 10,
    "enable_checkpointing": False,  # our own callback also sees evaluations
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,  # metrics.csv and W&B are attached once the run folder exists
}


class UsageError(ValueError):
    """A flag or value that cannot be used; nothing has been started."""


class OneLineParser(LightningArgumentParser):
    """Ends with one line that says what is wrong, instead of pages of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser within the parser, which only tries a class out
            super().error(message, ex)
        raise UsageError(explain(message, self)) from ex


class TrainCLI(LightningCLI):
    """Parses flags and configs, and builds module, data and trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--mode", type=Literal["sync", "async", "hogwild"], default="async", help="update mode")
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="run folder, new or empty (default: runs/ENV/ESTIMATOR-MODE/seedS-TIME)",
        )
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="checkpoint to go on from")
        parser.add_argument(
            "--stop_when_solved",
            type=bool,
            default=True,
            help="end the run when a greedy evaluation, and a second one, reach the environment's reward threshold",
        )
        parser.add_lightning_class_args(GreedyEvaluation, "evaluation")
        parser.link_arguments("mode", "data.mode")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_as_seed)
        parser.link_arguments("stop_when_solved", "evaluation.stop_when_solved")
        for space in ("observation_space", "action_space"):
            parser.link_arguments(f"data.{space}", f"model.network.init_args.{space}", apply_on="instantiate")

    def _set_seed(self) -> None:
        seed = self.config["seed_everything"]
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            given = str(seed).lower()
            raise UsageError(f"seed_everything: got {given}, must be a whole number from 0 to {2**32 - 1}")
        super()._set_seed()

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # A constructor's message begins with its argument's name.
            raise UsageError(locate(str(error), self.config.keys())) from error


def _as_seed(seed: bool | int) -> int:
    return int(seed)


class TrainingRun:
    """One run from the command line: its folder, its loggers, its fit and its last words.

    Args:
        cli: the parsed command line.
        console: where the table at the end goes; stdout by default.

    Raises:
        UsageError: the run folder is in use, or the checkpoint does not exist.
    """

    def __init__(self, cli: TrainCLI, console: Console | None = None) -> None:
        self.module: A3C = cli.model
        self.data: RolloutDataModule = cli.datamodule
        self.trainer = cli.trainer
        self.evaluation: GreedyEvaluation = cli.config_init["evaluation"]
        self._parser, self._config = cli.parser, cli.config
        self._console = console or Console()
        self._ckpt_path = cli.config["ckpt_path"]
        if self._ckpt_path is not None:
            self._check_checkpoint(Path(self._ckpt_path))
        try:
            self.data.check_run(self.module)
        except ValueError as error:
            raise UsageError(f"data.{error}") from error
        try:
            self.module.check_run(self.data.max_env_steps, self.data.learners)
        except ValueError as error:
            raise UsageError(f"model.{error}") from error
        self.estimator = type(self.module.returns).__name__
        self.folder = self._make_folder(cli.config["run_dir"])
        self.interruption = Interruption()
        self.report = RunReport(self.folder, self.evaluation)
        self._tracker: RunTracker | None = None

    def _check_checkpoint(self, path: Path) -> None:
        """Refuses a checkpoint that this run cannot go on from, by what differs."""
        if not path.is_file():
            raise UsageError(f"ckpt_path: got {str(path)!r}, must be a checkpoint file that exists")
        try:
            described, _ = read_checkpoint(path)
        except CheckpointError as error:
            raise UsageError(f"ckpt_path: {error}") from error
        ours = {
            "env": describe(self.data.env),
            "network": describe(self.module.network),
            "returns": describe(self.module.returns),
            "optimizer": self.module.optimizer_name,
            "optimizers": 1 if self.module.shared_optimizer else max(1, self.data.learners),
        }
        for name, wanted in ours.items():
            if (theirs := described.get(name)) != wanted:
                raise UsageError(
                    f"ckpt_path: {path} was trained with {name} {theirs}, must be that of the run: {wanted}"
                )

    def _make_folder(self, wanted: str | None) -> Path:
        if wanted is None:
            env = self.data.env.id.replace(":", "-")
            parent = Path("runs", env, f"{self.estimator}-{self.data.mode}")
            name = f"seed{self.data.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
            candidates = [parent / name, *(parent / f"{name}-{number}" for number in range(2, 100))]
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
        raise UsageError(f"run_dir: got {str(candidates[-1])!r}, must be a folder that is new or empty")

    def execute(self) -> int:
        """Trains, and gives the exit status: 0, 1 after a failure, 128 + n after signal n."""
        config = self._save_config()
        status = 1
        try:
            self._attach(config)
            self.trainer.fit(
                self.module, self.data, ckpt_path=self._ckpt_path, weights_only=True if self._ckpt_path else None
            )
        except (KeyboardInterrupt, SystemExit):
            # The first before the fit, the second from Lightning within it: a Ctrl-C in start-up, or a second one.
            status = 128 + (self.interruption.signal or signal.SIGINT)
        except (WorkerError, TrainingDivergedError) as error:
            sys.stderr.write(f"error: {error}\n")
        else:
            status = 0 if self.interruption.signal is None else 128 + self.interruption.signal
            self._print_summary()
        finally:
            self.data.close()
            self.interruption.restore()
            if self._tracker is not None:
                self._tracker.finish(status, self.report.summary)
        return status

    def _save_config(self) -> dict[str, Any]:
        """Writes config.yaml; without the folder's name, so that it can be run again."""
        config = self._config.clone()
        config["run_dir"] = None
        text = self._parser.dump(config, skip_unset=False)
        (self.folder / "config.yaml").write_text(text)
        parsed: dict[str, Any] = yaml.safe_load(text)
        return parsed

    def _attach(self, config: dict[str, Any]) -> None:
        """Gives the trainer the loggers and callbacks that need the run folder."""
        self._tracker = make_wandb_logger(
            self.folder,
            env=self.data.env.id,
            estimator=self.estimator,
            mode=self.data.mode,
            seed=self.data.seed,
            config=config,
        )
        self.trainer.loggers = [MetricsFile(self.folder / "metrics.csv"), self._tracker]
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        callbacks += [
            Checkpoints(self.folder / "checkpoints", self.evaluation),
            self.report,
            BudgetBar(),
            self.interruption,
        ]

    def _print_summary(self) -> None:
        summary = self.report.summary
        table = Table(title=f"{summary['env']} · {summary['estimator']} · {summary['mode']} · seed {summary['seed']}")
        table.add_column("what")
        table.add_column("figure", justify="right")
        for what, figure in _rows(summary):
            table.add_row(what, figure)
        self._console.print(table)
        self._console.print(f"run folder:     {self.folder}", soft_wrap=True)
        picture = self.folder / "learning_curve.png"
        if picture.exists():
            self._console.print(f"learning curve: {picture}", soft_wrap=True)
        elif not summary["interrupted"]:
            self._console.print(
                "nothing was trained: the checkpoint's budget is used up; give a larger one to go on", soft_wrap=True
            )
        offline = [str(path) for path in sorted(self.folder.glob("wandb/offline-run-*"))]  # several after a resume
        if offline:
            self._console.print(f"in the terminal: wandb leet {offline[-1]}", soft_wrap=True)
            self._console.print(f"to your account: wandb sync {' '.join(offline)}", soft_wrap=True)


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("env steps", f"{summary['env_steps']:,}"),
        ("updates", f"{summary['updates']:,}"),
        ("episodes", f"{summary['episodes']:,}"),
        ("training", f"{summary['train_seconds']:.2f} s"),
        ("speed", f"{summary['env_steps_per_second']:,.0f} env steps/s"),
        ("policy lag, mean and most", f"{summary['policy_lag_mean'] or 0:.2f}, {summary['policy_lag_max']} updates"),
    ]
    if summary["eval_return_mean"] is not None:
        mean, spread = summary["eval_return_mean"], summary["eval_return_std"]
        rows.append((f"greedy return, {summary['eval_episodes']} fresh episodes", f"{mean:.1f} ± {spread:.1f}"))
    if summary["solved_at_env_steps"] is not None:
        steps, seconds = summary["solved_at_env_steps"], summary["solved_at_seconds"]
        rows.append(("solved after", f"{steps:,} env steps, {seconds:.2f} s"))
    else:
        rows.append(("solved", "no"))
    if summary["worker_exit_codes"]:
        rows.append(("exit codes of the workers", " ".join(map(str, summary["worker_exit_codes"]))))
    if summary["interrupted"]:
        rows.append(("ended by", "a signal, before the budget"))
    return rows


def _quieten() -> None:
    """Silences what Lightning says of devices and loaders; its warnings about a run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*has `__len__` defined.*",  # one process reads it, and the length is only there to stop prefetching
        ".*does not have many workers.*",
        ".*your dataloader is not resumable.*",  # the data module keeps what it needs to go on
        ".*isinstance\\(treespec, LeafSpec\\).*",
        "(?s).*instantiate_classes.*deprecated.*",  # jsonargparse, of Lightning's own code
    ):
        warnings.filterwarnings("ignore", message=message)


def main(config: Path, args: Sequence[str] | None = None) -> int:
    """Makes the run that the command line asks for.

    Args:
        config: the default configuration; flags and further configs override it.
        args: the command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit status: 0, 2 for a command line that cannot be used, 1 after a failure, 128 + n
        after signal n.
    """
    _quieten()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a user's own estimator lies where the command is typed
    try:
        cli = TrainCLI(
            A3C,
            RolloutDataModule,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=1,
            parser_class=OneLineParser,
            parser_kwargs={"default_config_files": [str(config)], "allow_abbrev": False},
            args=None if args is None else list(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
        run = TrainingRun(cli)
    except (UsageError, UnicodeDecodeError) as error:  # the second from a config that is no text
        sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {error}\n")
        return USAGE_ERROR
    return run.execute()
