"""Which runs a comparison is made of, by which flags, and which it refuses before anything is started."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from a3c.comparison.command import axes_of, make_parser
from a3c.comparison.grid import make_grid
from a3c.comparison.grid_run import cores_of, default_jobs
from a3c.comparison.registry import RunRegistry
from a3c.comparison.run_settings import RunSettings
from a3c.comparison.sweep import read_sweep
from a3c.comparison.variants import Variant, short_names
from a3c.training.cli.usage import UsageError

SWEEPS = Path(__file__).parent.parent.parent / "configs" / "sweeps"


def grid_of(*words, passed=()):
    return make_grid(axes_of(make_parser().parse_args(list(words)), passed), passed)


def write_sweep(folder, parameters, **more):
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"method": "grid", "program": "scripts/train.py", "parameters": parameters, **more}))
    return path


def test_every_estimator_meets_every_mode_env_and_seed_once():
    words = ["--returns", "NStep", "GAE:lambda_=0.9", "--modes", "sync", "async", "--seed_list", "3", "9"]
    grid = grid_of(*words, "--env", "CartPole-v1", "Acrobot-v1", "--max_env_steps", "300_000")
    cells = {(run.env, str(run.variant), run.seed) for run in grid.runs}
    assert len(grid.runs) == len(cells) == 2 * 2 * 2 * 2
    assert ("Acrobot-v1", "GAE:lambda_=0.9 · async", 9) in cells
    assert grid.budget == 300_000
    assert {run.seed for run in grid.runs[:8]} == {3}  # a seed of every cell before the next one
    assert len({run.folder for run in grid.runs}) == 16


def test_seeds_count_from_one():
    assert {run.seed for run in grid_of("--seeds", "4").runs} == {1, 2, 3, 4}


def test_a_run_has_the_same_budget_interval_and_no_early_end():
    (run,) = grid_of(
        "--returns", "NStep", "--seeds", "1", "--max_env_steps", "6000", passed=["--model.discount=0.9"]
    ).runs
    assert run.words[0] == "--model.discount=0.9"
    assert {
        "--data.max_env_steps=6000",
        "--evaluation.every_env_steps=200",
        "--stop_when_solved=false",
        "--seed_everything=1",
        "--mode=async",
        "--data.env=CartPole-v1",
    } <= set(run.words)


def test_what_no_flag_says_is_taken_from_the_configs_the_last_one_first(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("mode: sync\ndata: {env: Acrobot-v1, max_env_steps: 9_000}\nevaluation: {every_env_steps: 500}\n")
    second.write_text("data: {max_env_steps: 7_000}\nmodel:\n")
    files = ["--config", str(first), str(second)]
    (run,) = grid_of("--returns", "NStep", "--seeds", "1", *files).runs
    assert (run.env, run.variant.mode) == ("Acrobot-v1", "sync")
    assert {"--data.max_env_steps=7000", "--evaluation.every_env_steps=500"} <= set(run.words)
    (run,) = grid_of("--returns", "NStep", "--seeds", "1", "--env", "CartPole-v1", "--modes", "async", *files).runs
    assert (run.env, run.variant.mode) == ("CartPole-v1", "async")
    second.write_text("data.env: MountainCar-v0\n")
    assert {run.env for run in grid_of(*files).runs} == {"MountainCar-v0"}
    second.write_text("data: data.yaml\n")
    with pytest.raises(UsageError, match=r"second\.yaml: data: got 'data\.yaml', must be written out"):
        grid_of(*files)
    second.write_text("data: [\n")
    with pytest.raises(UsageError, match=r"config: .*second\.yaml: got no YAML"):
        grid_of(*files)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"data.env": {"value": "evil:X-v0"}}, "data.env: got 'evil:X-v0', which imports evil; must be an id alone"),
        ({"model.returns": {"values": ["NStep", "evil.X"]}}, "model.returns: got 'evil.X', must be a class of a3c"),
        ({"model.network": {"value": {"class_path": "evil.X"}}}, "model.network: got 'evil.X', must be a class of a3c"),
        ({"allow": {"value": "evil"}}, "allow: got 'evil', must be typed on the command line"),
        ({"data.env=evil:X-v0": {"value": 1}}, "parameters.data.env=evil:X-v0: must be the full key of one value"),
        ({"config": {"value": "other.yaml"}}, "parameters.config: must be the full key of one value"),
        (
            {"model.returns": {"value": "L2Normalised"}, "model.returns.estimator": {"value": "(evil.X)"}},
            "model.returns.estimator: got 'evil.X', must be a class of a3c",
        ),
    ],
)
def test_a_sweep_may_name_no_more_than_a_config(tmp_path, monkeypatch, parameters, message):
    """Its values become flags of runs, where they would pass for typed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    path = write_sweep(tmp_path, parameters)
    with pytest.raises(UsageError, match=rf"sweep\.yaml: {re.escape(message)}"):
        grid_of("--sweep", str(path))
    assert not Path("ran").exists()


