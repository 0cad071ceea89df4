"""Memory, open files and shared memory stay flat while a run goes on; what leaks is found.

A3C_SOAK_SECONDS=60 makes it longer; `python scripts/soak.py` is for hours.
"""

import os
import subprocess
import sys
import uuid

import numpy as np
import pytest
from harness import ROOT
from processes import marked_environment, seconds_until_gone
from soak import theil_sen

SECONDS = os.environ.get("A3C_SOAK_SECONDS", "9")
SMALL = ["--data.envs_per_worker", "8", "--data.worker_timeout", "60"]


def soak(folder, *arguments):
    """Gives the exit status and the table by quantity."""
    mark = uuid.uuid4().hex
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "faults")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "soak.py"), "--interval", "0.2", "--output", "soak.csv", *arguments],
        cwd=folder,
        env=marked_environment(mark, PYTHONPATH=paths),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    seconds_until_gone(mark, 2.0)
    print(done.stdout, done.stderr)
    verdicts = {
        line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line.endswith(("flat", "GROWS"))
    }
    return done.returncode, verdicts


@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_row_47_memory_files_and_shared_memory_are_flat(tmp_path, mode):
    status, verdicts = soak(tmp_path, "--mode", mode, "--seconds", SECONDS, "--", *SMALL)
    assert verdicts == dict.fromkeys(["processes", "memory", "files", "shared"], "flat")
    assert status == 0
    assert len((tmp_path / "soak.csv").read_text().splitlines()) > 20


def test_row_47_leaks_are_found(tmp_path):
    leak = '{"leak": "%s", "every": 200}'
    flags = ["--data.env", "leaky_env:Leaky-v0", "--data.env_kwargs", leak % "memory and files"]
    status, verdicts = soak(tmp_path, "--mode", "sync", "--seconds", "5", "--", *SMALL, *flags)
    assert status == 1
    assert verdicts["memory"] == verdicts["files"] == "GROWS"
    assert verdicts["processes"] == "flat"


def test_the_slope_is_that_of_a_line_and_a_burst_does_not_tilt_it():
    minutes = np.arange(50) / 10
    noise = np.random.default_rng(0).normal(0, 0.1, 50)
    assert theil_sen(minutes, 3 * minutes) == pytest.approx((3, 3, 3))
    slope = theil_sen(minutes, 3 * minutes + noise)
    assert slope.low < slope.estimate < slope.high
    assert slope.estimate == pytest.approx(3, abs=0.1)
    burst = noise.copy()
    burst[40:44] += 100
    assert abs(theil_sen(minutes, burst).estimate) < 0.1 < np.polyfit(minutes, burst, 1)[0]


def test_the_interval_of_a_slope_holds_the_truth_19_times_in_20():
    generator, minutes = np.random.default_rng(1), np.arange(30) / 10
    inside = 0
    for _ in range(400):
        slope = theil_sen(minutes, 2 * minutes + generator.normal(0, 1, 30))
        inside += slope.low <= 2 <= slope.high
    assert 0.92 < inside / 400 < 0.98
