import csv
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "controlled.py"


def test_the_picture_of_injected_lag_is_drawn_from_runs_and_again_from_its_table(tmp_path):
    flags = ["--estimators", "NStep", "VTrace", "--lags", "4", "--seeds", "1", "--env_steps", "10000", "--jobs", "2"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path)]
    subprocess.run([*command, *flags], env=environment, check=True, timeout=400, capture_output=True)
    with (tmp_path / "staleness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["estimator"], row["inject_lag"], row["seed"]) for row in rows] == [
        ("NStep", "4", "1"),
        ("VTrace", "4", "1"),
    ]
    assert all(-500 <= float(row["episode_return"]) < 0 for row in rows)
    assert all(float(row["kl_from_behaviour"]) > 0 for row in rows)  # the lag was there
    picture = tmp_path / "staleness.png"
    assert picture.stat().st_size > 10_000
    picture.unlink()
    subprocess.run([*command, "--draw"], env=environment, check=True, timeout=400, capture_output=True)
    assert picture.exists()