@pytest.mark.parametrize("label", ["evil.", "evil. X", "(evil.X"])
def test_a_label_that_is_no_import_path_imports_nothing(tmp_path, monkeypatch, label):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    with pytest.raises(UsageError):
        grid_of("--sweep", str(write_sweep(tmp_path, {"model.returns": {"value": label}})))
    with pytest.raises(UsageError, match="got estimator"):
        grid_of("--returns", label)
    assert not (tmp_path / "ran").exists()


def test_an_estimators_argument_may_be_named_as_in_a_config(tmp_path):
    path = write_sweep(
        tmp_path,
        {"model.returns.class_path": {"value": "NStep"}, "model.returns.init_args.n_steps": {"values": [5, 20]}},
    )
    assert {run.variant.label for run in grid_of("--sweep", str(path)).runs} == {"NStep:n_steps=5", "NStep:n_steps=20"}
    path = write_sweep(tmp_path, {"model.returns": {"value": "NStep"}, "model.returns.estimator.n_steps": {"value": 5}})
    with pytest.raises(UsageError, match=r"model\.returns\.estimator\.n_steps: got without model\.returns\.estimator"):
        grid_of("--sweep", str(path))


def test_nothing_of_a_sweep_is_passed_over(tmp_path):
    lr = {"model.optimizer.lr": {"values": [0.1, 0.2]}}
    with pytest.raises(UsageError, match=r"command: got '--config=x\.yaml', must be given after --"):
        grid_of(
            "--sweep", str(write_sweep(tmp_path, lr, command=["${env}", "${program}", "--config=x.yaml", "${args}"]))
        )
    with pytest.raises(UsageError, match=r"--model\.optimizer\.lr: got with a sweep that sets it"):
        grid_of("--sweep", str(write_sweep(tmp_path, lr)), passed=["--model.optimizer.lr=0.3"])


def test_a_config_places_no_module_into_the_grid(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    path = tmp_path / "own.yaml"
    path.write_text("data: {env: 'evil:X-v0'}\n")
    with pytest.raises(UsageError, match=r"own\.yaml: data\.env: got 'evil:X-v0', which imports evil"):
        grid_of("--config", str(path))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError):  # trusted, and imported; it registers no environment
        grid_of("--config", str(path), passed=["--allow", "evil"])
    assert (tmp_path / "ran").exists()
    del sys.modules["evil"]


def test_all_arguments_of_an_estimator_are_said_also_its_defaults():
    """A config file may have set them otherwise, and the label would lie."""
    label = "L2Normalised:estimator=(GAE:lambda_=0.9)"
    (run,) = grid_of("--returns", label, "--seeds", "1").runs
    flags = [word for word in run.words if word.startswith("--model.returns")]
    assert flags == [
        "--model.returns=L2Normalised",
        "--model.returns.estimator=GAE",
        "--model.returns.estimator.n_steps=32",
        "--model.returns.estimator.lambda_=0.9",
    ]
    assert run.variant.label == label


def test_folders_are_told_apart_by_the_arguments():
    runs = grid_of("--returns", "GAE", "GAE:lambda_=0.9", "GAE:n_steps=8,lambda_=0.9", "--seeds", "1").runs
    assert [str(run.folder) for run in runs] == [
        "runs/CartPole-v1/GAE-async/seed1",
        "runs/CartPole-v1/GAE-lambda_=0.9-async/seed1",
        "runs/CartPole-v1/GAE-n_steps=8,lambda_=0.9-async/seed1",
    ]
    odd = {Variant(label, "async").slug for label in ("a(b", "a[b", "a/b")}
    assert len(odd) == 3
    assert all("/" not in slug for slug in odd)


