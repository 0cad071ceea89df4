"""Checkpoint files that survive kills, full disks and bad disks, and runs that go on in their folder."""

import csv
import errno
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers import fit
from lightning.pytorch import Callback
from optimizers import SlowCount

from a3c import NStep, load
from a3c.batch import Episode
from a3c.evaluation.evaluator import Evaluation, Evaluator
from a3c.runs import checkpoints
from a3c.runs.checkpoints import (
    DAMAGED,
    FORMAT,
    LAST,
    PREVIOUS,
    CheckpointError,
    DamagedCheckpointError,
    newest_valid,
    save,
    tidy,
)
from a3c.runs.folder import FolderInUseError, FolderLock, rewind
from a3c.training.callbacks import BudgetBar, Checkpoints
from a3c.training.callbacks.checkpoints import CheckpointSaveError
from a3c.training.cli.command import main

ROOT = Path(__file__).parent.parent.parent
DIGEST = 32  # bytes
CONFIG = ROOT / "configs" / "cartpole.yaml"
SMALL = [
    *("--mode", "sync", "--data.envs_per_worker", "8", "--data.max_env_steps", "4000"),
    *("--evaluation.every_env_steps", "2000", "--evaluation.episodes", "2", "--evaluation.final_episodes", "2"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """W&B off, where a test does not ask for it, and a command line of our own."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "argv", ["train.py"])


def checkpoint(number=0, size=1000):
    return {"number": number, "weights": torch.arange(size, dtype=torch.float32)}


def random_with_seed():
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    return random.Random(seed)


def environment():
    """This process's, with the project to import, and less what W&B left in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def numbers(folder):
    return [torch.load(folder / name, weights_only=True)["number"] for name in (LAST, PREVIOUS)]


# ---------------------------------------------------------------- rows 19 and 20: files


def test_row_19_of_50_kills_during_a_save_each_leaves_the_newest_checkpoint_whole(tmp_path):
    chance = random_with_seed()
    saved = 0
    command = [sys.executable, str(Path(__file__).parent / "saving_child.py"), str(tmp_path)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        for _ in range(50):
            server.stdin.write(f"{saved}\n")
            server.stdin.flush()
            pid, announced = None, []
            wanted = chance.randrange(1, 4)
            while pid is None or len(announced) < wanted:
                word, _, rest = server.stdout.readline().strip().partition(" ")
                pid, announced = (int(rest), announced) if word == "pid" else (pid, [*announced, int(word)])
            time.sleep(chance.random() * 0.01)
            os.kill(pid, signal.SIGKILL)
            while (line := server.stdout.readline()) != "gone\n":
                announced.append(int(line))
            saved = torch.load(newest_valid(tmp_path), weights_only=True)["number"]
            assert announced[-1] <= saved <= announced[-1] + 1
    finally:
        server.kill()
        server.communicate()
    tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS}


def test_row_20_a_checkpoint_truncated_anywhere_is_refused(tmp_path, caplog):
    file = tmp_path / "whole.ckpt"
    save(checkpoint(), file)
    whole, cut = file.read_bytes(), tmp_path / "cut.ckpt"
    archive = len(whole) - DIGEST  # cut there it is a plain file of torch.save, with all that was saved
    for length in {*range(0, len(whole), 97), *range(len(whole) - 200, len(whole))} - {archive}:
        cut.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpointError, match=r"cut\.ckpt: (not a checkpoint|damaged)"):
            checkpoints.load(cut)
    cut.write_bytes(whole[:archive])
    assert torch.equal(checkpoints.load(cut)["weights"], checkpoint()["weights"])
    assert "cut.ckpt has no digest" in caplog.text


def test_row_20_every_flipped_bit_is_noticed(tmp_path):
    chance = random_with_seed()
    file = tmp_path / "whole.ckpt"
    save(checkpoint(), file)
    whole, flipped = file.read_bytes(), tmp_path / "flipped.ckpt"
    tail = 8 * (22 + DIGEST)  # the end record and the digest, whose every bit is tried
    bits = [*chance.sample(range(8 * len(whole) - tail), 1000), *range(8 * len(whole) - tail, 8 * len(whole))]
    for bit in bits:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        flipped.write_bytes(data)
        with pytest.raises(DamagedCheckpointError, match=r"flipped\.ckpt: (not a checkpoint|damaged)"):
            checkpoints.load(flipped)


def test_row_20_what_follows_a_checkpoint_is_noticed(tmp_path):
    file = tmp_path / "longer.ckpt"
    save(checkpoint(), file)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DamagedCheckpointError, match=r"longer\.ckpt: damaged"):
        checkpoints.load(file)


