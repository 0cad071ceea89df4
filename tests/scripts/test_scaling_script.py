"""scripts/scaling.py measures, predicts and compares, with the flags of scripts/train.py."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from throughput import sleeping_env

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--data.envs_per_worker", "2", "--model.returns.n_steps", "4"]


def scaling(folder, *words):
    command = [sys.executable, "-W", "ignore", str(ROOT / "scripts" / "scaling.py"), *words]
    environment = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_quick_look_ends_with_a_table_and_what_to_set(tmp_path):
    done = scaling(tmp_path, "--quick", "--cores", "8", "--output", "lines.jsonl", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Parts, 2 environments × 4 steps" in done.stdout
    assert "Predicted for 8 cores" in done.stdout
    assert re.search(r"Set: --data.workers \d+ --data.envs_per_worker \d --data.rollouts_per_update \d", done.stdout)
    assert "Inference batched across 16 workers, on 17 cores" in done.stdout
    machine, parts = lines(tmp_path / "lines.jsonl")
    assert machine["part"] == "machine"
    assert parts["setup"]["n_steps"] == 4
    assert all(seconds > 0 for seconds in parts["parts"]["update"]["seconds"])
    assert not (tmp_path / "runs").exists()


def test_sleeping_workers_scale_as_predicted_and_more_of_them_are_simulated(tmp_path):
    flags = ["--quick", "--simulate", "2", "4", "64", "--processes", "4", "--sleep", "0.05", "--window", "1.5"]
    done = scaling(tmp_path, *flags, "--output", "lines.jsonl", *SMALL)
    assert done.returncode == 0, done.stderr
    _, two, four, many = lines(tmp_path / "lines.jsonl")
    assert [two["kind"], four["kind"], many["kind"]] == ["measured", "measured", "simulated"]
    assert two["result"]["updates"] >= 5
    assert four["result"]["env_steps_per_second"] > 1.3 * two["result"]["env_steps_per_second"]
    assert many["ratio"] == pytest.approx(1, rel=0.1)
    assert "others" not in many["result"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--simulate", "0"], "simulate: got 0, must be at least 1"),
        (["--cores", "-1"], "cores: got -1, must be at least 1"),
        (["--sleep", "0"], "sleep: got 0, must be above 0 and at most 3600"),
        (["--window", "nan"], "window: got nan, must be above 0 and at most 3600"),
        (["--data.envs_per_worker", "0"], "data.envs_per_worker: got 0, must be at least 1"),
        (
            ["--model.returns", "FullEpisode"],
            "model.returns: got FullEpisode, must be an estimator of rollouts",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path, words, message):
    done = scaling(tmp_path, "--quick", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"scaling.py: error: {message}")
    assert done.stderr.count("\n") == 1


def test_environments_that_sleep_take_their_time():
    with pytest.raises(ValueError, match="seconds: got 0, must be above 0 and finite"):
        sleeping_env.SleepingVectorEnv(2, seconds=0)