@pytest.mark.parametrize(
    ("words", "passed", "message"),
    [
        (["--returns", "NSteps"], [], r"returns: .*nearest: NStep$"),
        (["--returns", "NStep:n_steps=0"], [], r"returns: .*n_steps: got 0"),
        (["--returns", "NStep", "NStep:n_steps=32"], [], r"returns: got CartPole-v1 · NStep · async twice"),
        (["--modes", "asink"], [], r"modes: got 'asink', must be one of sync, async, hogwild$"),
        (["--modes", "sync", "sync"], [], r"modes: got .* twice"),
        (["--env", "CartPole-v9x"], [], r"env: got 'CartPole-v9x'.*nearest: CartPole-v"),
        (["--seed_list", "1", "1"], [], r"seeds: got seed1 twice"),
        (["--seed_list", "-1"], [], r"seeds: got -1"),
        (["--max_env_steps", "0"], [], r"max_env_steps: got 0"),
        ([], ["--mode", "sync"], r"--mode: is set by the comparison, by --modes"),
        ([], ["--model.returns.n_steps=3"], r"--model\.returns\.n_steps: is set by the comparison, by --returns"),
        (["--seedz", "4"], [], r"--seedz: no such flag; nearest: --seeds"),
        (["--seeds", "many"], [], r"seeds: got many, must be a whole number"),
    ],
)
def test_what_cannot_be_gets_one_line(words, passed, message):
    with pytest.raises(UsageError, match=message) as caught:
        grid_of(*words, passed=passed)
    assert "\n" not in str(caught.value)


def test_settings_are_called_by_the_end_that_tells_them_apart():
    keys = ["model.optimizer.init_args.lr", "model.lr_schedule.init_args.lr", "model.discount"]
    assert list(short_names(keys).values()) == ["optimizer.lr", "lr_schedule.lr", "discount"]


# ---------------------------------------------------------------- sweeps


def test_a_sweep_is_the_grid_of_its_values_named_by_what_varies(tmp_path):
    parameters = {
        "model.returns": {"values": ["NStep", "GAE"]},
        "model.returns.n_steps": {"values": [5, 32]},
        "model.optimizer.lr": {"values": [0.001, 0.01]},
        "model.discount": {"value": 0.9},
        "data.mode": {"value": "sync"},
        "seed_everything": {"values": [4, 5]},
        "data.max_env_steps": {"value": 1000},
    }
    grid = grid_of("--sweep", str(write_sweep(tmp_path, parameters)))
    assert len(grid.runs) == 16
    assert grid.budget == 1000
    assert {run.variant.mode for run in grid.runs} == {"sync"}
    first = grid.runs[0]
    assert first.variant.label == "NStep:n_steps=5, lr=0.001"
    assert {"--model.optimizer.lr=0.001", "--model.discount=0.9", "--model.returns.n_steps=5"} <= set(first.words)
    assert "GAE, lr=0.01" in {run.variant.label for run in grid.runs}


@pytest.mark.parametrize("name", ["estimators", "learning_rate"])
def test_the_sweeps_that_come_along_are_grids_that_wandb_can_run(name):
    sweep = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text())
    values = [len(given.get("values", [None])) for given in sweep["parameters"].values()]
    grid = grid_of("--sweep", str(SWEEPS / f"{name}.yaml"))
    size = 1
    for count in values:
        size *= count
    assert len(grid.runs) == size
    assert sweep["program"] == "scripts/train.py"
    assert sweep["command"] == ["${env}", "${interpreter}", "${program}", "${args}"]


@pytest.mark.parametrize(
    ("parameters", "more", "message"),
    [
        (
            {"seed_everything": {"min": 1, "max": 4}},
            {},
            r"parameters\.seed_everything: got .*, must have value or values",
        ),
        ({"seed_everything": {"values": 3}}, {}, r"seed_everything\.values: got 3, must be a list"),
        ({"mode": {"value": "sync"}}, {"method": "bayes"}, r"got method 'bayes', must be grid"),
        ({"mode": {"value": "sync"}}, {"program": "other.py"}, r"got program 'other.py', must be scripts/train.py"),
        ({"run_dir": {"value": "x"}}, {}, r"run_dir: must be left out"),
        ({"stop_when_solved": {"value": True}}, {}, r"stop_when_solved: got true, must be false"),
        ({"data.max_env_steps": {"values": [1, 2]}}, {}, r"max_env_steps: got 1, 2, must be one number"),
        ({"model.returns": {"values": ["NStep:n_steps=3"]}}, {}, r"got a label, must be classes"),
    ],
)
def test_what_is_no_grid_gets_one_line(tmp_path, parameters, more, message):
    with pytest.raises(UsageError, match=message):
        grid_of("--sweep", str(write_sweep(tmp_path, parameters, **more)))