def test_row_20_the_one_before_a_damaged_checkpoint_is_taken_with_a_loud_warning(tmp_path, caplog):
    save(checkpoint(1), tmp_path / LAST)
    save(checkpoint(2), tmp_path / LAST)
    assert numbers(tmp_path) == [2, 1]
    assert newest_valid(tmp_path).name == LAST
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:-1])
    assert newest_valid(tmp_path).name == PREVIOUS
    assert "NOT USED" in caplog.text
    tidy(tmp_path)  # as a run does that goes on
    save(checkpoint(3), tmp_path / LAST)
    assert numbers(tmp_path)[0] == 3
    assert numbers(tmp_path)[1] == 1, "the damaged one must not take the place of a good one"
    assert (tmp_path / DAMAGED).exists()


def test_row_20_where_no_checkpoint_holds_that_is_an_error_and_not_a_beginning(tmp_path):
    with pytest.raises(FileNotFoundError):
        newest_valid(tmp_path)
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match=r"of last\.ckpt and previous\.ckpt none holds"):
        newest_valid(tmp_path)


def test_row_20_a_leftover_temporary_file_is_ignored_and_cleaned_by_the_next_run(tmp_path):
    save(checkpoint(1), tmp_path / LAST)
    leftover = tmp_path / ".last.tmp.ckpt"
    leftover.write_bytes(b"half a checkpoint")
    assert newest_valid(tmp_path).name == LAST
    tidy(tmp_path)
    assert not leftover.exists()
    assert newest_valid(tmp_path).name == LAST


def test_torch_reads_a_file_with_a_digest_and_a_plain_file_of_torch_is_read_with_a_warning(tmp_path, caplog):
    ours, plain = tmp_path / "ours.ckpt", tmp_path / "plain.ckpt"
    save(checkpoint(), ours)
    assert torch.equal(torch.load(ours, weights_only=True)["weights"], checkpoint()["weights"])
    assert torch.equal(checkpoints.load(ours)["weights"], checkpoint()["weights"])
    assert not caplog.records
    torch.save(checkpoint(), plain)
    assert torch.equal(checkpoints.load(plain)["weights"], checkpoint()["weights"])
    assert "plain.ckpt has no digest" in caplog.text


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    save(checkpoint(1), tmp_path / LAST)
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder with the name
    calls.clear()
    save(checkpoint(2), tmp_path / LAST)
    assert calls == ["fsync", "link", "replace", "replace", "fsync"]


