"""The command line: a LightningCLI without subcommands, one run a call."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from argparse import HelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

from jsonargparse import ArgumentError
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from a3c.rollouts.workers.resources import LEARNERS_HERE
from a3c.runs.allowlist import add_current_folder
from a3c.runs.wandb_logger import WandbOptions
from a3c.training.callbacks import Checkpoints, GreedyEvaluation
from a3c.training.cli.further_learner import FurtherLearner
from a3c.training.cli.run import FAILED, TrainingRun
from a3c.training.cli.screening import Screening
from a3c.training.cli.short_help import HELP_ALL, short_help
from a3c.training.cli.typed_words import RESUME, expanded, in_order
from a3c.training.cli.usage import BEGIN, DENIED, END, UsageError, explain, locate
from a3c.training.datamodule import RolloutDataModule
from a3c.training.learners import Learners, end_with_first_learner, is_started_by_slurm
from a3c.training.modes import MODES
from a3c.training.module import A3C
from a3c.training.probe.plan import ProbePlan
from a3c.training.trainer_rules import check_accelerator

USAGE_ERROR = 2
PACKAGES = ("a3c", "gymnasium", "jsonargparse", "lightning", "numpy", "torch", "yaml")  # whose refusals speak of flags

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


class OneLineParser(LightningArgumentParser):
    """Ends with one line that says what is wrong, instead of pages of usage."""

    screening: ClassVar[Screening]
    is_told_all: ClassVar[bool] = False

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        is_of_a_run = "--config" in self._option_string_actions  # and not of a class's arguments
        return short_help(self) if is_of_a_run and not self.is_told_all else super().format_help(formatter)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        key, text = explain(message, ex, self)
        if not self.exit_on_error:  # for the arguments of a class
            raise ArgumentError(None, f"{BEGIN}{key}: {text}{END}") from ex
        if text.startswith(DENIED):
            raise UsageError(self.screening.explain_denied(key, text.removeprefix(DENIED))) from ex
        raise UsageError(f"{key}: {text}" if key else text) from ex


class TrainCLI(LightningCLI):
    """Parses flags and configs, and builds module, data and trainer.

    Args:
        screening: what the command line allows.
        kwargs: see LightningCLI.
    """

    def __init__(self, screening: Screening, **kwargs: Any) -> None:
        self._screening = screening
        super().__init__(**kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        OneLineParser.screening = self._screening  # as the parser's settings are the process's own
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        modes: Any = Literal.__getitem__(tuple(MODES))
        parser.add_argument("--mode", type=modes, default="async", help="update mode")
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="run folder, new or empty (default: runs/ENV/ESTIMATOR-MODE/seedS-TIME)",
        )
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="name of the run in W&B, and of its folder instead of seedS-TIME; new, unless the run goes on in it",
        )
        parser.add_argument(
            "--allow",
            metavar="PREFIX",
            action="append",
            type=str,
            help="module or package whose classes and environments config files may name; may be repeated",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="checkpoint to go on from; or last: the newest of --run_dir, or of the newest run of this seed, in "
            "whose folder the run goes on; or auto, with --run_dir: last if there is a checkpoint, else a beginning",
        )
        parser.add_argument(
            RESUME,
            metavar="FOLDER",
            type=str | None,
            default=None,
            help="run folder to go on in, with its configuration and newest checkpoint; what is typed counts more",
        )
        parser.add_argument(
            "--stop_when_solved",
            type=bool,
            default=True,
            help="end the run when a greedy evaluation, and a second one, reach the environment's reward threshold",
        )
        parser.add_argument(
            "--video_every",
            type=int | None,
            default=None,
            help="record a greedy episode every so many env steps, and one at the end (default: none)",
        )
        parser.add_argument(
            "--probe",
            type=ProbePlan | bool,
            default=False,
            help="compare return estimators on the batches that one of them trains with: true, or how",
        )
        parser.add_lightning_class_args(GreedyEvaluation, "evaluation")
        parser.add_class_arguments(Checkpoints, "checkpoint", skip={"folder", "evaluation"}, instantiate=False)
        parser.add_class_arguments(WandbOptions, "wandb")
        parser.link_arguments("mode", "data.mode")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("stop_when_solved", "evaluation.stop_when_solved")
        for space in ("observation_space", "action_space"):
            parser.link_arguments(f"data.{space}", f"model.network.init_args.{space}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        self._screening.check(self.config)

    def _set_seed(self) -> None:
        seed = self.config["seed_everything"]
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            given = str(seed).lower()
            raise UsageError(f"seed_everything: got {given}, must be a whole number from 0 to {2**32 - 1}")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        if _is_for_several(trainer := self.config["trainer"]) and str(trainer["devices"]).isdecimal():
            os.environ.setdefault(LEARNERS_HERE, str(trainer["devices"]))  # for the other learners as well

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        check_accelerator(self.config_init["trainer"]["accelerator"])
        if _is_for_several(self.config_init["trainer"]):
            environment = SLURMEnvironment(auto_requeue=False) if is_started_by_slurm() else None
            kwargs["strategy"] = Learners(cluster_environment=environment)
        given = self.config_init["trainer"]["callbacks"] or []
        wanted = given if isinstance(given, list) else [given]
        return super().instantiate_trainer(  # it refuses these where they are switched off, as they are by default
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in wanted),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in wanted),
            **kwargs,
        )

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            if own_traceback(error) is not None:
                raise  # not as a wrong flag
            # A constructor's message begins with its argument's name.
            raise UsageError(locate(error, self.config.keys())) from error
        except MisconfigurationException as error:
            raise UsageError(f"trainer: {error}".replace("\n", " ")) from error


def _is_for_several(trainer: Mapping[str, Any]) -> bool:
    """Return whether there are to be several learners; what else is asked for is refused later."""
    several = any(str(trainer[name]).isdecimal() and int(trainer[name]) > 1 for name in ("devices", "num_nodes"))
    return trainer["strategy"] == "ddp" or (trainer["strategy"] == "auto" and several)


def own_traceback(error: BaseException) -> str | None:
    """Return an exception from the first line of the user's own code on; None if it is not from there.

    It may be the cause of a RuntimeError that says where it was raised.
    """
    trace = error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if package not in (*PACKAGES, *sys.stdlib_module_names):
            return "".join(traceback.format_exception(type(error), error, trace, chain=False))
        trace = trace.tb_next
    return own_traceback(error.__cause__) if isinstance(error, RuntimeError) and error.__cause__ else None


def _quieten() -> None:
    """Silence what Lightning says of devices; its warnings about a run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*`srun` command is available.*",
        "(?s).*instantiate_classes.*deprecated.*",  # jsonargparse, of Lightning's own code
    ):
        warnings.filterwarnings("ignore", message=message)


