"""Whole programs: what is left of them, however they end, and what they say."""

import os
import random
import re
import signal
import time

import pytest
from harness import SLACK, faulty, running
from processes import processes_of

SEED = int(os.environ.get("A3C_FAULT_SEED", "0")) or random.SystemRandom().randrange(10**6)
KILLS = int(os.environ.get("A3C_FAULT_KILLS", "3"))  # of the parent, at random moments of each mode
BUDGET = ["--data.max_env_steps", "20000"]
ENDLESS = ["--data.max_env_steps", "1000000000"]
IMPATIENT = ["--data.worker_timeout", "1"]


def check_counters(summary):
    """collected = trained + dropped + in flight."""
    assert summary["in_flight_env_steps"] >= 0
    parts = ("trained_env_steps", "dropped_env_steps", "in_flight_env_steps")
    assert summary["collected_env_steps"] == sum(summary[part] for part in parts)
    assert summary["dropped_env_steps"] == sum(summary["dropped_by_reason"].values())


@pytest.mark.parametrize("mode", ["hogwild"])  # the others' pool is tried in test_hangs.py
def test_rows_1_and_10_a_run_goes_on_to_its_end_after_a_hang_and_says_so(tmp_path, mode):
    fault = faulty("hang_holding_gil", at_step=500, worker=1, once=str(tmp_path / "once"))
    with running(tmp_path, "--mode", mode, "--data.workers", 2, *BUDGET, *fault, *IMPATIENT) as run:
        assert run.wait() == 0, run.errors
        summary = run.summary()
        assert summary["worker_deaths"] == summary["worker_restarts"] == 1
        assert summary["env_steps"] >= 20000
        check_counters(summary)
        assert "worker 1 gave no sign of life for 1 s" in run.log() or run.errors
        assert re.search(r"(?s)faulty\.py.*_hang_holding_gil", run.log() or run.errors)
        assert float(run.rows()[-1]["workers/deaths"] or 1) == 1


@pytest.mark.parametrize("mode", ["async"])
def test_rows_5_and_8_a_crash_loop_ends_with_traceback_checkpoint_and_status_1(tmp_path, mode):
    limit = ["--data.max_restarts", 2]
    with running(tmp_path, "--mode", mode, *ENDLESS, *faulty("raise", at_step=500, worker=0), *limit) as run:
        assert run.wait() == 1
        assert re.search(r"(?s)error: .*worker 0 failed:\nTraceback.*ZeroDivisionError: the pole went", run.errors)
        assert re.search(r"environment seed \d+, step \d+", run.errors)
        assert "last.ckpt" in run.checkpoints()
        assert len(re.findall(r"worker 0 failed", run.log() or run.errors)) >= 3


def test_row_6_an_environment_that_cannot_begin_ends_the_run_before_training(tmp_path):
    with running(tmp_path, *ENDLESS, *faulty("raise_reset", at_step=0)) as run:
        assert run.wait() == 1
        assert re.search(r"(?s)Traceback.*in reset.*ZeroDivisionError: the pole went", run.errors)
        assert run.updates() == 0


@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_row_9_without_workers_the_run_ends_within_5_seconds_with_a_checkpoint(tmp_path, mode):
    with running(tmp_path, "--mode", mode, "--data.workers", 2, *ENDLESS, "--data.on_worker_failure", "raise") as run:
        run.wait_for_updates(3)
        for pid in run.workers():
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        assert run.wait(5 + SLACK) == 1
        print(f"{mode}: from the death of all workers to the exit {time.monotonic() - killed:.2f} s")
        assert re.search(r"worker [01] was killed by SIGKILL", run.errors)
        assert "last.ckpt" in run.checkpoints()


def test_row_11_sigterm_ends_a_run_whose_environments_will_not(tmp_path):
    with running(tmp_path, "--mode", "async", *ENDLESS, *faulty("ignore_sigterm", at_step=2000)) as run:
        run.wait_for_updates(10)
        asked = time.monotonic()
        run.send(signal.SIGTERM)
        assert run.wait(5 + SLACK) == 128 + signal.SIGTERM
        print(f"from SIGTERM to the exit {time.monotonic() - asked:.2f} s")
        assert "last.ckpt" in run.checkpoints()


@pytest.mark.parametrize(("mode", "kind"), [("async", "hang_holding_gil"), ("hogwild", "children")])
def test_row_13_nothing_outlives_a_parent_that_was_killed(tmp_path, mode, kind):
    hung = tmp_path / "hung"
    fault = faulty(kind, at_step=500, once=None if kind == "children" else str(hung))
    with running(tmp_path, "--mode", mode, "--data.workers", 2, *ENDLESS, *fault) as run:
        run.wait_for_updates(3)
        if kind == "children":
            sleepers = 2 * 2 * 2  # workers, environments of each, children of each
            run.wait_until(
                lambda: sum(process.command.startswith("sleep") for process in processes_of(run.mark)) == sleepers,
                20,
                "the environments' children",
            )
        else:
            run.wait_until(hung.exists, 20, "a worker that hangs")
        assert len(run.workers()) == 2
        run.send(signal.SIGKILL)
        run.process.wait()
        print(f"{mode}, {kind}: nothing left {run.assert_clean(2.0):.2f} s after the parent was killed")


@pytest.mark.parametrize("seconds", [1, 6], ids=["forked", "fresh"])
@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_row_13_nothing_outlives_a_parent_that_was_killed_at_any_moment_of_its_start(tmp_path, mode, seconds):
    choice = random.Random(f"{SEED} {mode}")
    print(f"A3C_FAULT_SEED={SEED}")
    for number in range(KILLS):
        delay = choice.uniform(0, seconds)
        folder = tmp_path / str(number)
        folder.mkdir()
        with running(folder, "--mode", mode, "--data.workers", 2, *ENDLESS, fresh=seconds > 1) as run:
            time.sleep(delay)  # the moment is what varies
            run.send(signal.SIGKILL)
            run.process.wait()
            print(f"{mode}: killed after {delay:.2f} s, nothing left {run.assert_clean(2.0):.2f} s later")
