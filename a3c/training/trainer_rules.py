"""What of Lightning's Trainer and its callbacks has a place in a fit, and what to take instead of the rest.

A fit is one endless epoch: the budget ends it, an evaluation is no validation loop of Lightning's, and in
some modes workers make the updates. What Lightning would take and drop there is refused before anything starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import SingleDeviceStrategy

from a3c.training.learners import Learners
from a3c.training.modes import Mode
from a3c.training.seams import callbacks_of

DEFAULT_EPOCHS = 1000  # Lightning's own, where nobody says how many
BUDGET = "data.max_env_steps is the budget"
TORCHRUN = "TORCHELASTIC_RUN_ID"  # environment variable of what it starts
ONE_LEARNER = "its workers are learners already; more of them make it faster"
NO_OTHERS = "learners agree on what they must by themselves"
NO_LOOPS = "nothing but training is looped over: take evaluation.every_env_steps, or scripts/evaluate.py"


class Rule(NamedTuple):
    """An argument of the Trainer that does not work with every value.

    Attributes:
        read: returns its value, as the Trainer holds it.
        allowed: says whether a value works.
        words: what is allowed, and what to take instead.
        only_if_workers_learn: it works wherever the Trainer makes the updates.
    """

    read: Callable[[Any], Any]
    allowed: Callable[[Any], bool]
    words: str
    only_if_workers_learn: bool = False


def _is_all(given: Any) -> bool:
    return isinstance(given, float) and given == 1.0  # the number 1 is one batch


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda given: given in values


RULES: Mapping[str, Rule] = {
    "accelerator": Rule(
        lambda trainer: trainer.accelerator,
        lambda given: isinstance(given, CPUAccelerator),
        "cpu: its workers learn by themselves, on the CPU",
        only_if_workers_learn=True,
    ),
    "devices": Rule(lambda trainer: trainer.num_devices, _is(1), f"1: {ONE_LEARNER}", only_if_workers_learn=True),
    "num_nodes": Rule(lambda trainer: trainer.num_nodes, _is(1), f"1: {ONE_LEARNER}", only_if_workers_learn=True),
    "strategy": Rule(
        lambda trainer: trainer.strategy,
        lambda given: type(given) in (SingleDeviceStrategy, Learners),
        "auto or ddp (from Python a3c.Learners() for several learners)",
    ),
    "precision": Rule(lambda trainer: trainer.precision, _is("32-true", "bf16-mixed"), "32-true or bf16-mixed"),
    "fast_dev_run": Rule(lambda trainer: trainer.fast_dev_run, _is(False), f"false: {BUDGET}, and may be small"),
    "max_epochs": Rule(
        lambda trainer: trainer.max_epochs,
        _is(None, -1, 1, DEFAULT_EPOCHS),
        f"-1: a fit is one epoch, and {BUDGET}",
    ),
    "min_epochs": Rule(lambda trainer: trainer.min_epochs, _is(None, 0, 1), f"null: {BUDGET}"),
    "min_steps": Rule(lambda trainer: trainer.min_steps, _is(None, 0), f"null: {BUDGET}"),
    "overfit_batches": Rule(
        lambda trainer: trainer.overfit_batches, _is(0), "0: rollouts are used by one update; take model.passes"
    ),
    "limit_train_batches": Rule(
        lambda trainer: trainer.limit_train_batches,
        _is_all,
        f"null: {BUDGET}, and trainer.max_steps counts gradient steps",
    ),
    "limit_val_batches": Rule(lambda trainer: trainer.limit_val_batches, _is_all, f"null: {NO_LOOPS}"),
    "limit_test_batches": Rule(lambda trainer: trainer.limit_test_batches, _is_all, f"null: {NO_LOOPS}"),
    "limit_predict_batches": Rule(lambda trainer: trainer.limit_predict_batches, _is_all, f"null: {NO_LOOPS}"),
    "val_check_interval": Rule(lambda trainer: trainer.val_check_interval, _is_all, f"null: {NO_LOOPS}"),
    "check_val_every_n_epoch": Rule(lambda trainer: trainer.check_val_every_n_epoch, _is(1, None), f"1: {NO_LOOPS}"),
    "num_sanity_val_steps": Rule(lambda trainer: trainer.num_sanity_val_steps, _is(0, 2), f"null: {NO_LOOPS}"),
    "gradient_clip_val": Rule(lambda trainer: trainer.gradient_clip_val, _is(None), "null: take model.max_grad_norm"),
    "gradient_clip_algorithm": Rule(
        lambda trainer: trainer.gradient_clip_algorithm, _is(None), "null: model.max_grad_norm is of the norm"
    ),
    "accumulate_grad_batches": Rule(
        lambda trainer: trainer.accumulate_grad_batches, _is(1), "1: take data.rollouts_per_update"
    ),
    "barebones": Rule(lambda trainer: trainer.barebones, _is(False), "false: it would switch the run's files off"),
    "reload_dataloaders_every_n_epochs": Rule(
        lambda trainer: trainer.reload_dataloaders_every_n_epochs, _is(0), "0: a fit is one epoch"
    ),
    # Of what the Trainer does to updates, workers that make them by themselves know nothing.
    "max_steps": Rule(lambda trainer: trainer.max_steps, _is(-1), f"-1: {BUDGET}", only_if_workers_learn=True),
    "detect_anomaly": Rule(lambda trainer: trainer._detect_anomaly, _is(False), "false: find it in mode sync", True),
}
ACCELERATORS = ("cpu", "gpu", "cuda", "auto")
HOGWILD_PRECISION = "32-true"

# Of the Trainer's arguments, those that would change nothing at all, and what to take instead.
IDLE: Mapping[str, tuple[Any, str]] = {
    "logger": (False, "metrics.csv and W&B are there anyway, and class_path adds a logger of another kind"),
    "enable_progress_bar": (False, "the run has a bar of its own over the budget"),
    "enable_checkpointing": (False, "checkpoints are saved anyway; see checkpoint.every_seconds"),
    "inference_mode": (True, NO_LOOPS),
    "use_distributed_sampler": (True, "rollouts are no set that could be shared out"),
    "sync_batchnorm": (False, NO_OTHERS),
    "plugins": (None, "the run's own checkpoints, precision and processes leave no place for them"),
    "model_registry": (None, "take wandb.artifacts"),
    "default_root_dir": (None, "run_dir says where all files of a run lie"),
}

NO_EPOCHS = "a fit is one epoch, so it would do nothing after the first one begins"
CALLBACKS: Mapping[type[Callback], str] = {
    callbacks.BaseFinetuning: NO_EPOCHS,
    callbacks.BasePredictionWriter: "nothing is predicted; a3c.load gives an agent that acts",
    callbacks.BatchSizeFinder: "it would train by itself before the run; take data.envs_per_worker",
    callbacks.GradientAccumulationScheduler: f"{NO_EPOCHS}; take data.rollouts_per_update",
    callbacks.LearningRateFinder: "it would train by itself before the run; take scripts/compare.py with a sweep",
    callbacks.LearningRateMonitor: "the learning rate of a schedule is logged anyway; see model.lr_schedule",
    callbacks.ModelPruning: "workers act and learn with the network as it is",
    callbacks.SpikeDetection: "updates that are not finite are skipped and counted; see model.max_skipped_updates",
    callbacks.StochasticWeightAveraging: NO_EPOCHS,
    callbacks.ThroughputMonitor: "time/env_steps_per_second is logged anyway",
    callbacks.WeightAveraging: "neither workers nor evaluations would act with the averaged weights",
}
# Saved by themselves, between two updates of the workers, they would not be those of any moment.
CALLBACKS_OF_CHECKPOINTS = (callbacks.ModelCheckpoint, callbacks.OnExceptionCheckpoint)


def check_trainer(trainer: Trainer, mode: Mode) -> None:
    """Refuse what the Trainer was asked for and would not do, or would do wrongly.

    Raises:
        ValueError: the argument, what was given, what is allowed, and what to take instead.
    """
    for argument, rule in RULES.items():
        value = rule.read(trainer)
        if not rule.allowed(value) and not (rule.only_if_workers_learn and mode.trainer_learns):
            where = f" in mode {mode.name}" if rule.only_if_workers_learn else ""
            raise ValueError(f"{argument}: got {_in_words(value)}{where}, must be {rule.words}")
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.num_nodes > 1 and environment is not None and not environment.creates_processes_externally:
        raise ValueError(f"num_nodes: got {trainer.num_nodes}, must be 1 unless torchrun or srun starts all learners")
    if trainer.world_size > 1 and mode.collection.max_episodes_per_worker is not None:
        raise ValueError(
            f"devices: got {trainer.num_devices} with data.max_episodes_per_worker, must be 1 there: the budget of "
            "several learners is in env steps (data.max_env_steps)"
        )
    if not mode.trainer_learns and trainer.precision != HOGWILD_PRECISION:
        raise ValueError(f"precision: got {trainer.precision} in mode {mode.name}, must be {HOGWILD_PRECISION}")
    for callback in callbacks_of(trainer):
        for kind, instead in CALLBACKS.items():
            if isinstance(callback, kind):
                raise ValueError(f"callbacks: got {type(callback).__name__}, which has no place here: {instead}")
        if isinstance(callback, CALLBACKS_OF_CHECKPOINTS) and not mode.trainer_learns and _is_wanted(callback):
            raise ValueError(
                f"callbacks: got {type(callback).__name__} in mode {mode.name}, must be none there: workers change the "
                "weights meanwhile; last.ckpt and best.ckpt are saved in order (a3c.training.callbacks.Checkpoints)"
            )


def check_accelerator(given: Any) -> None:
    """Refuse what a learner cannot be on, or what there is none of here.

    Args:
        given: the Trainer's argument; an accelerator of the user's own passes.

    Raises:
        ValueError: what was given, and what is allowed.
    """
    if not isinstance(given, str):
        return
    if given not in ACCELERATORS:
        raise ValueError(f"accelerator: got {given}, must be cpu, gpu (one of CUDA), or auto")
    if given in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ValueError(f"accelerator: got {given}, must be cpu: torch {torch.__version__} finds no CUDA device here")


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse what was typed for the Trainer and would change nothing.

    Args:
        given: its arguments, by name.

    Raises:
        ValueError: the argument, what was given, what is allowed, and what to take instead.
    """
    for argument, (default, instead) in IDLE.items():
        value = given.get(argument)
        if value not in (default, None) and not (argument == "logger" and value is not True):
            raise ValueError(f"{argument}: got {_in_words(value)}, must be {_in_words(default)}: {instead}")


