"""What is typed counts, wherever it stands; and a run goes on from its folder alone."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from a3c.training.cli.command import main
from a3c.training.cli.typed_words import expanded, in_order
from a3c.training.cli.usage import UsageError

CONFIG = Path(__file__).parents[2] / "configs/cartpole.yaml"
SMALL = ["--mode", "sync", "--data.envs_per_worker", "8", "--evaluation.final_episodes", "0"]
QUIET = ["--stop_when_solved", "false", "--evaluation.every_env_steps", "1000000000"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["4e3", "--a=6E4", "1.5e3", "1e+2"], ["4000", "--a=60000", "1500", "100"]),
        (["1e-3", "1.23e1", "e3", "4e3x", "0x1e3", "nan"], ["1e-3", "1.23e1", "e3", "4e3x", "0x1e3", "nan"]),
    ],
)
def test_whole_numbers_may_be_written_as_sweeps_do(typed, told):
    assert expanded(typed) == told


def test_configs_come_first_and_classes_before_their_arguments():
    typed = "--model.returns.lambda_ 0.5 --data.env X --config a.yaml --model.returns GAE -c b.yaml --config=c.yaml"
    told = "--config a.yaml -c b.yaml --config=c.yaml --model.returns GAE --model.returns.lambda_ 0.5 --data.env X"
    assert in_order(typed.split()) == told.split()
    for kept in (
        "--trainer.callbacks+ A --trainer.callbacks.x 1 --trainer.callbacks+ B --trainer.callbacks.y 2",
        "--model.returns GAE --model.returns.lambda_ 0.5 --model.returns NStep",
        "--model.optimizer SGD --model.optimizer.lr -1",
    ):
        assert in_order(kept.split()) == kept.split()


def config_of(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_a_typed_flag_counts_more_than_a_config_that_stands_after_it(here):
    Path("some.yaml").write_text("data: {max_env_steps: 1000}\nmodel: {returns: {class_path: GAE}}\n")
    typed = ["--data.max_env_steps", "2e3", "--model.returns.lambda_", "0.5", "--config", "some.yaml"]
    assert main(CONFIG, [*SMALL, *QUIET, *typed, "--run_dir", "run"]) == 0
    config = config_of(here / "run")
    assert config["data"]["max_env_steps"] == 2000
    assert config["model"]["returns"]["init_args"]["lambda_"] == 0.5


def test_a_run_goes_on_from_its_folder_alone_and_what_is_typed_counts(here, capsys):
    begun = ["--data.max_env_steps", "2000", "--model.returns", "GAE", "--model.returns.lambda_", "0.8"]
    assert main(CONFIG, [*SMALL, *QUIET, *begun, "--run_dir", "run"]) == 0
    assert main(CONFIG, ["--data.max_env_steps", "3e3", "--resume", "run"]) == 0
    config = yaml.safe_load(Path("run/config-2.yaml").read_text())
    assert config["model"]["returns"]["init_args"]["lambda_"] == 0.8
    assert (config["mode"], config["data"]["envs_per_worker"], config["data"]["max_env_steps"]) == ("sync", 8, 3000)
    assert json.loads(Path("run/summary.json").read_text())["env_steps"] >= 3000
    assert "data.max_env_steps was 2000 in the checkpoint, and is 3000 from here on" in Path("run/log.txt").read_text()
    assert main(CONFIG, ["--resume=run", "--data.max_env_steps=4000"]) == 0  # and once more
    with Path("run/metrics.csv").open(newline="") as file:
        steps = [float(row["env_steps"]) for row in csv.DictReader(file)]
    assert steps == sorted(steps)
    assert steps[-1] >= 4000
    capsys.readouterr()
    assert main(CONFIG, ["--resume", "run", "--model.network.hidden_sizes", "[32]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "train.py: error: ckpt_path: run/checkpoints/last.ckpt was trained with network.hidden_sizes [64, 64], "
        "must be that of the run: [32]"
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--resume", "nowhere"], "resume: got 'nowhere', must be the folder of one run, with its config.yaml in it"),
        (["--resume"], "resume: got '', must be the folder of one run"),
        (["--resume="], "resume: got '', must be the folder of one run"),
        (["--resume", "a", "--resume", "b"], "resume: got 'a', must be the folder of one run"),
        (["--resume", "a", "--run_dir", "b"], "resume: got with --run_dir, must be without: it takes the run's own"),
        (["--ckpt_path=last", "--resume=a"], "resume: got with --ckpt_path, must be without"),
    ],
)
def test_what_cannot_be_resumed_is_said_in_one_line(here, capsys, typed, said):
    with pytest.raises(UsageError):
        in_order(typed)
    assert main(CONFIG, typed) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"train.py: error: {said}")
    assert list(here.iterdir()) == []


def test_what_a_class_keeps_of_another_one_in_a_file_is_said(here):
    Path("five.yaml").write_text("model:\n  returns: {class_path: NStep, init_args: {n_steps: 5}}\n")
    small = [*SMALL, *QUIET, "--data.max_env_steps", "16", "--config", "five.yaml"]

    def kept(folder, *typed):
        assert main(CONFIG, [*small, "--run_dir", folder, *typed]) == 0
        lines = (here / folder / "log.txt").read_text().splitlines()
        return [line.partition(" model.")[2] for line in lines if " keeps " in line]

    optimizer, returns = kept("both", "--model.returns", "GAE", "--model.optimizer", "SGD")
    assert optimizer.startswith("optimizer: SGD keeps lr=0.002, fused=true of Adam in ")
    assert returns == "returns: GAE keeps n_steps=5 of NStep in five.yaml"
    assert not kept("typed", "--model.returns", "GAE", "--model.returns.n_steps", "6")
    assert not kept("same", "--model.returns", "a3c.NStep")


def help_of(capsys, *typed):
    with pytest.raises(SystemExit) as left:
        main(CONFIG, typed)
    assert left.value.code == 0
    return capsys.readouterr().out


def test_help_tells_the_flags_of_the_run_first_and_the_rest_on_demand(capsys):
    short, whole = help_of(capsys, "--help"), help_of(capsys, "--help.all")
    assert len(short.splitlines()) <= 140
    shown = {word for line in short.splitlines() for word in line.split()[:1] if word.startswith("--")}
    everything = {word for word in whole.split() if word.startswith("--")}
    assert {"--mode", "--model.returns", "--data.env", "--evaluation.episodes", "--wandb.artifacts"} <= shown
    assert shown < everything | {"--config"}
    assert not any(flag.startswith("--trainer.") for flag in shown)
    assert "--trainer.max_time" in everything
    line = " ".join(short.split())
    assert "swapping it changes nothing else: FullEpisode, NStep, GAE, " in line
    assert "UPGO, or an import path [NStep]" in line
    assert "λ, from 0" in help_of(capsys, "--model.returns.help", "GAE")