def test_without_hard_links_two_checkpoints_are_kept_as_well(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    for number in range(3):
        save(checkpoint(number), tmp_path / LAST)
    assert numbers(tmp_path) == [2, 1]


def test_a_damaged_checkpoint_is_refused_as_an_agent_too(tmp_path):
    fit(NStep(8), callbacks=[Checkpoints(tmp_path)], max_env_steps=100, env="CartPole-v1")
    data = bytearray((tmp_path / LAST).read_bytes())
    assert load(tmp_path / LAST).env.id == "CartPole-v1"
    data[len(data) // 2] ^= 1
    (tmp_path / LAST).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged"):
        load(tmp_path / LAST)


# ---------------------------------------------------------------- row 18: a full disk


def test_row_18_a_real_short_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    script = "\n".join(
        [
            "import sys, torch, pathlib, errno, resource",
            "from a3c.runs.checkpoints import save",
            "path = pathlib.Path(sys.argv[1])",
            "save({'number': 1}, path)",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))",
            "try:",
            "    save({'weights': torch.ones(100_000)}, path)",
            "except OSError as error:",
            "    sys.exit(0 if error.errno == errno.EFBIG else 1)",
        ]
    )
    command = [sys.executable, "-c", script, str(tmp_path / LAST)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [LAST]
    assert checkpoints.load(tmp_path / LAST) == {"number": 1}


class FullDisk:
    """Lets some saves fail, counted from 1."""

    def __init__(self, monkeypatch, failing):
        self.saves, self.failed = 0, 0
        real = checkpoints._write

        def write(checkpoint, path):
            self.saves += 1
            if self.saves in failing:
                self.failed += 1
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(checkpoint, path)

        monkeypatch.setattr(checkpoints, "_write", write)


def test_row_18_a_full_disk_is_a_warning_and_the_save_is_tried_again(tmp_path, monkeypatch, caplog):
    disk = FullDisk(monkeypatch, {2, 3, 5, 6})  # never three in a row
    fit(NStep(8), callbacks=[Checkpoints(tmp_path, every_seconds=1e-9)], max_env_steps=320)
    assert disk.failed == 4
    assert disk.saves > 7
    assert caplog.text.count("checkpoint not saved") == 4
    assert "No space left on device" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS}
    assert checkpoints.load(tmp_path / LAST)["a3c"]["env_steps"] >= 320


def test_row_18_a_run_fails_after_the_third_save_in_a_row_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    FullDisk(monkeypatch, range(3, 10**9))
    with pytest.raises(CheckpointSaveError, match=r"3 times in a row: .*No space left on device"):
        fit(NStep(8), callbacks=[Checkpoints(tmp_path, every_seconds=1e-9)], max_env_steps=10**6)
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS}
    assert checkpoints.load(newest_valid(tmp_path))["a3c"]["updates"] == 2


@pytest.mark.parametrize(("failures", "status"), [(2, 0), (3, 1)])
def test_row_18_the_last_save_is_tried_three_times_and_then_the_run_has_failed(
    tmp_path, monkeypatch, capfd, failures, status
):
    monkeypatch.chdir(tmp_path)
    disk = FullDisk(monkeypatch, range(1, 2 + failures))  # that of best.ckpt comes before it, once
    arguments = [*SMALL, "--run_dir", "run", "--evaluation.every_env_steps", "100000"]
    assert main(CONFIG, [*arguments, "--evaluation.final_episodes", "0"]) == status
    assert disk.failed == 1 + failures
    assert (tmp_path / "run/checkpoints/last.ckpt").exists() == (status == 0)
    if status:
        error = capfd.readouterr().err
        assert "error: checkpoint not saved 3 times in a row: [Errno 28] No space left on device" in error
        assert re.fullmatch(r"error: failed after 4,\d\d\d env steps; there is no checkpoint", last_line(error))


def last_line(text):
    return text.strip().splitlines()[-1]


# ---------------------------------------------------------------- what is saved