def check_loggers(trainer: Trainer) -> None:
    """Refuse a second record of the run in W&B.

    Raises:
        ValueError: one of the loggers is W&B's.
    """
    if any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
        raise ValueError("logger: got WandbLogger, must be none of W&B: the run is recorded there anyway")


def check_tasks(environment: Mapping[str, str] = os.environ, learners: int = 1) -> None:
    """Refuse to be one of more or fewer processes than learners, where torchrun or SLURM has started them.

    Args:
        environment: its variables.
        learners: of the run.

    Raises:
        ValueError: the environment variable, and the number of processes.
    """
    allowed = f"trainer.devices × trainer.num_nodes = {learners}"
    for variable, launcher in (
        ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID"),
        ("WORLD_SIZE", "LOCAL_RANK"),
    ):
        tasks = environment.get(variable, "1")
        if launcher == "SLURM_STEP_ID" and TORCHRUN in environment:
            continue  # each of its tasks is a torchrun, which starts several processes
        if launcher in environment and tasks.isdecimal() and int(tasks) != learners:
            if launcher == "SLURM_STEP_ID" and tasks == "1":
                continue  # it is one process, which starts the other learners
            raise ValueError(f"{variable}: got {tasks} processes for one run, must be {allowed}")


def _is_wanted(callback: Callback) -> bool:
    """Return whether someone has asked for it: Lightning adds a plain ModelCheckpoint by itself."""
    return callback.state_key != callbacks.ModelCheckpoint().state_key


def _in_words(value: Any) -> str:
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case str() | int() | float():
            return str(value)
    return type(value).__name__
