"""Lightning's Trainer and callbacks: each works in a fit, or is refused in one line with what to take instead."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from helpers import COUNTDOWN
from lightning.pytorch import Trainer, callbacks
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger

from a3c import A3C, MLPActorCritic, NStep, RolloutDataModule
from a3c.training.callbacks import GreedyEvaluation
from a3c.training.cli.command import main
from a3c.training.learners import Learners
from a3c.training.modes import MODES
from a3c.training.trainer_rules import (
    CALLBACKS,
    IDLE,
    RULES,
    check_accelerator,
    check_arguments,
    check_tasks,
    check_trainer,
)

ROOT = Path(__file__).parents[2]
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
REFUSED = {
    "strategy": ["ddp", "ddp_spawn"],
    "precision": ["64-true", "16-true", "bf16-true"],
    "fast_dev_run": [True, 1],
    "max_epochs": [0, 5],
    "min_epochs": [2],
    "min_steps": [10],
    "limit_train_batches": [10, 1, 0.5, 0],
    "overfit_batches": [3, 0.1],
    "limit_val_batches": [1, 0],
    "limit_test_batches": [1],
    "limit_predict_batches": [1],
    "val_check_interval": [100, 0.5],
    "check_val_every_n_epoch": [2],
    "num_sanity_val_steps": [5, -1],
    "gradient_clip_val": [1e-6, 0.5],
    "gradient_clip_algorithm": ["value"],
    "accumulate_grad_batches": [2],
    "barebones": [True],
    "reload_dataloaders_every_n_epochs": [1],
}
REFUSED_OF_HOGWILD = {"max_steps": 5, "detect_anomaly": True, "precision": "bf16-mixed"}
WORKING = {
    "max_steps": 5,
    "detect_anomaly": True,
    "precision": "bf16-mixed",
    "deterministic": True,
    "benchmark": True,
    "max_time": {"minutes": 2},
    "log_every_n_steps": 3,
    "num_sanity_val_steps": 0,
    "profiler": "simple",
    "enable_autolog_hparams": False,
    "enable_model_summary": True,
    "enable_progress_bar": True,
    "enable_checkpointing": True,
    "max_epochs": 1,
}
# Lightning's callbacks that are not refused, with arguments that they need.
KEPT = {
    "DeviceStatsMonitor": {"cpu_stats": True},
    "EarlyStopping": {"monitor": "eval/episode_return", "mode": "max", "patience": 100},
    "LambdaCallback": {},
    "ModelCheckpoint": {},
    "ModelSummary": {},
    "OnExceptionCheckpoint": {"dirpath": "exceptions"},
    "RichModelSummary": {},
    "RichProgressBar": {},
    "TQDMProgressBar": {},
    "Timer": {"duration": {"minutes": 2}},
}
BASES = {"Callback", "Checkpoint", "ProgressBar"}


def make_mode(name):
    return RolloutDataModule(COUNTDOWN, mode=name, workers=1).mode


def make_trainer(**arguments):
    quiet = {} if arguments.get("barebones") else QUIET
    return Trainer(**{"accelerator": "cpu", "max_epochs": -1, **quiet, **arguments})


def fit(mode="sync", extra=(), evaluation=None, **arguments):
    torch.manual_seed(1)
    data = RolloutDataModule(COUNTDOWN, {"lengths": (3, 9)}, mode=mode, workers=1, envs_per_worker=2, max_env_steps=400)
    network = MLPActorCritic(data.observation_space, data.action_space, hidden_sizes=(4,))
    evaluation = evaluation or GreedyEvaluation(50, episodes=2, final_episodes=0)
    model, trainer = A3C(network, NStep(5)), make_trainer(callbacks=[*extra, evaluation], **arguments)
    trainer.fit(model, data)
    return model, data, trainer


@pytest.mark.parametrize(("argument", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_would_be_dropped_or_go_wrong_is_refused(argument, value):
    trainer = make_trainer(**{argument: value})
    for mode in MODES:
        with pytest.raises(ValueError, match=rf"^{argument}: got .*, must be ") as error:
            check_trainer(trainer, make_mode(mode))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("argument", REFUSED_OF_HOGWILD)
def test_what_workers_that_learn_know_nothing_of_is_refused_there(argument):
    trainer = make_trainer(**{argument: REFUSED_OF_HOGWILD[argument]})
    for mode in ("sync", "async"):
        check_trainer(trainer, make_mode(mode))
    with pytest.raises(ValueError, match=rf"^{argument}: got .* in mode hogwild, must be "):
        check_trainer(trainer, make_mode("hogwild"))


def test_several_learners_are_refused_where_workers_are_learners():
    trainer = make_trainer(strategy=Learners(), devices=2)
    for mode in ("sync", "async"):
        check_trainer(trainer, make_mode(mode))
    with pytest.raises(ValueError, match=r"^devices: got 2 in mode hogwild, must be 1: its workers are learners"):
        check_trainer(trainer, make_mode("hogwild"))


def test_learners_of_other_machines_are_not_waited_for_if_nobody_starts_them(monkeypatch):
    with pytest.raises(ValueError, match=r"^num_nodes: got 2, must be 1 unless torchrun or srun starts all learners$"):
        check_trainer(make_trainer(strategy=Learners(), num_nodes=2), make_mode("sync"))
    monkeypatch.setenv("LOCAL_RANK", "0")  # as who starts them says
    check_trainer(make_trainer(strategy=Learners(), num_nodes=2), make_mode("sync"))


@pytest.mark.parametrize("argument", WORKING)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_refused_works(mode, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if mode == "hogwild" and argument in REFUSED_OF_HOGWILD:
        pytest.skip("is refused there")
    model, data, trainer = fit(mode, **{argument: WORKING[argument]})
    if argument == "max_steps":
        assert model.updates == trainer.global_step == 5
    else:
        assert data.progress.env_steps >= 400
        assert model.updates > 5
    assert data.progress.collected == data.progress.env_steps + data.progress.in_flight


def test_a_time_limit_ends_a_fit():
    _, data, trainer = fit(max_time={"milliseconds": 1})
    assert trainer.should_stop
    assert 0 < data.progress.env_steps < 400


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("mode", MODES)
def test_callbacks_of_lightning_that_are_not_refused_work(mode, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = getattr(callbacks, name)(**KEPT[name])
    if mode == "hogwild" and name == "OnExceptionCheckpoint":
        with pytest.raises(ValueError, match="callbacks: got OnExceptionCheckpoint in mode hogwild, must be none"):
            check_trainer(make_trainer(callbacks=[callback], enable_checkpointing=True), make_mode(mode))
        return
    _, data, _ = fit(
        mode,
        [callback],
        logger=CSVLogger(tmp_path),
        enable_checkpointing="Checkpoint" in name,
        enable_progress_bar="Bar" in name,
        enable_model_summary="Summary" in name,
    )
    assert data.progress.env_steps >= 400


@pytest.mark.parametrize("kind", CALLBACKS, ids=lambda kind: kind.__name__)
def test_callbacks_that_have_no_place_are_refused_with_those_derived_from_them(kind):
    callback = type("Mine", (kind,), {"__init__": lambda self: None, "state_key": "mine"})()
    trainer = make_trainer()
    trainer.callbacks.append(callback)
    with pytest.raises(ValueError, match=r"^callbacks: got Mine, which has no place here: \w+"):
        check_trainer(trainer, make_mode("sync"))


def test_a_monitor_looks_at_evaluations_and_stops_the_run():
    stopping = callbacks.EarlyStopping("eval/episode_return", mode="max", stopping_threshold=0.5)
    model, data, _ = fit(extra=[stopping])
    assert stopping.stopped_epoch == 0
    assert 50 <= data.progress.env_steps < 100
    assert model.latest["eval/episode_return"] >= 0.5


def test_a_monitor_sees_the_logged_means_and_one_of_no_such_metric_says_what_there_is():
    patient = callbacks.EarlyStopping("loss/value", patience=10_000)
    fit(extra=[patient], log_every_n_steps=1)
    assert torch.isfinite(patient.best_score)
    with pytest.raises(RuntimeError, match=r"`nope` which is not available.*`eval/episode_return`"):
        fit(extra=[callbacks.EarlyStopping("nope")])


def test_lightnings_checkpoints_are_saved_after_evaluations(tmp_path):
    keeping = callbacks.ModelCheckpoint(tmp_path, "{step}", monitor="eval/episode_length", save_top_k=-1)
    _, _, trainer = fit(extra=[keeping], enable_checkpointing=True)
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) > 3
    saved = torch.load(keeping.best_model_path, weights_only=True)
    assert 0 < saved["global_step"] <= trainer.global_step
    with pytest.raises(ValueError, match="callbacks: got ModelCheckpoint in mode hogwild, must be none there"):
        check_trainer(make_trainer(callbacks=[keeping], enable_checkpointing=True), make_mode("hogwild"))


class Numbers(DummyLogger):
    """Takes numbers and nothing else, as TensorBoard's does."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append({key: float(value) for key, value in metrics.items()})