def test_a_flag_and_a_sweep_cannot_set_the_same(tmp_path):
    path = write_sweep(tmp_path, {"mode": {"value": "sync"}})
    with pytest.raises(UsageError, match="sets mode, so it must not be given by a flag"):
        grid_of("--sweep", str(path), "--modes", "async")
    assert read_sweep(path) == {"mode": ["sync"]}
    with pytest.raises(UsageError, match="must be a file that can be read"):
        read_sweep(tmp_path / "none.yaml")


# ---------------------------------------------------------------- what is there already


def test_a_run_is_finished_only_under_the_same_settings(tmp_path):
    config = tmp_path / "own.yaml"
    config.write_text("model: {discount: 0.9}\n")
    (run,) = grid_of("--returns", "NStep", "--seeds", "1").runs
    folder = tmp_path / run.folder
    assert RunRegistry(tmp_path, [config]).state_of(run) == "new"
    folder.mkdir(parents=True)
    (folder / "log.txt").touch()
    assert RunRegistry(tmp_path, [config]).state_of(run) == "changed"  # nobody knows by what it was started
    RunRegistry(tmp_path, [config]).write([run], "some machine")
    assert RunRegistry(tmp_path, [config]).state_of(run) == "unfinished"
    (folder / "summary.json").write_text('{"interrupted": true}')
    assert RunRegistry(tmp_path, [config]).state_of(run) == "unfinished"
    (folder / "summary.json").write_text('{"interrupted": false}')
    assert RunRegistry(tmp_path, [config]).state_of(run) == "finished"
    assert RunRegistry(tmp_path, [config]).conditions([run]) == ["some machine"]
    (longer,) = grid_of("--returns", "NStep", "--seeds", "1", "--max_env_steps", "5").runs
    registry = RunRegistry(tmp_path, [config])
    assert registry.state_of(longer) == "changed"
    assert registry.difference(longer) == "data.max_env_steps was 300000, and is 5"
    config.write_text("model: {discount: 0.8}\n")
    assert RunRegistry(tmp_path, [config]).state_of(run) == "changed"
    assert "own.yaml has changed" in RunRegistry(tmp_path, [config]).difference(run)


@pytest.mark.parametrize(
    ("modes", "workers", "learners", "jobs"),
    [
        (["sync"], None, 1, 4),
        (["sync"], "auto", 1, 4),
        (["sync"], None, 2, 2),
        (["async"], None, 1, 4),
        (["sync", "hogwild"], None, 1, 2),
        (["async"], 3, 1, 1),
        (["async"], 1, 2, 2),
        (["async"], "auto", 1, 1),
        (["async"], "auto", 3, 1),
    ],
)
def test_as_many_runs_at_a_time_as_cores_collect_for_them(monkeypatch, modes, workers, learners, jobs):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)))
    assert default_jobs(cores_of(grid_of("--modes", *modes), workers, learners)) == jobs


@pytest.mark.parametrize(
    ("configs", "passed", "workers"),
    [
        ([], [], None),
        ([], ["--data.workers", "3"], 3),
        ([], ["--data.workers=3", "--data.workers=2"], 2),
        ([], ["--data.workers"], None),  # train.py refuses these
        ([], ["--data.workers", "0"], None),
        ([], ["--data.workers", "many"], None),
        (["{workers: 2}"], [], 2),
        (["{workers: auto}"], [], "auto"),
        (["{workers: 2}", "{workers: auto}"], [], "auto"),
        (["{workers: auto}"], ["--data.workers=2"], 2),
    ],
)
def test_a_runs_workers_are_those_of_its_flags_and_then_of_its_configs(tmp_path, configs, passed, workers):
    paths = [tmp_path / f"{number}.yaml" for number in range(len(configs))]
    for path, data in zip(paths, configs, strict=True):
        path.write_text(f"data: {data}\n")
    assert RunSettings(paths, passed, {}).workers == workers


def test_the_largest_run_says_how_many_cores_a_run_takes():
    assert RunSettings([], [], {"data.workers": [1, 4, 2], "trainer.devices": [2, 1]}).workers == 4
    assert RunSettings([], [], {"data.workers": [1, "auto"]}).workers == "auto"
    assert RunSettings([], [], {"trainer.devices": [2, 1]}).learners == 2
    assert RunSettings([], ["--trainer.devices", "3"], {}).learners == 3
    assert RunSettings([], [], {}).learners == 1
