"""Row 34: W&B that cannot be reached, written to or kept alive costs a run its W&B record, and nothing else."""

import contextlib
import csv
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from harness import SLACK
from shared_server import ForkedScript
from wandb_reader import records_of
from wandb_server import WandbServer

from a3c.runs.wandb_logger import Patience, make_wandb_logger
from a3c.training.cli.command import main
from a3c.training.cli.run import TrainingRun

ROOT = Path(__file__).parent.parent.parent
TRACKED = [sys.executable, str(Path(__file__).parent / "tracked.py")]
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py"), "--stop_when_solved", "false", "--run_dir", "run"]
SMALL = ["--data.envs_per_worker", "8", "--evaluation.final_episodes", "4"]
KEY = "0123456789abcdef0123456789abcdef01234567"  # made up
DELAY = 10.0
FAILED = "W&B failed, and gets nothing more of this run"


def environment(**more):
    """This process's, less what W&B left in it: a child would speak to our W&B service."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), kept.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, **more}


def online(url, **more):
    return environment(WANDB_BASE_URL=url, WANDB_API_KEY=KEY, **more)


def rows_of(path):
    """All rows of a metrics.csv, after a look that every line is whole."""
    text = path.read_text()
    assert text.endswith("\n")
    header, *rows = csv.reader(text.splitlines())
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row, strict=True)) for row in rows]


def wandb_processes():
    """Name, process id, parent and group of W&B's processes that run."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, _, rest = stat.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
            state, parent, group, *_ = fields.split()
            if name.startswith("wandb-") and state != "Z":
                yield name, int(number), int(parent), int(group)


def services_of(pid):
    """The W&B services that a process has started, by parentage."""
    return [number for name, number, parent, _ in wandb_processes() if name == "wandb-core" and parent == pid]


def helpers_of(service):
    return [number for _, number, _, group in wandb_processes() if group == service != number]


@contextlib.contextmanager
def silent_socket():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class Tracked:
    """The program of tracked.py."""

    def __init__(self, folder, env):
        orders = folder / "orders"
        os.mkfifo(orders)
        self._orders = os.open(orders, os.O_RDWR)  # which waits for no reader
        self.process = ForkedScript([*TRACKED, str(folder)], folder, env)
        self._answers = 0
        self.started = self._answer()

    def _answer(self):
        """Wait for the next line that it prints."""
        self._answers += 1
        wait_for(lambda: self.process.poll() is not None or self.process.output.count("\n") >= self._answers)
        assert self.process.output.count("\n") >= self._answers, self.process.communicate()
        return json.loads(self.process.output.splitlines()[self._answers - 1])

    def log(self, rows):
        os.write(self._orders, f"{rows}\n".encode())
        return self._answer()

    def let_end(self):
        """Tell it that no order comes any more. Idempotent."""
        if self._orders is not None:
            os.close(self._orders)
            self._orders = None

    def end(self):
        """Ends it, and gives what it said at the end."""
        self.let_end()
        out, self.errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, self.errors
        return json.loads(out.splitlines()[-1])


@contextlib.contextmanager
def tracked(folder, env):
    program = Tracked(folder, env)
    try:
        yield program
    finally:
        program.let_end()
        program.process.kill()
        program.process.wait()


def history_of(record):
    return [record["history"]["item"] for record in records_of(record) if record["type"] == "history"]