def test_loggers_of_the_users_own_get_numbers_only():
    logger = Numbers()
    fit(logger=logger, log_every_n_steps=1)
    assert any("loss/total" in row for row in logger.rows)
    assert any("eval/episode_return" in row for row in logger.rows)
    assert not any("lag/histogram" in row for row in logger.rows)


@pytest.mark.parametrize("bar", [callbacks.RichProgressBar, callbacks.TQDMProgressBar])
def test_bars_of_lightnings_do_not_show_the_length_that_keeps_it_from_prefetching(bar, capsys):
    shown = bar()
    fit(extra=[shown], enable_progress_bar=True)
    assert shown.total_train_batches == float("inf")
    printed = capsys.readouterr()
    assert "9223372036854775807" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("argument", "value"), [("logger", True), ("enable_progress_bar", True), ("sync_batchnorm", True), ("plugins", [1])]
)
def test_arguments_that_would_change_nothing_are_refused_where_they_are_typed(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}: got .*, must be (null|true|false): "):
        check_arguments({argument: value})
    check_arguments({name: default for name, (default, _) in IDLE.items()} | {"logger": object()})


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "2"}, "WORLD_SIZE: got 4 processes for one run, must be trainer.devices × "),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_ID": "0"}, "SLURM_STEP_NUM_TASKS: got 8 processes"),
    ],
)
def test_there_are_as_many_tasks_as_learners(variables, named):
    for learners in (1, 2):
        with pytest.raises(ValueError, match=named):
            check_tasks(variables, learners)
    check_tasks(variables, int(next(iter(variables.values()))))
    check_tasks(dict.fromkeys(variables, "1"))
    torchrun = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0", "TORCHELASTIC_RUN_ID": "1"}
    check_tasks({**torchrun, "WORLD_SIZE": "8", "LOCAL_RANK": "0"}, 8)  # one on each of two machines
    check_tasks({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0"}, 2)  # it starts the other one itself
    with pytest.raises(ValueError, match="WORLD_SIZE: got 1 processes"):
        check_tasks({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, 2)  # it does not here, and would wait for ever
    check_tasks({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"})  # a batch script that starts one process


def test_the_command_line_refuses_in_one_line_and_starts_nothing(here, capsys):
    for typed, named in (
        (["--trainer.strategy", "ddp_spawn"], "trainer.strategy: got DDPStrategy, must be auto or ddp"),
        (["--trainer.gradient_clip_val", "1e-6"], "trainer.gradient_clip_val: got 1e-06, must be null: take model."),
        (["--trainer.logger", "true"], "trainer.logger: got true, must be false: "),
        (["--trainer.callbacks", "LearningRateFinder"], "trainer.callbacks: got LearningRateFinder, which has no "),
        (["--mode", "hogwild", "--trainer.max_steps", "5"], "trainer.max_steps: got 5 in mode hogwild, must be -1"),
        (["--trainer.default_root_dir", "x"], "trainer.default_root_dir: got x, must be null: run_dir says"),
    ):
        assert main(ROOT / "configs/cartpole.yaml", typed) == 2
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
        assert line.startswith(f"train.py: error: {named}")
    assert list(here.iterdir()) == []


def test_a_run_has_the_users_loggers_callbacks_and_profiler_beside_its_own(here):
    typed = [
        *("--mode", "sync", "--data.max_env_steps", "3000", "--data.envs_per_worker", "4"),
        *("--evaluation.every_env_steps", "1000", "--evaluation.episodes", "2", "--evaluation.final_episodes", "0"),
        *(
            "--trainer.logger",
            "lightning.pytorch.loggers.CSVLogger",
            "--trainer.logger.save_dir",
            "mine",
            "--trainer.profiler",
            "simple",
        ),
        *("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.monitor", "eval/episode_return"),
        *("--trainer.callbacks+", "RichProgressBar", "--run_dir", "run"),
    ]
    assert main(ROOT / "configs/cartpole.yaml", typed) == 0
    rows = next(Path("mine").rglob("metrics.csv")).read_text().splitlines()
    assert "loss/total" in rows[0]
    assert "eval/episode_return" in rows[0]
    assert len(list(Path("run/lightning").rglob("*.ckpt"))) == 1
    assert "run_training_epoch" in Path("run/fit-profile.txt").read_text()
    assert sorted(path.name for path in here.iterdir()) == ["mine", "run"]


def test_the_docs_table_names_every_argument_and_every_callback():
    page = (ROOT / "docs/configuration.md").read_text()
    table = page[page.index("## Lightning's Trainer") :].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert set(inspect.signature(Trainer).parameters) <= named
    every = {name for name in callbacks.__all__ if name not in BASES}
    assert every <= named
    assert every == {*KEPT, *(kind.__name__ for kind in CALLBACKS), *(name for name in every if _is_refused(name))}
    assert set(RULES) | set(IDLE) <= named


def _is_refused(name):
    return any(issubclass(getattr(callbacks, name), kind) for kind in CALLBACKS)


@pytest.mark.parametrize("accelerator", ["tpu", "mps", "CPU", "hpu", ""])
def test_what_no_learner_can_be_on_is_refused(accelerator):
    with pytest.raises(
        ValueError, match=f"^accelerator: got {accelerator}, must be cpu, gpu \\(one of CUDA\\), or auto$"
    ):
        check_accelerator(accelerator)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_is_refused_where_there_is_none(accelerator, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=f"^accelerator: got {accelerator}, must be cpu: torch .* finds no CUDA device"
    ):
        check_accelerator(accelerator)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_accelerator(accelerator)
