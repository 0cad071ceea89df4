"""Runs of a comparison on Ray: the figures of runs here, a lost node, every way to end, and nothing left behind."""

import csv
import json
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from harness import ROOT, Program
from processes import MARK, marked_environment, seconds_until_gone, wait_until
from shared_server import PATHS

from a3c.comparison import command
from a3c.comparison.on_ray import runs
from a3c.comparison.on_ray.actor import RunActor, first_missing
from a3c.comparison.programs import STATUS_UNKNOWN
from a3c.comparison.programs import Program as Started
from a3c.training.cli.usage import UsageError

ray = pytest.importorskip("ray", reason="pip install 'a3c[ray]'")
COMPARE = ROOT / "scripts" / "compare.py"
QUICK = ROOT / "tests" / "comparison" / "quick_train.py"
CONFIG = ROOT / "configs" / "cartpole.yaml"
LIMIT = 300.0  # seconds at most for a command: Ray starts, and each run imports torch, beside other tests
REACHED = 150.0  # seconds at most until runs are at work
ENDED = 120.0  # seconds at most: agents of a Ray that was killed look for it for a minute
GRID = ["--returns", "NStep", "--max_env_steps", "1000", "--output", "out"]
pytestmark = pytest.mark.timeout(600)


# ---------------------------------------------------------------- on one node, without Ray


def started(folder, code, **variables):
    environment = marked_environment(f"on-node-{os.getpid()}", PYTHONPATH=PATHS, **variables)
    return Started([sys.executable, "-c", code], environment, folder, folder / "log")


@contextmanager
def acting(program, again=False):
    """An actor in this process, and what its program has ended with, in a list."""
    actor, statuses = RunActor(), []
    thread = threading.Thread(target=lambda: statuses.append(actor.run(program, again)))
    thread.start()
    try:
        yield actor, statuses
    finally:
        with suppress(ValueError):  # its end is what was tested
            actor.send(signal.SIGKILL)
        thread.join(60)
        if actor._process is not None:
            actor._process.stdin.close()
        seconds_until_gone(program.environment[MARK], 10)


WAITING = "import time; print('ready', flush=True)\ntry: time.sleep(100)\nexcept KeyboardInterrupt: print('saved')"


def wait_for_text(path, text):
    wait_until(lambda: path.exists() and text in path.read_text(), 60, text)


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)],
)
def test_a_program_ends_with_its_own_status(tmp_path, code, status):
    assert RunActor().run(started(tmp_path, code), False) == status


def test_output_is_written_anew_unless_the_program_goes_on(tmp_path):
    program = started(tmp_path, "print('line')")
    for again, lines in ((False, 1), (True, 2), (False, 1)):
        RunActor().run(program, again)
        assert program.output.read_text() == "line\n" * lines


def test_a_blocked_signal_reaches_a_program(tmp_path):
    """Ray blocks SIGINT in its own processes, which is inherited."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with acting(started(tmp_path, WAITING)) as (actor, statuses):
            wait_for_text(tmp_path / "log", "ready")
            actor.send(signal.SIGINT)
            wait_until(lambda: statuses, 60, "its end")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert (statuses, (tmp_path / "log").read_text()) == ([0], "ready\nsaved\n")


@pytest.mark.parametrize("way", ["the supervisor is killed", "the actor is gone"])
def test_a_program_is_interrupted_when_what_has_started_it_is_gone(tmp_path, way):
    with acting(started(tmp_path, WAITING)) as (actor, _):
        wait_for_text(tmp_path / "log", "ready")
        if way == "the actor is gone":
            actor._process.stdin.close()
        else:
            actor._process.kill()
        wait_for_text(tmp_path / "log", "saved")


def test_a_program_that_is_stopped_before_its_start_is_not_started(tmp_path):
    actor = RunActor()
    actor.send(signal.SIGINT)
    assert actor.run(started(tmp_path, "print('started')"), False) == -signal.SIGINT
    assert (tmp_path / "log").read_text() == ""


def test_a_program_waits_for_the_end_of_the_one_on_the_lost_node(tmp_path):
    slowly = WAITING.replace("print('saved')", "time.sleep(2); print('saved')")
    with acting(started(tmp_path, slowly)) as (first, _):
        wait_for_text(tmp_path / "log", "ready")
        with acting(started(tmp_path, "print('next')"), again=True) as (_, statuses):
            assert not statuses
            first.send(signal.SIGINT)
            wait_until(lambda: statuses, 60, "the end of the next one")
    assert (tmp_path / "log").read_text() == "ready\nsaved\nnext\n"


def test_a_file_is_looked_for_until_it_is_seen(tmp_path):
    timer = threading.Timer(0.5, (tmp_path / "late").touch)
    timer.start()
    assert first_missing([str(tmp_path), str(tmp_path / "late"), str(tmp_path / "never")]) == str(tmp_path / "never")
    timer.join()


def test_starts_that_no_node_has_taken_count_as_no_restart(tmp_path, monkeypatch):
    """Ray gives a lost node to actors until it has noticed, and they are lost at once."""

    def look(program):
        program._status = None
        raise ray.exceptions.ActorDiedError()

    monkeypatch.setattr(runs.RemoteProgram, "_look", look)
    program = runs.RemoteProgram(started(tmp_path, ""), lambda: None)
    assert [program.poll() for _ in range(10)] == [None] * 10
    monkeypatch.setattr(runs, "PLACE_SECONDS", 0.0)
    assert program.wait(10) == STATUS_UNKNOWN
    assert "error: no node has started it within 0 s: " in (tmp_path / "log").read_text()


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Gives the line with which a command is refused that has started and written nothing."""
    monkeypatch.chdir(tmp_path)

    def line_of(*words):
        assert command.main([*GRID, *words], QUICK, CONFIG) == 2
        assert list(tmp_path.iterdir()) == []
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error.removeprefix("compare.py: error: ")

    return line_of


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "dask"], "on: got 'dask', must be one of processes, ray"),
        (["--on", "ray", "--isolated"], "isolated: got with --on ray, must be without it"),
        (["--ray_address", "auto"], "ray_address: got auto without --on ray, must come with it"),
        (["--on", "ray", "--", "--data.pool", "ray"], "data.pool: got ray with --on ray, must be processes there"),
        (["--on", "ray", "--", "--data.workers=auto"], "data.workers: got auto with --on ray, must be a number there"),
        (["--on", "ray", "--ray_address", "127.0.0.1:1"], "ray_address: got 127.0.0.1:1, must be that of a cluster: "),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(refused, words, message):
    assert refused(*words).startswith(message)