class Poison(Callback):
    """Makes a weight infinite after some updates."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        if pl_module.updates == 5:
            next(iter(pl_module.network.parameters())).data.view(-1)[0] = float("inf")


def test_row_27_weights_that_are_not_finite_are_never_saved(tmp_path, caplog):
    callbacks = [Poison(), Checkpoints(tmp_path, every_seconds=1e-9)]
    fit(NStep(8), callbacks=callbacks, max_env_steps=320)
    assert checkpoints.load(tmp_path / LAST)["a3c"]["updates"] == 4
    assert "not finite; the one before it is kept" in caplog.text


class EverySnapshot(Callback):
    """Keeps what every checkpoint holds."""

    def __init__(self, path):
        self.path, self.seen = path, []

    def on_train_batch_end(self, trainer, pl_module, *args):
        if self.path.exists():
            self.seen.append(checkpoints.load(self.path))


def test_row_25_no_checkpoint_of_hogwild_holds_half_an_update(tmp_path):
    snapshots = EverySnapshot(tmp_path / LAST)
    fit(
        NStep(8),
        mode="hogwild",
        workers=1,  # with more of them increments get lost, which is Hogwild, and no torn snapshot
        callbacks=[Checkpoints(tmp_path, every_seconds=1e-9), snapshots],
        learning={"optimizer": lambda parameters: SlowCount(parameters, lr=1.0)},
        max_env_steps=1000,
    )
    assert len(snapshots.seen) > 3
    first = snapshots.seen[0]
    assert first["a3c"]["updates"] < snapshots.seen[-1]["a3c"]["updates"]
    for snapshot in snapshots.seen[1:]:
        steps = snapshot["a3c"]["updates"] - first["a3c"]["updates"]
        for key, value in snapshot["state_dict"].items():
            assert torch.allclose(value - first["state_dict"][key], torch.tensor(float(steps)), atol=1e-3), key
        assert snapshot["a3c"]["env_steps"] <= 1000 + 32


# ---------------------------------------------------------------- row 22: another run's checkpoint


def rewritten(source, target, **changes):
    saved = torch.load(source, weights_only=True)
    saved["a3c"].update(changes)
    save(saved, target)
    return str(target)


def test_row_22_a_checkpoint_of_another_format_is_refused_and_another_discount_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(CONFIG, [*SMALL, "--run_dir", "run"]) == 0
    last = Path("run/checkpoints/last.ckpt")
    capfd.readouterr()
    for version in (FORMAT - 1, FORMAT + 1):
        other = rewritten(last, Path("other.ckpt"), format=version)
        reason = f"other.ckpt: was saved in format {version} by another a3c, must be of format {FORMAT}"
        assert main(CONFIG, [*SMALL, "--ckpt_path", other]) == 2
        assert capfd.readouterr().err == f"train.py: error: ckpt_path: {reason}\n"
        with pytest.raises(CheckpointError, match=f"^{reason}$"):
            load(other)
    assert not Path("runs").exists()
    changed = ["--model.discount", "0.9", "--data.max_env_steps", "4200", "--run_dir", "other"]
    assert main(CONFIG, [*SMALL, "--ckpt_path", str(last), *changed]) == 0
    logged = Path("other/log.txt").read_text()
    assert logged.count("from here on") == logged.count(" was ") == 3  # the checkpoint's path is no change
    for change in (
        " discount was 0.99 in the checkpoint, and is 0.9 from here on",
        "model.discount was 0.99 in the checkpoint, and is 0.9 from here on",
        "data.max_env_steps was 4000 in the checkpoint, and is 4200 from here on",
    ):
        assert change in logged


# ---------------------------------------------------------------- going on in a folder


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        assert main(CONFIG, [*SMALL, "--seed_everything", "7"]) == 0
    return folder


@pytest.fixture
def run(first_run, tmp_path, monkeypatch):
    """A copy of a run that has ended at 4096 env steps."""
    shutil.copytree(first_run, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    (config,) = Path("runs").rglob("config.yaml")
    return config.parent


def go_on(*arguments):
    return main(CONFIG, [*SMALL, "--seed_everything", "7", "--data.max_env_steps", "8000", *arguments])


def test_last_goes_on_in_the_folder_of_the_newest_run_and_env_steps_never_rewind(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    before = rows_of(run)
    first_config = (run / "config.yaml").read_text()
    # As a run leaves it that was killed after its last checkpoint, in the middle of a line.
    text = (run / "metrics.csv").read_text()
    beyond = before[-1] | {"env_steps": "5000.0"}
    with (run / "metrics.csv").open("a", newline="") as file:
        csv.DictWriter(file, beyond).writerow(beyond)
        file.write(text.splitlines()[-1][:20])
    assert go_on("--ckpt_path", "last") == 0
    after = rows_of(run)
    assert after[: len(before)] == before
    steps = [float(row["env_steps"]) for row in after]
    assert steps == sorted(steps)
    assert 5000.0 not in steps
    assert steps[-1] >= 8000
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env_steps"] >= 8000
    assert summary["resumed_from"].endswith("checkpoints/last.ckpt")
    assert summary["dropped_by_reason"] == {}
    assert [summary[key] for key in ("worker_deaths", "worker_restarts", "skipped_updates")] == [0, 0, 0]
    assert (run / "config.yaml").read_text() == first_config
    again = yaml.safe_load((run / "config-2.yaml").read_text())
    assert again["data"]["max_env_steps"] == 8000
    log = (run / "log.txt").read_text()
    assert "1 torn line(s) at its end cut" in log
    assert "1 line(s) beyond the checkpoint cut" in log
    ids = {
        torch.load(run / "checkpoints" / name, weights_only=True)["a3c"]["wandb_run_id"]
        for name in ("last.ckpt", "previous.ckpt")
    }
    assert len(ids) == 1
    assert len(list(Path("runs").rglob("config.yaml"))) == 1


def test_row_20_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(run):
    folder = run / "checkpoints"
    save(torch.load(folder / LAST, weights_only=True), folder / LAST)
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-5])
    assert go_on("--ckpt_path", "last", "--run_dir", str(run)) == 0
    assert "previous.ckpt" in json.loads((run / "summary.json").read_text())["resumed_from"]
    assert newest_valid(folder).name == LAST


@pytest.mark.parametrize("wanted", ["last", "auto"])
def test_row_20_a_folder_without_a_valid_checkpoint_is_refused(run, capfd, wanted):
    metrics = (run / "metrics.csv").read_bytes()
    (run / "checkpoints" / LAST).write_bytes(b"nothing")
    assert go_on("--ckpt_path", wanted, "--run_dir", str(run)) == 2
    assert "of last.ckpt none holds" in capfd.readouterr().err
    assert (run / "metrics.csv").read_bytes() == metrics


def test_last_without_any_checkpoint_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert go_on("--ckpt_path", "last") == 2
    assert "got 'last', but no run of seed 7 in runs/CartPole-v1/NStep-sync has a checkpoint" in capfd.readouterr().err
    assert go_on("--ckpt_path", "last", "--run_dir", "nowhere") == 2
    assert "got 'last', but nowhere has no checkpoint" in capfd.readouterr().err
    assert go_on("--ckpt_path", "auto") == 2
    assert "got 'auto' without a run folder" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_auto_begins_where_there_is_no_checkpoint_and_goes_on_where_there_is_one(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    arguments = [*SMALL, "--ckpt_path", "auto", "--run_dir", "job"]
    assert main(CONFIG, arguments) == 0
    assert "ckpt_path: auto: job has no checkpoint, so the run begins anew\n" in capfd.readouterr().err
    assert json.loads(Path("job/summary.json").read_text())["resumed_from"] is None
    assert main(CONFIG, [*arguments, "--data.max_env_steps", "6000"]) == 0
    assert "begins anew" not in capfd.readouterr().err
    assert json.loads(Path("job/summary.json").read_text())["env_steps"] >= 6000
    # A run that was killed before its first checkpoint has metrics, and is begun anew.
    for file in Path("job/checkpoints").iterdir():
        file.unlink()
    assert main(CONFIG, arguments) == 0
    steps = [float(row["env_steps"]) for row in rows_of(Path("job"))]
    assert steps == sorted(steps)
    assert steps[-1] < 5000
    Path("other").mkdir()
    Path("other/thesis.txt").touch()
    assert main(CONFIG, [*SMALL, "--ckpt_path", "auto", "--run_dir", "other"]) == 2


def test_a_checkpoint_of_the_folder_goes_on_in_it_and_in_a_new_folder_begins_a_run(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    last = str(run / "checkpoints" / LAST)
    assert go_on("--ckpt_path", last, "--run_dir", str(run)) == 0
    assert float(rows_of(run)[-1]["env_steps"]) >= 8000
    assert go_on("--ckpt_path", last, "--run_dir", "new", "--data.max_env_steps", "9000") == 0
    assert float(rows_of(Path("new"))[0]["env_steps"]) >= 8000
    ids = [
        torch.load(folder / "checkpoints" / LAST, weights_only=True)["a3c"]["wandb_run_id"]
        for folder in (run, Path("new"))
    ]
    assert ids[0] != ids[1]


def test_best_is_only_replaced_by_one_as_good_in_the_same_folder(run, monkeypatch):
    best = run / "checkpoints" / "best.ckpt"
    before = best.read_bytes()
    monkeypatch.setattr(Evaluator, "__call__", lambda *args: Evaluation([Episode(0.0, 1)]))
    assert go_on("--ckpt_path", "last") == 0
    assert best.read_bytes() == before
    assert go_on("--ckpt_path", "last", "--run_dir", "new") == 2
    assert go_on("--ckpt_path", str(run / "checkpoints" / LAST), "--run_dir", "new") == 0
    assert go_on("--ckpt_path", str(best), "--run_dir", "fresh") == 0
    assert checkpoints.load(Path("fresh/checkpoints/best.ckpt"))["callbacks"]["GreedyEvaluation"]["best"] == 0


def test_a_second_process_is_kept_out_of_a_run_folder(run, capfd):
    lock = FolderLock(run)
    try:
        with pytest.raises(FolderInUseError):
            FolderLock(run)
        assert go_on("--ckpt_path", "last", "--run_dir", str(run)) == 2
        error = capfd.readouterr().err
        assert f"run_dir: got '{run}', in which another process runs" in error
        assert error.count("\n") == 1
    finally:
        lock.release()
    FolderLock(run).release()


def test_a_log_stays_in_the_run_folder_and_the_handlers_go(run):
    assert go_on("--ckpt_path", "last", "--model.discount", "0.5") == 0
    assert "WARNING a3c.training.module: discount was 0.99" in (run / "log.txt").read_text()
    assert logging.getLogger("a3c").handlers == []
    assert logging.getLogger("a3c").level == logging.NOTSET


@pytest.mark.parametrize("ending", ["", "\r\n", "1,2", "1,2\n", "\0\0\0\0", "4096.0,1,x,\n"])
def test_metrics_are_cut_to_whole_lines_up_to_the_checkpoint(tmp_path, ending):
    file = tmp_path / "metrics.csv"
    file.write_text("a,env_steps,b\r\n1,100,2\r\n1,200,2\r\n1,300,2\r\n" + ending)
    rewind(tmp_path, 200)
    assert file.read_bytes() == b"a,env_steps,b\r\n1,100,2\r\n1,200,2\r\n"
    rewind(tmp_path, -1)
    assert not file.exists()


def test_an_exception_in_a_run_ends_with_one_clear_line_and_keeps_what_was_learned(tmp_path, monkeypatch, capfd):
    def fail(self, trainer, module, *args):
        if module.updates == 5:
            raise ZeroDivisionError("a callback of mine")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(BudgetBar, "on_train_batch_end", fail)
    assert main(CONFIG, [*SMALL, "--run_dir", "run"]) == 1
    error = capfd.readouterr().err
    assert "ZeroDivisionError: a callback of mine" in error
    wanted = r"error: failed after 1,\d\d\d env steps; the newest checkpoint is run/checkpoints/last\.ckpt"
    assert re.fullmatch(wanted, last_line(error))
    assert checkpoints.load(Path("run/checkpoints/last.ckpt"))["a3c"]["updates"] == 5
    assert "a callback of mine" in Path("run/log.txt").read_text()


def test_seconds_between_saves_come_from_the_command_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(CONFIG, [*SMALL, "--checkpoint.every_seconds", "0"]) == 2
    assert capfd.readouterr().err == (
        "train.py: error: checkpoint.every_seconds: got 0.0, must be above 0 and finite\n"
    )
    assert main(CONFIG, [*SMALL, "--checkpoint.every_seconds", "1e-9", "--run_dir", "run"]) == 0
    assert (tmp_path / "run/checkpoints" / PREVIOUS).exists()
