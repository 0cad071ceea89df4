"""Signals: a run ends after the update at hand, with a checkpoint and the signal's status; in time; handlers go."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import fit
from lightning.pytorch import Trainer
from shared_server import PATHS, ForkedScript

import a3c.training.cli.run
from a3c import NStep
from a3c.batch import Episode
from a3c.evaluation.evaluator import Evaluation, Evaluator
from a3c.learner.learning import Learning
from a3c.runs import checkpoints
from a3c.runs.checkpoints import LAST, PREVIOUS, newest_valid
from a3c.training.callbacks import BudgetBar, Checkpoints, Interruption
from a3c.training.callbacks.interruption import SAME_SECONDS, SIGNALS, requeue
from a3c.training.cli.command import main
from a3c.training.fit_end import FitEnd

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs" / "cartpole.yaml"
SECONDS = 5.0 * 2  # the promise, doubled for a machine that does other things as well
ENDLESS = [
    *("--data.envs_per_worker", "2", "--data.max_env_steps", "1000000000", "--stop_when_solved", "false"),
    *("--evaluation.every_env_steps", "1000000000", "--run_dir", "run", "--trainer.log_every_n_steps", "1"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] > SECONDS or before[signal.SIGALRM] == signal.SIG_DFL


def send(number):
    os.kill(os.getpid(), number)


class Sender:
    """Sends this process a signal once something is the case, and measures how long what follows takes."""

    def __init__(self, number, when):
        self._number, self._when = number, when
        self._sent_at = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self):
        deadline = time.monotonic() + 60
        while not self._when() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        self._sent_at = time.monotonic()
        send(self._number)

    def seconds(self):
        self._thread.join()
        return time.monotonic() - self._sent_at


def logged(steps=1):
    def enough():
        path = Path("run/metrics.csv")
        return path.exists() and len(path.read_text().splitlines()) > steps

    return enough


def check_ended(number, capfd):
    """One message, a checkpoint of all updates, and a summary."""
    error = capfd.readouterr().err
    assert error.count(number.name) == 1, error
    assert "Traceback" not in error
    saved = checkpoints.load(newest_valid(Path("run/checkpoints")))["a3c"]
    summary = json.loads(Path("run/summary.json").read_text())
    assert saved["updates"] == summary["updates"] > 0
    assert saved["env_steps"] == summary["env_steps"]
    assert summary["interrupted"]
    return error


# ---------------------------------------------------------------- rows 15 and 16: once


@pytest.mark.parametrize(
    ("number", "status", "mode"),
    [(signal.SIGINT, 130, "sync"), (signal.SIGTERM, 143, "async"), (signal.SIGTERM, 143, "hogwild")],
)
def test_row_15_and_16_a_signal_in_the_course_of_updates_ends_the_run_with_a_checkpoint(capfd, number, status, mode):
    sender = Sender(number, logged(2))  # the names, the evaluation before training, and an update
    assert main(CONFIG, [*ENDLESS, "--mode", mode]) == status
    assert sender.seconds() < SECONDS
    check_ended(number, capfd)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_row_16_a_signal_in_an_update_of_many_gradient_steps_ends_it_after_the_one_at_hand(
    capfd, caplog, monkeypatch, mode
):
    begun = []

    def gradient_steps(*args):
        for step in original(*args):
            begun.append(step.number)
            yield step

    original = Learning.gradient_steps
    monkeypatch.setattr(Learning, "gradient_steps", gradient_steps)
    sender = Sender(signal.SIGTERM, lambda: begun)
    assert main(CONFIG, [*ENDLESS, "--model.passes", "2000", "--model.minibatches", "4", "--mode", mode]) == 143
    assert sender.seconds() < SECONDS
    check_ended(signal.SIGTERM, capfd)
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["gradient_steps"] == len(begun) < 8000
    assert f"the update ended after {len(begun)} gradient steps" in caplog.text


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_row_16_a_signal_while_the_learner_waits_for_data_ends_the_run_with_a_checkpoint(capfd, mode):
    env = ["--data.env", "a3c.envs.faulty:Faulty-v0", "--evaluation.final_episodes", "0"]
    env += ["--data.env_kwargs", '{"kind": "hang", "at_step": 200, "in_parent": true}']
    sender = Sender(signal.SIGTERM, logged(2))
    assert main(CONFIG, [*ENDLESS, *env, "--mode", mode]) == 143
    assert sender.seconds() < SECONDS
    check_ended(signal.SIGTERM, capfd)


def asleep_in(number, monkeypatch):
    """Has an evaluation of a run hang after a signal, and the others before it make no difference."""
    made = []

    def play(*args):
        made.append(args)
        if len(made) == number:
            send(signal.SIGTERM)
            time.sleep(1000)
        return Evaluation([Episode(1.0, 1)])

    monkeypatch.setattr(Evaluator, "__call__", play)


def test_row_16_a_signal_in_an_evaluation_before_training_ends_the_run(capfd, monkeypatch):
    asleep_in(1, monkeypatch)
    assert main(CONFIG, [*ENDLESS, "--mode", "sync"]) == 143
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "run folder:" in printed.out
    assert "to go on:" not in printed.out  # there is nothing to go on from
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["interrupted"]
    assert summary["updates"] == 0


@pytest.mark.parametrize("final", [False, True])
def test_row_16_a_signal_in_an_evaluation_that_hangs_ends_the_run_with_a_checkpoint(capfd, monkeypatch, final):
    asleep_in(2, monkeypatch)  # the first one is before training
    evaluation = ["--data.max_env_steps", "200"] if final else ["--evaluation.every_env_steps", "200"]
    started = time.monotonic()
    assert main(CONFIG, [*ENDLESS, "--mode", "sync", *evaluation]) == 143
    assert time.monotonic() - started < 2 * SECONDS
    check_ended(signal.SIGTERM, capfd)


@pytest.mark.parametrize("at", [1, 3])
def test_row_16_a_signal_during_a_checkpoint_leaves_the_old_or_the_new_one(tmp_path, monkeypatch, at):
    real, calls = os.fsync, []

    def signalled(descriptor):
        calls.append(descriptor)
        if len(calls) == at:
            send(signal.SIGTERM)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", signalled)
    interruption = Interruption()
    interruption.install()
    try:
        model, _, _ = fit(NStep(8), callbacks=[interruption, Checkpoints(tmp_path, every_seconds=1e-9)])
    finally:
        interruption.restore()
    assert interruption.signal == signal.SIGTERM
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS}
    assert checkpoints.load(newest_valid(tmp_path))["a3c"]["updates"] == model.updates > 0


def test_row_15_an_update_is_never_broken_off(tmp_path, monkeypatch):
    from a3c.training.callbacks import interruption as room

    monkeypatch.setattr(room, "GRACE_SECONDS", 0.05)
    finished = []

    class Slow(BudgetBar):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if pl_module.updates == 3:
                send(signal.SIGTERM)
                time.sleep(0.5)
                finished.append(pl_module.updates)

    interruption = Interruption()
    interruption.install()
    try:
        model, _, _ = fit(NStep(8), callbacks=[interruption, Slow(), Checkpoints(tmp_path)], env="CartPole-v1")
    finally:
        interruption.restore()
    assert finished == [3]
    assert model.updates == 4
    assert checkpoints.load(tmp_path / LAST)["a3c"]["updates"] == 4


def test_row_15_one_ctrl_c_that_arrives_twice_is_one(monkeypatch, capfd):
    left = []
    monkeypatch.setattr(Interruption, "_leave", staticmethod(lambda: left.append(True)))
    interruption = Interruption()
    interruption.install()
    try:
        trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        trainer.datamodule = SimpleNamespace(stopping=FitEnd(trainer))
        interruption.on_train_start(trainer, None)
        send(signal.SIGINT)
        send(signal.SIGINT)  # from a wrapper that passes it on
        assert not left
        time.sleep(SAME_SECONDS)
        send(signal.SIGINT)
        assert left
    finally:
        interruption.restore()
    assert capfd.readouterr().err.count("SIGINT") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_in_the_start_up_ends_the_run_before_it_began(capfd, monkeypatch, number, status):
    def stuck(*args, **kwargs):
        send(number)
        time.sleep(1000)

    monkeypatch.setattr(a3c.training.cli.run, "make_wandb_logger", stuck)
    assert main(CONFIG, [*ENDLESS, "--mode", "sync"]) == status
    assert capfd.readouterr().err == f"{number.name}: the run ends before its first update\n"
    assert not Path("run/checkpoints").exists()


def test_a_signal_while_workers_start_ends_the_run(capfd, monkeypatch):
    from a3c.rollouts.workers.pool import WorkerPool

    def stuck(*args, **kwargs):
        send(signal.SIGINT)
        time.sleep(1000)

    monkeypatch.setattr(WorkerPool, "start", stuck)
    assert main(CONFIG, [*ENDLESS, "--mode", "async"]) == 130
    assert capfd.readouterr().err.count("SIGINT") == 1


def test_a_signal_that_somebody_swallowed_still_ends_the_run(capfd, monkeypatch):
    real = a3c.training.cli.run.make_wandb_logger

    def swallow(*args, **kwargs):
        try:
            send(signal.SIGTERM)
            time.sleep(1)
        except SystemExit:
            pass
        return real(*args, **kwargs)

    monkeypatch.setattr(a3c.training.cli.run, "make_wandb_logger", swallow)
    assert main(CONFIG, [*ENDLESS, "--mode", "sync"]) == 143


def test_a_failure_after_a_signal_is_a_failure(capfd, monkeypatch):
    def fail(self, trainer, module):
        send(signal.SIGTERM)
        raise ZeroDivisionError("at the end")

    monkeypatch.setattr(BudgetBar, "on_train_end", fail)
    assert main(CONFIG, [*ENDLESS, "--mode", "sync", "--data.max_env_steps", "200"]) == 1
    assert "ZeroDivisionError: at the end" in capfd.readouterr().err


def test_a_signal_does_not_break_off_the_save_after_an_exception(tmp_path, monkeypatch):
    from a3c.training.callbacks import interruption as room

    monkeypatch.setattr(room, "GRACE_SECONDS", 0.2)
    real = checkpoints._write

    class Fail(BudgetBar):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if pl_module.updates == 3:
                send(signal.SIGTERM)
                raise ZeroDivisionError

    monkeypatch.setattr(checkpoints, "_write", lambda *args: (real(*args), time.sleep(0.5)))
    interruption = Interruption()
    interruption.install()
    try:
        with pytest.raises(ZeroDivisionError):
            fit(NStep(8), callbacks=[interruption, Fail(), Checkpoints(tmp_path)], env="CartPole-v1")
    finally:
        interruption.restore()
    assert checkpoints.load(tmp_path / LAST)["a3c"]["updates"] == 3


# ---------------------------------------------------------------- row 15: twice


class Child:
    """The training program in a process of its own."""

    def __init__(self, folder, *arguments, script=ROOT / "scripts" / "train.py", **variables):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        environment = {**kept, "PYTHONPATH": PATHS, "WANDB_MODE": "disabled", **variables}
        self.process = ForkedScript([sys.executable, script, *arguments], folder, environment)
        self.error = ""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.process.kill()
        self.error += self.process.communicate()[1]

    def wait_until(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def send(self, number):
        self.process.send_signal(number)

    def end(self, seconds):
        started = time.monotonic()
        status = self.process.wait(60)
        assert time.monotonic() - started < seconds
        return status


def test_row_15_a_second_ctrl_c_in_the_middle_of_a_save_leaves_at_once_and_the_old_checkpoint_whole(tmp_path):
    script = Path(__file__).parent / "slow_save.py"
    temporary = tmp_path / "run/checkpoints/.last.tmp.ckpt"
    arguments = [*ENDLESS, "--mode", "async", "--checkpoint.every_seconds", "0.1"]
    with Child(tmp_path, *arguments, script=script) as child:
        child.wait_until(lambda: (tmp_path / "run/checkpoints" / LAST).exists() and temporary.exists())
        child.send(signal.SIGINT)
        child.send(signal.SIGINT)  # one Ctrl-C, delivered twice
        time.sleep(1)
        assert child.process.poll() is None
        child.send(signal.SIGTERM)
        child.send(signal.SIGINT)
        assert child.end(2 * 2) == 130
    assert child.error.count("SIGINT") == 1
    assert temporary.exists()
    assert newest_valid(tmp_path / "run/checkpoints").name == LAST


# ---------------------------------------------------------------- row 17: SLURM

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "a3c",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "4",  # with its own SLURM environment on, Lightning would refuse this
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.fixture
def scontrol(tmp_path):
    """A scontrol that notes how it is called; gives the folder that it lies in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexit ${{SCONTROL_STATUS:-0}}\n')
    script.chmod(0o755)
    (folder / "srun").write_text("#!/bin/sh\nexit 1\n")
    (folder / "srun").chmod(0o755)
    return folder


