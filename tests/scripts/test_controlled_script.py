import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts" / "controlled.py"
FILES = {"lag": "staleness", "passes": "reuse"}


@pytest.mark.parametrize(
    ("variable", "variants", "env", "value"),
    [
        ("lag", ["NStep", "VTrace"], "Acrobot-v1", "4"),
        ("passes", ["GAE clipped", "VTrace anew"], "CartPole-v1", "2"),
    ],
)
def test_the_picture_of_a_variable_is_drawn_from_runs_and_again_from_its_table(
    variable, variants, env, value, tmp_path
):
    flags = ["--env", env, "--variants", *variants, "--values", value, "--seeds", "1", "--env_steps", "10000"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    command = [sys.executable, str(SCRIPT), variable, "--output", str(tmp_path)]
    subprocess.run([*command, *flags], env=environment, check=True, timeout=400, capture_output=True)
    table, picture = tmp_path / f"{FILES[variable]}.csv", tmp_path / f"{FILES[variable]}.png"
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["env"], row["variant"], row["value"], row["seed"]) for row in rows] == [
        (env, variant, value, "1") for variant in variants
    ]
    assert all(-500 <= float(row["episode_return"]) <= 500 for row in rows)
    assert all(float(row["kl_from_behaviour"]) > 0 for row in rows)  # the lag, or the second pass, was there
    assert picture.stat().st_size > 10_000
    picture.unlink()
    written = table.read_bytes()
    again = subprocess.run([*command, *flags], env=environment, check=True, timeout=400, capture_output=True)
    assert again.stdout == b""  # nothing was trained anew
    assert table.read_bytes() == written
    picture.unlink()
    subprocess.run([*command, "--draw"], env=environment, check=True, timeout=400, capture_output=True)
    assert picture.exists()


def test_a_narrower_grid_adds_to_a_table_and_another_budget_is_refused(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    command = [sys.executable, str(SCRIPT), "passes", "--output", str(tmp_path), "--env", "CartPole-v1", "--seeds", "1"]
    command += ["--values", "1", "--jobs", "1"]

    def run(*flags):
        return subprocess.run([*command, *flags], env=environment, timeout=400, capture_output=True, text=True)

    assert run("--variants", "UPGO anew", "--env_steps", "5000").returncode == 0
    assert run("--variants", "GAE", "--env_steps", "5000").returncode == 0
    written = (tmp_path / "reuse.csv").read_text()
    rows = list(csv.DictReader(written.splitlines()))
    assert [(row["variant"], row["env_steps"]) for row in rows] == [("GAE", "5000"), ("UPGO anew", "5000")]
    refused = run("--variants", "GAE", "--env_steps", "6000")
    assert refused.returncode == 2
    assert "error: --env_steps: got 6000, must be 5000 for CartPole-v1, as in " in refused.stderr.splitlines()[-1]
    assert (tmp_path / "reuse.csv").read_text() == written


def test_an_estimator_that_is_not_among_the_variants_is_refused_in_one_line(tmp_path):
    command = [sys.executable, str(SCRIPT), "passes", "--output", str(tmp_path / "there"), "--variants", "TD"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert refused.returncode == 2
    assert "error: --variants: got TD, must be among NStep, NStep clipped, GAE, " in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("variable", ["lag", "passes"])
def test_a_published_table_has_every_run_of_its_grid_and_its_picture_is_drawn_from_it(variable, tmp_path):
    """The docs name the command, so it must leave nothing to train."""
    for published in (ROOT / "docs").glob(f"{FILES[variable]}.*"):
        shutil.copy(published, tmp_path)
    command = [sys.executable, str(SCRIPT), variable, "--output", str(tmp_path)]
    picture = (tmp_path / f"{FILES[variable]}.png").read_bytes()
    done = subprocess.run(command, timeout=400, capture_output=True, check=True)
    assert done.stdout == b""
    assert (tmp_path / f"{FILES[variable]}.csv").read_bytes() == (ROOT / "docs" / f"{FILES[variable]}.csv").read_bytes()
    assert (tmp_path / f"{FILES[variable]}.png").read_bytes() == picture