def test_without_ray_the_install_line_is_said(refused, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused("--on", "ray")
    assert line == "on: got ray, must be processes: Ray is not installed: pip install 'a3c[ray]'\n"


@pytest.mark.parametrize("lacks", ["the folder", "the script", None])
def test_a_folder_that_a_node_does_not_see_is_refused(tmp_path, monkeypatch, lacks):
    on_ray = object.__new__(runs.RunsOnRay)

    def missing(paths):
        assert all(os.path.exists(path) for path in paths)  # each is there while the nodes look for it
        return [
            ("one (10.0.0.1)", None),
            ("two (10.0.0.2)", {"the folder": paths[0], "the script": paths[1]}.get(lacks)),
        ]

    monkeypatch.setattr(on_ray, "_missing", missing)
    folder = tmp_path / "not" / "there"
    if lacks is None:
        on_ray.check(folder, [QUICK])
    else:
        with pytest.raises(UsageError) as refusal:
            on_ray.check(folder, [QUICK])
        assert (
            str(refusal.value)
            == {
                "the folder": f"output: got {str(folder)!r}, must be a folder that every node of the cluster sees: "
                "two (10.0.0.2) does not",
                "the script": f"on: got ray, must be a cluster whose nodes all have {QUICK}: two (10.0.0.2) has not",
            }[lacks]
        )
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- whole commands

QUICKLY = f"""
import sys
from pathlib import Path
from a3c.comparison.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path({str(QUICK)!r}), Path({str(CONFIG)!r})))
"""


@contextmanager
def comparing(folder, *words, behaviour=None, script=None, within=ENDED, **variables):
    """The command, over the real train.py or over a stand-in that behaves so; leaves nothing."""
    if behaviour is not None:
        script = folder / "quickly.py"
        script.write_text(QUICKLY)
        variables |= {"QUICK_TRAIN": behaviour, "QUICK_TRAIN_LOG": str(folder / "started.jsonl")}
    program = Program(folder, *words, script=script or COMPARE, timeout=LIMIT, fresh=True, **variables)
    try:
        yield program
        assert program.process.poll() is not None, "still runs"
        program.assert_clean(within)
    finally:
        program.kill()


SHORT = ["--data.envs_per_worker=8", "--evaluation.episodes=2", "--evaluation.final_episodes=2"]
OF_TIME = ("second", "speed", "started", "finished", "host", "machine", "version", "folder", "memory", "time")


def figures(folder):
    """Figures of all runs of a comparison, and those of its report, but for what the clock says."""
    summaries = sorted(folder.glob("runs/*/*/seed*/summary.json"))
    with (folder / "results.csv").open(newline="") as file:
        found = [*(json.loads(path.read_text()) for path in summaries), *csv.DictReader(file)]
    return [{key: row[key] for key in row if not any(word in key for word in OF_TIME)} for row in found]


def test_a_grid_on_ray_has_the_figures_of_one_without(tmp_path):
    grid = ["--returns", "NStep", "--modes", "sync", "--seeds", "2", "--max_env_steps", "3000"]
    for name, place in (("ray", ["--on", "ray"]), ("here", ["--isolated"])):
        (tmp_path / name).mkdir()
        with comparing(tmp_path / name, *grid, *place, "--output", "out", "--", *SHORT) as run:
            assert run.wait() == 0, run.errors
        assert "report: out/report.html" in run.output
    assert figures(tmp_path / "ray" / "out") == figures(tmp_path / "here" / "out")
    assert len(figures(tmp_path / "ray" / "out")) == 4
    assert "at a time on Ray 2" in (tmp_path / "ray" / "out" / "report.md").read_text()


def test_runs_that_fail_or_are_lost_again_and_again_are_named_and_the_others_reported(tmp_path):
    words = [*GRID, "--seeds", "3", "--on", "ray", "--jobs", "3"]
    with comparing(tmp_path, *words, behaviour="fail and lose", WANDB_API_KEY="a-secret") as run:
        assert run.wait() == 1, run.errors
    name = "CartPole-v1/NStep-async"
    assert f"{name}/seed2: failed with status 1: ValueError: it went wrong\n" in run.errors
    lost = [
        line for line in run.errors.splitlines() if f"{name}/seed3: failed with status 255: error: lost on " in line
    ]
    assert len(lost) == 1
    assert "after 3 restarts" in lost[0]
    assert run.errors.count("seed3: lost on ") == 3
    assert "Traceback" not in run.errors
    lines = [json.loads(line) for line in (tmp_path / "started.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert {line["WANDB_JOB_TYPE"] for line in lines} == {"NStep · async"}
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1"]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"a-secret" not in path.read_bytes(), path


def test_the_first_signal_has_runs_save_and_the_second_kills_them(tmp_path):
    words = [*GRID, "--seeds", "3", "--on", "ray", "--jobs", "2"]
    with comparing(tmp_path, *words, behaviour="stay", within=10.0) as run:
        folder = tmp_path / "out" / "runs" / "CartPole-v1" / "NStep-async"
        run.wait_until(lambda: len(list(folder.glob("*.ready"))) == 2, REACHED, "two runs at work")
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does it
        run.wait_until(lambda: (folder / "seed1" / "stopped").exists(), 60, "the end of a run that saves")
        run.wait_until((folder / "seed2.told").exists, 60, "a signal to one that stays")
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.wait(120) == 128 + signal.SIGINT, run.errors
    assert "CartPole-v1/NStep-async/seed2 did not stop, and was killed" in run.errors
    assert run.output.endswith("SIGINT: stopped; the same command goes on\n")
    assert not list(folder.glob("seed3*"))


def test_runs_save_when_the_command_is_killed(tmp_path):
    with comparing(tmp_path, *GRID, "--seeds", "2", "--on", "ray", "--jobs", "2", behaviour="wait") as run:
        folder = tmp_path / "out" / "runs" / "CartPole-v1" / "NStep-async"
        run.wait_until(lambda: len(list(folder.glob("*.ready"))) == 2, REACHED, "two runs at work")
        run.send(signal.SIGKILL)
        assert run.wait(60) == -signal.SIGKILL
    assert [path.read_text() for path in folder.glob("*/stopped")] == [str(int(signal.SIGINT))] * 2


def test_runs_on_a_node_that_is_lost_go_on_elsewhere(tmp_path):
    """Two nodes of a simulated cluster, with room for a run each, one of which is killed."""
    script = tmp_path / "two_nodes.py"
    script.write_text(CLUSTER.format(quick=str(QUICK), config=str(CONFIG)))
    variables = {"QUICK_TRAIN": "wait once", "QUICK_TRAIN_LOG": str(tmp_path / "started.jsonl")}
    words = [*GRID, "--seeds", "3", "--on", "ray", "--jobs", "3"]
    with comparing(tmp_path, *words, script=script, **variables) as run:
        assert run.wait() == 0, run.errors
    folder = tmp_path / "out" / "runs" / "CartPole-v1" / "NStep-async"
    saved = [path.name for path in folder.glob("*.saved")]
    assert len(saved) == 1
    again = [line for line in run.errors.splitlines() if f"{saved[0].partition('.')[0]}: lost on " in line]
    assert len(again) == 1, run.errors
    assert "started again (1 of 3)" in again[0]
    assert len((tmp_path / "started.jsonl").read_text().splitlines()) == 4
    assert "3 of 3" in run.output


CLUSTER = """
import os, sys, threading, time
from pathlib import Path
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

if __name__ == "__main__":
    from a3c.comparison.command import main
    cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def wait_for(pattern, number):
        while len(list(Path().glob(f"out/runs/**/*.{{pattern}}"))) < number:
            time.sleep(0.1)

    def kill():
        wait_for("ready", 2)
        cluster.remove_node(other, allow_graceful=False)
        wait_for("saved", 1)
        Path("released").touch()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    status = main([*sys.argv[1:], "--ray_address", cluster.address], Path({quick!r}), Path({config!r}))
    cluster.shutdown()
    sys.exit(status)
"""