def calls(folder):
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_row_17_a_preempted_job_saves_is_requeued_once_and_goes_on(tmp_path, scontrol, monkeypatch):
    path = f"{scontrol}{os.pathsep}{os.environ['PATH']}"
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another project, which Lightning would take up")
    job = [*ENDLESS, "--mode", "async", "--ckpt_path", "auto"]
    with Child(tmp_path, *job, PATH=path, **SLURM) as child:
        child.wait_until(logged())
        for _ in range(5):
            child.send(signal.SIGUSR1)
            time.sleep(0.05)
        child.send(signal.SIGTERM)  # SLURM's, later
        assert child.end(SECONDS) == 138
    assert calls(scontrol) == ["requeue 17"]
    assert child.error.count("SIGUSR1") == 1
    assert "srun" not in child.error
    before = checkpoints.load(newest_valid(tmp_path / "run/checkpoints"))["a3c"]
    budget = ["--data.max_env_steps", str(before["env_steps"] + 1000), "--evaluation.final_episodes", "0"]
    for name, value in {"PATH": path, **SLURM}.items():
        monkeypatch.setenv(name, value)
    assert main(CONFIG, [*job, *budget]) == 0
    after = json.loads((tmp_path / "run/summary.json").read_text())
    assert after["env_steps"] >= before["env_steps"] + 1000
    assert after["resumed_from"] == "run/checkpoints/last.ckpt"
    assert calls(scontrol) == ["requeue 17"]


def test_row_17_where_the_job_cannot_be_requeued_that_is_a_warning(scontrol, monkeypatch, caplog):
    requeue()
    assert calls(scontrol) == []  # no job
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", "")
    requeue()
    assert "job 17 is not requeued: " in caplog.text
    monkeypatch.setenv("PATH", str(scontrol))
    monkeypatch.setenv("SCONTROL_STATUS", "1")
    caplog.clear()
    requeue()
    assert calls(scontrol) == ["requeue 17"]
    assert "job 17 is not requeued: scontrol: 1" in caplog.text
