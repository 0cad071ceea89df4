"""Several learners of one run: global counts, one end for all, and no hang when one dies, raises or is stopped."""

import os
import signal

import pytest
from harness import ROOT, complaints, faulty, running
from processes import processes_of

STEPS = 32 * 2 * 2  # of an update: two learners with two environments each
TWO = ["--trainer.devices", "2", "--model.returns", "NStep", "--model.returns.n_steps", "32"]
ENDLESS = ["--data.max_env_steps", "1000000000"]
BUDGET = ["--data.max_env_steps", "2000"]
ALLOW = ["--allow", "second_learner_env"]


def others(run):
    """Process ids of the learners that the first one has started."""
    found = [each for each in processes_of(run.mark) if each.parent == run.process.pid and "train.py" in each.command]
    return [each.pid for each in found]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_two_learners_share_a_budget_and_its_counts(tmp_path, mode):
    with running(tmp_path, *TWO, "--mode", mode, "--data.max_env_steps", str(10 * STEPS)) as run:
        assert run.wait() == 0, run.errors
    summary = run.summary()
    counted = summary["trained_env_steps"] + summary["dropped_env_steps"] + summary["in_flight_env_steps"]
    assert summary["learners"] == 2
    assert summary["collected_env_steps"] == counted
    assert summary["env_steps"] >= 10 * STEPS
    assert summary["updates"] * STEPS >= summary["trained_env_steps"] > summary["updates"] * STEPS * 0.8  # resets
    steps = [float(row["env_steps"]) for row in run.rows()]
    assert steps == sorted(steps)
    columns = sum(summary["policy_lag_columns"].values())
    assert columns == summary["updates"] * 4  # of both learners
    assert complaints(run.errors) == []


def test_learners_collect_other_episodes(tmp_path):
    """With the same ones twice as many columns would teach nothing more."""
    lengths = {}
    for devices in ("1", "2"):
        folder = tmp_path / devices
        folder.mkdir()
        with running(folder, *TWO[2:], "--trainer.devices", devices, "--mode", "sync", *BUDGET) as run:
            assert run.wait() == 0, run.errors
        lengths[devices] = [row["rollout/episode_length"] for row in run.rows()]
    assert lengths["1"] != lengths["2"]


SLOW = ["--mode", "sync", *faulty("slow", at_step=0, seconds=0.5, in_parent=True), "--model.returns.n_steps", "8"]
SLOW += ["--data.envs_per_worker", "1", "--evaluation.final_episodes", "0", "--evaluation.every_env_steps", "null"]


@pytest.mark.parametrize(
    ("which", "arguments"), [("first", []), ("other", []), ("other", SLOW)], ids=["first", "other", "in a slow step"]
)
def test_a_signal_to_one_ends_all_in_order(tmp_path, which, arguments):
    with running(tmp_path, *TWO, *ENDLESS, *arguments) as run:
        run.wait_for_updates(2)
        os.kill(run.process.pid if which == "first" else others(run)[0], signal.SIGTERM)
        assert run.wait(30) == 128 + signal.SIGTERM, run.errors
    assert run.summary()["interrupted"]
    assert run.checkpoints() == ["last.ckpt"]
    assert "error" not in run.errors


def test_one_that_is_killed_ends_the_run_with_a_checkpoint(tmp_path):
    with running(tmp_path, *TWO, *ENDLESS, "--model.passes", "4", "--model.ratio_clip", "0.2") as run:
        run.wait_for_updates(3)
        os.kill(others(run)[0], signal.SIGKILL)
        assert run.wait(30) == 1
    assert "error: learner 1 was killed by SIGKILL" in run.errors
    assert "the newest checkpoint is run/checkpoints/last.ckpt" in run.errors
    assert run.summary()["failed"]


def test_nothing_is_left_when_the_first_is_killed(tmp_path):
    with running(tmp_path, *TWO, *ENDLESS, within=20.0) as run:
        run.wait_for_updates(3)
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait(30)


def test_one_that_cannot_start_ends_the_run(tmp_path):
    with running(tmp_path, *TWO, *ENDLESS, "--data.env", "second_learner_env:NeverMadeInSecond-v0", *ALLOW) as run:
        assert run.wait(60) == 1, run.errors
    assert "error: learner 1 ended with status 9" in run.errors


def test_what_an_environment_raises_in_another_learner_is_said(tmp_path):
    environment = ["--data.env", "second_learner_env:BreaksInSecond-v0", "--data.on_worker_failure", "raise", *ALLOW]
    with running(tmp_path, *TWO, *ENDLESS, *environment) as run:
        assert run.wait(60) == 1
    assert "error: learner 1: " in run.errors
    assert "learner 1 ended with status 1" in run.errors


def test_a_run_goes_on_with_another_number_of_learners(tmp_path):
    with running(tmp_path, *TWO, "--data.max_env_steps", str(5 * STEPS)) as run:
        assert run.wait() == 0, run.errors
    before = run.summary()
    again = ["--ckpt_path", "last", "--data.max_env_steps", str(15 * STEPS)]
    with running(tmp_path, *TWO[2:], *again) as run:
        assert run.wait() == 0, run.errors
    alone = run.summary()
    assert (alone["learners"], alone["env_steps"] > before["env_steps"]) == (1, True)
    with running(tmp_path, *TWO, *again[:2], "--data.max_env_steps", str(25 * STEPS)) as run:
        assert run.wait() == 0, run.errors
    assert run.summary()["learners"] == 2
    assert run.summary()["env_steps"] >= 25 * STEPS
    assert run.summary()["updates"] > alone["updates"] > before["updates"]


def test_torchrun_starts_learners_too(tmp_path):
    under_torchrun = ROOT / "tests" / "faults" / "under_torchrun.py"
    budget = ["--data.max_env_steps", str(5 * STEPS)]
    with running(tmp_path, *TWO, *budget, script=under_torchrun, fresh=True) as run:
        assert run.wait() == 0, run.errors
    assert run.summary()["learners"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trainer.devices", "2", "--mode", "hogwild"], "trainer.devices: got 2 in mode hogwild, must be 1: "),
        (["--trainer.devices", "2", "--data.max_episodes_per_worker", "5"], "trainer.devices: got 2 with "),
        (["--trainer.strategy", "ddp_spawn"], "trainer.strategy: got DDPStrategy, must be auto or ddp"),
        (["--trainer.devices", "0"], "trainer"),
    ],
)
def test_what_several_learners_cannot_do_is_refused(tmp_path, arguments, words):
    with running(tmp_path, *arguments) as run:
        assert run.wait() == 2, run.errors
    assert run.errors.startswith(f"train.py: error: {words}"), run.errors
    assert not run.run_folder.exists()