def wait_for(condition, seconds=240.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


# ---------------------------------------------------------------- unreachable


def test_row_34_a_server_that_answers_gets_the_run_online(tmp_path):
    # A busy machine may take longer than a run waits; how long that is, is not asked here.
    with WandbServer() as server, tracked(tmp_path, online(server.url, TEST_START="60")) as program:
        assert program.started["id"]
        program.log(50)
        program.end()
        assert program.errors == ""
        assert [row["env_steps"] for row in server.history()] == list(range(1, 51))


@pytest.mark.parametrize("fault", ["refused", "silent socket", "silent start"])
def test_row_34_an_unreachable_server_makes_the_run_offline(tmp_path, tmp_path_factory, fault):
    with tracked(tmp_path_factory.mktemp("plain"), environment(WANDB_MODE="offline")) as program:
        said = program.end()
        in_order = program.started["start"] + said["finish"] + said["exit"]
    with contextlib.ExitStack() as stack:
        if fault == "silent socket":
            url = stack.enter_context(silent_socket())
        elif fault == "silent start":  # its host answers, but W&B does not
            url = stack.enter_context(WandbServer(["/graphql"])).url
        else:
            url = "http://127.0.0.1:9"
        with tracked(tmp_path, online(url)) as program:
            program.log(50)
            said = program.end()
    # Nobody waits in vain for its start offline, which takes this machine as long as it takes.
    assert program.started["start"] + said["finish"] + said["exit"] < DELAY + SLACK + 2 * in_order
    assert program.errors.count("offline, for wandb sync") == len(program.errors.splitlines()) == 1
    assert len(history_of(*tmp_path.glob("wandb/offline-run-*"))) == 50
    assert len(rows_of(tmp_path / "metrics.csv")) == 50


def test_row_34_a_server_that_falls_silent_ends_the_run_within_bounds(tmp_path):
    with WandbServer() as server, tracked(tmp_path, online(server.url, TEST_START="60")) as program:
        program.log(50)
        server.go_silent()
        program.log(50)
        said = program.end()
        assert said["finish"] + said["exit"] < DELAY + SLACK
        (record,) = tmp_path.glob("wandb/run-*")
        assert program.errors.startswith(FAILED)
        assert f"wandb sync {record} uploads" in program.errors
        assert len(program.errors.splitlines()) == 1
    assert len(history_of(record)) == 100
    assert len(rows_of(tmp_path / "metrics.csv")) == 100


def test_row_34_and_35_a_run_that_cannot_reach_wandb_trains_and_names_its_key_nowhere(tmp_path):
    seen = set()
    with silent_socket() as url:
        command = [*TRAIN, "--data.max_env_steps", "20000", *SMALL]
        process = ForkedScript(command, tmp_path, online(url) | {"HOME": str(tmp_path)})
        try:
            deadline = time.monotonic() + 100
            while process.poll() is None and time.monotonic() < deadline:
                seen.update(command_lines(tmp_path))
                time.sleep(0.1)
        finally:
            process.kill()
            errors = process.communicate()[1]
    assert process.returncode == 0
    warning = "warning: W&B: 127.0.0.1 does not answer; the run is kept offline, for wandb sync"
    assert errors.strip() == warning
    assert json.loads((tmp_path / "run/summary.json").read_text())["env_steps"] >= 20_000
    assert float(rows_of(tmp_path / "run/metrics.csv")[-1]["env_steps"]) >= 20_000
    for part in (b"scripts/train.py", b"multiprocessing.forkserver", b"wandb"):
        assert any(part in line for line in seen), seen
    assert not [line for line in seen if KEY.encode() in line]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {".wandb", ".ckpt", ".csv", ".yaml", ".txt"} <= {path.suffix for path in written}
    assert not [path for path in written if holds_key(path)]


def command_lines(home):
    """Command lines of all processes with a HOME; sessions and parents of their own some have."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOME={home}\0".encode() in (path / "environ").read_bytes():
                yield (path / "cmdline").read_bytes()


def holds_key(path):
    """Whether a file holds the key, in the clear or in an archive's compressed members."""
    if KEY.encode() in path.read_bytes():
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(KEY.encode() in archive.read(name) for name in archive.namelist())


# ---------------------------------------------------------------- folder


def test_row_34_a_folder_that_cannot_be_written_to_leaves_wandb_out(tmp_path, monkeypatch, caplog):
    def occupied(run):
        (run.folder / "wandb").write_text("in the way")
        return save_config(run)

    save_config = TrainingRun._save_config
    monkeypatch.setattr(TrainingRun, "_save_config", occupied)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["--mode", "sync", "--data.max_env_steps", "4000", *SMALL, "--run_dir", "run"]
    assert main(ROOT / "configs" / "cartpole.yaml", arguments) == 0
    assert float(rows_of(tmp_path / "run/metrics.csv")[-1]["env_steps"]) >= 4000
    (warning,) = (record.message for record in caplog.records if "W&B" in record.message)
    assert warning.startswith("W&B is left out of this run: its folder cannot be written to: ")
    assert (tmp_path / "run/wandb").read_text() == "in the way"


# ---------------------------------------------------------------- service


def test_row_34_a_killed_service_costs_one_warning(tmp_path):
    with tracked(tmp_path, environment(WANDB_MODE="offline")) as program:
        program.log(50)
        (service,) = services_of(program.process.pid)
        wait_for(lambda: helpers_of(service))
        os.kill(service, signal.SIGKILL)
        for _ in range(5):
            program.log(50)
        said = program.end()
        assert not helpers_of(service)
        assert program.errors.startswith(FAILED)
        assert len(program.errors.splitlines()) == 1
    assert said["slowest"] + said["finish"] + said["exit"] < DELAY
    assert len(rows_of(tmp_path / "metrics.csv")) == 300


def test_row_34_a_stopped_service_neither_holds_up_rows_nor_the_end(tmp_path):
    with tracked(tmp_path, environment(WANDB_MODE="offline")) as program:
        (service,) = services_of(program.process.pid)
        os.kill(service, signal.SIGSTOP)
        try:
            program.log(10_000)  # more than sockets and queue hold
            said = program.end()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(service, signal.SIGKILL)
        assert program.errors.startswith(FAILED)
        assert len(program.errors.splitlines()) == 1
    assert said["slowest"] + said["finish"] + said["exit"] < DELAY
    assert len(rows_of(tmp_path / "metrics.csv")) == 10_000


@pytest.mark.parametrize(("fault", "end", "status"), [(signal.SIGKILL, None, 0), (signal.SIGSTOP, signal.SIGTERM, 143)])
def test_row_34_training_goes_on_and_ends_without_its_service(tmp_path, fault, end, status):
    budget = ["--data.max_env_steps", "1000000000" if end else "60000", *SMALL]
    metrics = tmp_path / "run/metrics.csv"
    process = ForkedScript([*TRAIN, *budget], tmp_path, environment(WANDB_MODE="offline"))
    service = None
    try:
        wait_for(metrics.exists)
        (service,) = services_of(process.pid)
        os.kill(service, fault)
        before = len(metrics.read_text().splitlines())
        wait_for(lambda: len(metrics.read_text().splitlines()) >= before + 3)
        if end:
            process.send_signal(end)
            assert process.wait(DELAY + 5) == status
        else:
            assert process.wait(100) == status
    finally:
        process.kill()
        errors = process.communicate()[1]
        if service in services_of(process.pid):
            os.kill(service, signal.SIGKILL)
    (warning,) = (line for line in errors.splitlines() if line.startswith("warning: "))  # beside lines of progress
    assert warning.startswith(f"warning: {FAILED}")
    assert json.loads((tmp_path / "run/summary.json").read_text())["interrupted"] == bool(end)
    assert float(rows_of(metrics)[-1]["env_steps"]) > 0
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()


def test_after_a_killed_service_this_process_can_record_its_next_run(tmp_path):
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        tracker = make_wandb_logger(folder, env="E", estimator="GAE", mode="sync", seed=1, config={})
        if name == "first":
            for service in services_of(os.getpid()):
                os.kill(service, signal.SIGKILL)
        tracker.log_metrics({"env_steps": 7}, 1)
        tracker.finish(0, {})
    wandb_log = logging.getLogger("wandb")
    for handler in [each for each in wandb_log.handlers if isinstance(each, logging.FileHandler)]:
        wandb_log.removeHandler(handler)  # W&B leaves the log of a run open that it could not finish
        handler.close()
    (record,) = (tmp_path / "second").glob("wandb/offline-run-*")
    assert [row["env_steps"] for row in history_of(record)] == [7]


# ---------------------------------------------------------------- one run, several records


def test_a_run_id_goes_on_with_the_run_in_a_second_record(tmp_path):
    arguments = {"env": "E", "estimator": "GAE", "mode": "sync", "seed": 1, "config": {}}
    first = make_wandb_logger(tmp_path, **arguments)
    first.log_metrics({"env_steps": 100}, 1)
    first.finish(143, {"updates": 1})
    second_of_first = time.strftime("%S")
    wait_for(lambda: time.strftime("%S") != second_of_first)  # W&B names folders by the second
    again = make_wandb_logger(tmp_path, **arguments, run_id=first.run_id, name="again")
    again.log_metrics({"env_steps": 200}, 2)
    again.finish(0, {"updates": 2})
    assert again.run_id == first.run_id == again.experiment.id
    old, new = sorted(tmp_path.glob(f"wandb/offline-run-*-{first.run_id}"))
    assert [row["env_steps"] for row in history_of(old)] == [100]
    assert [row["env_steps"] for row in history_of(new)] == [200]
    (old_run,) = (record["run"] for record in records_of(old) if record["type"] == "run")
    (new_run,) = (record["run"] for record in records_of(new) if record["type"] == "run")
    assert new_run["run_id"] == old_run["run_id"]
    assert new_run["resume"]  # wandb sync appends by it
    assert "resume" not in old_run
    assert (old_run["display_name"], new_run["display_name"]) == ("GAE-sync-s1", "again")


def test_a_run_without_wandb_has_no_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = make_wandb_logger(tmp_path, env="E", estimator="GAE", mode="sync", seed=1, config={})
    assert tracker.run_id is None
    tracker.log_metrics({"env_steps": 1}, 1)
    tracker.finish(0, {"updates": 1})


def test_patience_is_spent_by_waits_in_vain_only():
    patience = Patience(0.5)
    assert patience.wait(lambda: time.sleep(0.3) or "came") == "came"
    with pytest.raises(TimeoutError, match="no answer within"):
        patience.wait(threading.Event().wait)
    with pytest.raises(ZeroDivisionError):
        patience.wait(lambda: 1 / 0)
