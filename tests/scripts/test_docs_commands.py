"""What the README shows works as it stands there."""

import re
import shlex
import sys
from pathlib import Path

import evaluate
import pytest

from a3c.comparison import command as comparison
from a3c.comparison.grid import make_grid
from a3c.training.cli import command as cli

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs" / "cartpole.yaml"
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(script="train"):
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"python scripts/{script}.py")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    own, _, _ = blocks("python")
    (tmp_path / "my_returns.py").write_text(own)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def test_there_are_commands_and_three_python_examples():
    assert len(commands()) >= 7
    assert len(blocks("python")) == 3


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_is_accepted(here, monkeypatch, command):
    ran = []
    monkeypatch.setattr(cli.TrainingRun, "execute", lambda run: ran.append(run.estimator) or 0)
    assert cli.main(CONFIG, [*shlex.split(command)[2:], "--run_dir", "run"]) == 0
    assert ran


@pytest.mark.parametrize("command", commands("compare"))
def test_every_comparison_of_the_readme_is_a_grid(command):
    options = comparison.make_parser().parse_args(shlex.split(command)[2:])
    assert len(make_grid(comparison.axes_of(options)).runs) > 1


@pytest.mark.parametrize("command", commands("evaluate"))
def test_every_evaluation_of_the_readme_is_accepted(command):
    assert evaluate.make_parser().parse_args(shlex.split(command)[2:]).path == "runs/first"


def test_the_estimator_of_ones_own_trains(here):
    flags = ["--model.returns", "my_returns.OneStep", "--data.max_env_steps", "3000", "--mode", "sync"]
    assert cli.main(CONFIG, [*flags, "--run_dir", "run"]) == 0


def test_the_notebook_trains_and_evaluates(here, capsys):
    exec(blocks("python")[1], {"__name__": "__main__"})
    assert 9 < float(capsys.readouterr().out.split()[-1]) <= 500
    assert not list(here.glob("*checkpoints*"))


def test_what_a_run_left_behind_can_be_used(here, capsys):
    flags = ["--data.max_env_steps", "3000", "--mode", "sync", "--run_dir", "runs/first"]
    assert cli.main(CONFIG, flags) == 0
    capsys.readouterr()
    exec(blocks("python")[2], {"__name__": "__main__"})
    action, mean, _, env_steps = capsys.readouterr().out.split()
    assert action in ("0", "1")
    assert 8 < float(mean) <= 500
    assert int(env_steps) >= 3000
    assert (here / "curve.png").stat().st_size > 10_000


def test_every_file_that_the_documents_name_exists():
    for document in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        for name in re.findall(r"`((?:a3c|configs|scripts|tests)/[\w/.]+)`", document):
            assert (ROOT / name).exists(), name