def _leave_slurm_to_us() -> None:
    """Keep Lightning from requeueing the job, and from taking up checkpoints of its own making.

    Its documented way to be left alone in a SLURM job is the name of an interactive one.
    """
    if "SLURM_JOB_ID" in os.environ:
        os.environ["SLURM_JOB_NAME"] = "interactive"


def build(config: Path, screening: Screening, args: Sequence[str] | None) -> TrainCLI:
    """Parse a command line and build module, data and trainer; nothing is started.

    Args:
        config: the default configuration.
        screening: what the command line allows.
        args: the command line without the program's name; None for ``sys.argv``.

    Raises:
        UsageError: the field, what was given, what is allowed.
    """
    return TrainCLI(
        screening,
        model_class=A3C,
        datamodule_class=RolloutDataModule,
        save_config_callback=None,
        trainer_defaults=TRAINER_DEFAULTS,
        seed_everything_default=1,
        parser_class=OneLineParser,
        parser_kwargs={"default_config_files": [str(config)], "allow_abbrev": False},
        args=args,
        run=False,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
    )


def main(config: Path, args: Sequence[str] | None = None) -> int:
    """Make the run that the command line asks for.

    Args:
        config: the default configuration; flags and further configs override it.
        args: the command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit status: 0, 2 for a command line that cannot be used, 1 after a failure, 128 + n
        after signal n.
    """
    end_with_first_learner()
    before = os.environ.get(LEARNERS_HERE)
    try:
        return _main(config, args)
    finally:
        if before is None:  # a run of several learners has said how many there are
            os.environ.pop(LEARNERS_HERE, None)


def _main(config: Path, args: Sequence[str] | None) -> int:
    _quieten()
    _leave_slurm_to_us()
    add_current_folder()  # a user's own estimator lies where the command is typed
    # Set to true it would have the parser take any flag, and further configs, from the environment.
    os.environ.pop("JSONARGPARSE_DEFAULT_ENV", None)
    try:
        arguments = in_order(expanded(sys.argv[1:] if args is None else args))
        OneLineParser.is_told_all = HELP_ALL in arguments
        arguments = ["--help" if word == HELP_ALL else word for word in arguments]
        screening = Screening(arguments)
        screening.restrict_parser()
        if args is None:
            sys.argv[1:] = arguments
        cli = build(config, screening, None if args is None else arguments)
        run: TrainingRun | FurtherLearner
        if cli.trainer.global_rank > 0:
            run = FurtherLearner(cli)
        else:
            run = TrainingRun(cli, remarks=list(screening.kept.sentences(cli.config)))
    except (UsageError, UnicodeDecodeError) as error:  # the second from a config that is no text
        sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {error}\n")
        return USAGE_ERROR
    except Exception as error:
        if (own := own_traceback(error)) is None:
            raise
        sys.stderr.write(f"{own}{Path(sys.argv[0]).name}: error: {str(error).partition(chr(10))[0]}\n")
        return FAILED
    return run.execute()
