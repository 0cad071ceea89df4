"""A machine of another kind than ours: long temporary folders, odd encodings, the user's own file names."""

import os
from pathlib import Path

from harness import Program

from a3c.training.cli.command import main
from a3c.training.cli.typed_words import expanded

ROOT = Path(__file__).parents[2]
TINY = ["--data.max_env_steps", "2000", "--evaluation.final_episodes", "2", "--data.envs_per_worker", "8"]


def run(folder, *arguments, **variables):
    program = Program(folder, *TINY, *arguments, fresh=True, timeout=300, WANDB_MODE="disabled", **variables)
    try:
        status = program.wait()
        program.assert_clean()
    finally:
        program.kill()
    return status, program.output, program.errors


def test_a_temporary_folder_may_have_a_long_path_and_a_terminal_not_show_all_signs(tmp_path):
    long = tmp_path / ("a-folder-of-a-long-name" * 5)
    long.mkdir()
    surroundings = {"TMPDIR": str(long), "PYTHONIOENCODING": "ascii"}
    status, output, errors = run(tmp_path, "--run_dir", "run", "--mode", "hogwild", **surroundings)
    assert (status, errors) == (0, "")
    assert (tmp_path / "run/summary.json").exists()
    assert not list(long.glob("pymp-*"))
    assert output.isascii()
    assert "env steps" in output


def test_where_the_locale_is_no_utf_8_a_run_is_made_and_its_table_printed(tmp_path):
    surroundings = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, output, errors = run(tmp_path, "--run_dir", "run", "--mode", "sync", **surroundings)
    assert (status, errors) == (0, "")
    assert "? " in output  # the sign of plus and minus
    assert "CartPole-v1" in (tmp_path / "run/log.txt").read_text() + output


def test_modules_of_the_users_own_are_not_taken_for_the_standard_librarys(tmp_path):
    for name in ("queue", "random", "code", "statistics", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken for another')\n")
    status, output, errors = run(tmp_path, "--run_dir", "run")
    assert (status, errors) == (0, "")
    assert "taken for another" not in output


def test_an_environment_in_a_module_called_like_the_standard_librarys_is_refused_by_name(here, capsys):
    assert main(ROOT / "configs/cartpole.yaml", ["--data.env", "queue:NowhereToBeFound-v0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("queue is a module of the standard library, so one of your own must be called otherwise")


def test_a_home_folder_is_found_wherever_a_path_is_typed(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    assert expanded(["~/a", "--run_dir=~/b", "--config", "~/c.yaml", "--x=a~b", "-5"]) == [
        f"{here}/home/a",
        f"--run_dir={here}/home/b",
        "--config",
        f"{here}/home/c.yaml",
        "--x=a~b",
        "-5",
    ]
    arguments = [*TINY, "--mode", "sync", "--stop_when_solved", "false"]
    assert main(ROOT / "configs/cartpole.yaml", [*arguments, "--run_dir=~/first"]) == 0
    going_on = ["--run_dir", "~/second", "--ckpt_path=~/first/checkpoints/last.ckpt"]
    assert main(ROOT / "configs/cartpole.yaml", [*arguments, *going_on]) == 0
    assert {path.name for path in (here / "home").iterdir()} - {".cache"} == {"first", "second"}
    assert not os.path.exists("~")
