"""Programs that are forked are what fresh commands are: the same facts, the same results, and no end but their own."""

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import MARK, processes_of, seconds_until_gone, wait_until, workers_of
from shared_server import PATHS, shared_server

from a3c.comparison.programs import STATUS_UNKNOWN, Program, StartError
from a3c.comparison.run_server import RunServer
from a3c.comparison.schedule import Schedule, Task
from a3c.runs.checkpoints import load

ROOT = Path(__file__).parent.parent.parent
TRAIN = ROOT / "scripts" / "train.py"
FACTS = Path(__file__).parent / "facts.py"
SHORT = [
    *("--data.max_env_steps=3000", "--data.envs_per_worker=4", "--trainer.log_every_n_steps=1"),
    *("--evaluation.episodes=2", "--evaluation.final_episodes=2", "--stop_when_solved=false", "--run_dir=run"),
]  # fmt: skip
TIMES = ("seconds", "per_second", "time/")  # parts of the names of columns that say how fast it was


def program(folder, *words, script=FACTS, **variables):
    """A program that is like a fresh command, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in (MARK, "COLUMNS")}
    environment = {**kept, "PYTHONPATH": PATHS, "PYTHONSAFEPATH": "", "WANDB_MODE": "disabled", **variables}
    return Program([sys.executable, str(script), *words], environment, folder, folder / "output")


def run_fresh(one):
    """Runs it as Schedule does where nothing is forked, and returns its exit status."""
    with one.output.open("wb") as output:
        return subprocess.run(
            one.command,
            env=one.environment,
            cwd=one.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).returncode


def run_forked(one, server=None):
    return (server or shared_server()).start(one).wait(60)


@pytest.fixture
def own_server():
    server = RunServer({**os.environ, "PYTHONPATH": PATHS})
    yield server
    server.close()


def test_a_forked_program_sees_what_a_fresh_one_sees(tmp_path):
    (tmp_path / "temporary").mkdir()
    found = []
    for run in (run_fresh, run_forked):
        one = program(tmp_path / "same", "facts", "two words", TMPDIR=str(tmp_path / "temporary"), EMPTY="")
        assert run(one) == 0, one.output.read_text()
        found.append(json.loads(one.output.read_text()))
    fresh, forked = found
    assert forked["environ"] == forked["variables"]  # what others see in /proc is what it has
    assert forked == fresh


def test_forked_programs_draw_different_numbers(tmp_path):
    outputs = []
    for name in ("a", "b"):
        one = program(tmp_path / name, "draw")
        assert run_forked(one) == 0
        outputs.append(one.output.read_text().split())
    assert all(first != second for first, second in zip(*outputs, strict=True))


def test_exit_statuses_are_those_of_fresh_commands_and_touch_no_other(tmp_path):
    waits = program(tmp_path / "waits", "wait", "there")
    waiting = shared_server().start(waits)
    wait_until((waits.folder / "there").exists, 20, "its start")
    for name, status, said in (("die", -signal.SIGSEGV, ""), ("raise", 1, "ValueError: it went wrong"), ("no", 0, "")):
        one = program(tmp_path / name, name)
        assert run_forked(one) == status
        assert said in one.output.read_text()
    assert waiting.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.01)
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(10) == run_fresh_until_signal(tmp_path / "fresh")
    assert "KeyboardInterrupt" in waits.output.read_text()
    waiting.send_signal(signal.SIGINT)  # nobody is hit any more


def run_fresh_until_signal(folder):
    one = program(folder, "wait", "there")
    process = subprocess.Popen(one.command, env=one.environment, cwd=folder, stderr=subprocess.DEVNULL)
    wait_until((folder / "there").exists, 20, "its start")
    process.send_signal(signal.SIGINT)
    return process.wait(10)


def test_a_forked_run_has_the_results_of_a_fresh_one_bit_for_bit(tmp_path):
    found = []
    for name, run in (("fresh", run_fresh), ("forked", run_forked)):
        one = program(tmp_path / name, *SHORT, "--mode=sync", script=TRAIN)
        assert run(one) == 0, one.output.read_text()
        checkpoint = load(one.folder / "run" / "checkpoints" / "last.ckpt")
        with (one.folder / "run" / "metrics.csv").open(newline="") as file:
            rows = [
                {key: value for key, value in row.items() if not any(part in key for part in TIMES)}
                for row in csv.DictReader(file)
            ]
        found.append((checkpoint["state_dict"], checkpoint["optimizer_states"], rows))
    (weights, optimizers, rows), (weights_2, optimizers_2, rows_2) = found
    assert len(rows) > 3
    assert rows == rows_2
    torch.testing.assert_close(weights_2, weights, rtol=0, atol=0)
    torch.testing.assert_close(optimizers_2, optimizers, rtol=0, atol=0)


def test_workers_are_forked_as_well_and_end_with_a_run_that_is_killed(tmp_path):
    words = ["--data.max_env_steps=1000000000", *SHORT[1:]]
    one = program(tmp_path, *words, script=TRAIN, **{MARK: "forked-run"})
    process = shared_server().start(one)
    try:
        wait_until(lambda: workers_of("forked-run"), 30, "a worker")
        (worker, *_) = workers_of("forked-run")
        maps = Path(f"/proc/{worker.pid}/maps").read_text()
        assert "matplotlib" in maps  # which no worker imports: it was forked from what the run was forked from
        assert any(entry.pid == process.pid and "train.py" in entry.command for entry in processes_of("forked-run"))
        process.send_signal(signal.SIGKILL)
        assert process.wait(5) == -signal.SIGKILL
        seconds_until_gone("forked-run", 2.0)
    finally:
        for left in processes_of("forked-run"):
            os.kill(left.pid, signal.SIGKILL)


def test_a_killed_server_interrupts_its_runs_and_fresh_commands_follow(tmp_path, own_server, caplog):
    one = program(tmp_path / "one", "wait", "there")
    process = own_server.start(one)
    wait_until((one.folder / "there").exists, 20, "its start")
    os.kill(own_server.pid, signal.SIGKILL)
    assert process.wait(10) == STATUS_UNKNOWN
    assert "KeyboardInterrupt" in one.output.read_text()
    with pytest.raises(StartError, match="has ended"):
        own_server.start(one)
    tasks = [Task(name, (sys.executable, "-c", "print(1)"), tmp_path / name, os.environ) for name in "ab"]
    with caplog.at_level(logging.WARNING):
        outcomes = Schedule(tasks, 1, lambda *_: None, own_server).run()
    assert [outcome.status for outcome in outcomes] == [0, 0]
    assert caplog.text.count("further runs are started as fresh commands") == 1


def test_a_server_with_threads_forks_nothing(tmp_path):
    server = RunServer({**os.environ, "PYTHONPATH": PATHS, "OPENBLAS_NUM_THREADS": "2"})  # NumPy's start at its import
    try:
        with pytest.raises(StartError, match=r"has \d threads"):
            server.start(program(tmp_path, "facts"))
    finally:
        server.close()


def test_nothing_is_left_of_a_server_whose_parent_is_killed(tmp_path):
    code = f"""
import os, sys, time
from pathlib import Path
from a3c.comparison.programs import Program
from a3c.comparison.run_server import RunServer
server = RunServer()
folder = Path({str(tmp_path)!r})
server.start(Program([sys.executable, {str(FACTS)!r}, "wait", "there"], dict(os.environ), folder, folder / "output"))
time.sleep(60)
"""
    mark = f"orphans-{os.getpid()}"
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATHS, MARK: mark})
    try:
        wait_until((tmp_path / "there").exists, 60, "its start")
        assert len(processes_of(mark)) >= 3
        time.sleep(0.1)
    finally:
        parent.kill()
        parent.wait()
    seconds_until_gone(mark, 3.0)
