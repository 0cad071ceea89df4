"""The whole command over a quick stand-in for train.py: what is run, resumed, reported, and left behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_up import make_runs
from shared_server import shared_server

from a3c.comparison.command import main
from a3c.comparison.schedule import Schedule, Task

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
QUICK = HERE / "quick_train.py"
CONFIG = ROOT / "configs" / "cartpole.yaml"
GRID = ["--returns", "NStep", "GAE", "--seeds", "3", "--max_env_steps", "1000", "--jobs", "2"]


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "started.jsonl"
    monkeypatch.setenv("QUICK_TRAIN_LOG", str(path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))
    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)
    path.touch()
    return path


def started(log):
    """What the stand-in was started with since the last look."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("")
    return lines


def compare(*words, train=QUICK, server=None):
    return main([str(word) for word in words], train, CONFIG, server or shared_server())


def rows_of(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def alive(text):
    """Processes on whose command line a text stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_text():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [number for number in found if number != os.getpid()]


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_grid_is_run_reported_and_not_run_again(tmp_path, log, capsys):
    output = tmp_path / "first"
    assert compare(*GRID, "--output", output, "--", "--model.discount=0.9") == 0
    runs = started(log)
    assert len(runs) == 6
    assert all(run["words"][0] == "--model.discount=0.9" for run in runs)
    assert {run["WANDB_RUN_GROUP"] for run in runs} == {"first"}
    assert {run["WANDB_JOB_TYPE"] for run in runs} == {"NStep · async", "GAE · async"}
    assert {run["WANDB_TAGS"] for run in runs} == {"compare"}
    assert len(rows_of(output)) == 6
    page = (output / "report.html").read_text()
    assert "Made by: python scripts/compare.py --returns NStep GAE --seeds 3" in page
    assert "2 runs at a time on " in page
    said = capsys.readouterr().out
    assert "no difference can be told" in said
    assert "6 of 6" in said
    assert compare(*GRID, "--output", output, "--", "--model.discount=0.9") == 0
    assert started(log) == []
    assert "6 finished, 0 to do" in capsys.readouterr().out


def test_only_what_is_not_finished_is_run_again(tmp_path, log, capsys):
    output = tmp_path / "out"
    assert compare(*GRID, "--output", output) == 0
    started(log)
    folder = output / "runs" / "CartPole-v1" / "GAE-async" / "seed2"
    (folder / "summary.json").unlink()
    assert compare(*GRID, "--output", output) == 0
    assert [run["words"][-2:] for run in started(log)] == [[f"--run_dir={folder}", "--ckpt_path=auto"]]
    assert "CartPole-v1/GAE-async/seed2: unfinished, begins anew" in capsys.readouterr().out
    (folder / "summary.json").unlink()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    assert compare(*GRID, "--output", output) == 0
    assert "CartPole-v1/GAE-async/seed2: unfinished, goes on from its checkpoint" in capsys.readouterr().out


def test_the_users_own_wandb_variables_come_first(tmp_path, log, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    monkeypatch.setenv("WANDB_TAGS", "paper")
    assert compare("--returns", "NStep", "--seeds", "1", "--output", tmp_path / "out") == 0
    (run,) = started(log)
    assert (run["WANDB_RUN_GROUP"], run["WANDB_TAGS"]) == ("mine", "paper,compare")


def test_runs_that_fail_are_named_and_the_others_reported(tmp_path, log, monkeypatch, capsys):
    monkeypatch.setenv("QUICK_TRAIN", "fail")
    assert compare(*GRID, "--output", tmp_path / "out") == 1
    assert len(started(log)) == 6
    assert "CartPole-v1/GAE-async/seed2: failed with status 1: ValueError: it went wrong\n" in capsys.readouterr().err
    assert {row["seed"] for row in rows_of(tmp_path / "out")} == {"1", "3"}
    report = (tmp_path / "out" / "report.md").read_text()
    assert "failed with status 1: ValueError: it went wrong" in report
    assert "Fewer than 3 runs of NStep · async, GAE · async" in report
    monkeypatch.delenv("QUICK_TRAIN")
    assert compare(*GRID, "--output", tmp_path / "out") == 0
    assert len(started(log)) == 2


def test_what_fails_on_one_environment_takes_nothing_from_the_others(tmp_path, log, monkeypatch, capsys):
    monkeypatch.setenv("QUICK_TRAIN", "fail on Acrobot")
    assert compare(*GRID, "--env", "CartPole-v1", "Acrobot-v1", "--output", tmp_path / "out") == 1
    assert "GAE · async: left out, has no finished run on Acrobot-v1\n" in capsys.readouterr().err
    assert {(row["env"], row["label"]) for row in rows_of(tmp_path / "out")} == {
        ("CartPole-v1", "NStep"),
        ("Acrobot-v1", "NStep"),
    }
    assert "left out, has no finished run on Acrobot-v1" in (tmp_path / "out" / "report.md").read_text()


def test_flags_that_train_refuses_end_it_at_once_with_its_line(tmp_path, log, monkeypatch, capsys):
    monkeypatch.setenv("QUICK_TRAIN", "refuse")
    assert compare(*GRID, "--output", tmp_path / "out", "--", "--model.discount=7") == 2
    assert len(started(log)) <= 2  # no more than ran at the time
    err = capsys.readouterr().err
    assert err.endswith("train.py: error: model.discount: got 7, must be from 0 to 1\n")
    assert err.count("\n") == 1


def test_runs_under_other_settings_are_refused_or_begun_anew(tmp_path, log, capsys):
    words = ["--returns", "NStep", "--seeds", "1", "--output", tmp_path / "out"]
    assert compare(*words, "--max_env_steps", "1000") == 0
    assert compare(*words, "--max_env_steps", "2000") == 2
    err = capsys.readouterr().err
    assert "CartPole-v1/NStep-async/seed1 data.max_env_steps was 1000, and is 2000" in err
    assert len(started(log)) == 1
    assert compare(*words, "--max_env_steps", "2000", "--restart_changed") == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["budget"] == "2000"


class NoServer:
    """Forks nothing."""

    def start(self, program):
        raise AssertionError(f"asked to fork {program}")


def test_runs_are_forked_from_a_server_but_for_isolated_ones(tmp_path, log, monkeypatch):
    words = ["--returns", "NStep", "--seeds", "2", "--max_env_steps", "1000"]
    assert compare(*words, "--output", tmp_path / "fresh", "--isolated", server=NoServer()) == 0
    assert len(started(log)) == 2
    assert compare(*words, "--output", tmp_path / "forked") == 0
    assert len(started(log)) == 2
    with pytest.raises(AssertionError, match="asked to fork"):
        compare(*words, "--output", tmp_path / "other", server=NoServer())


def started_apart(output, server):
    """The command in a process of its own, whose runs wait to be told to stop."""
    code = (
        "import sys; from a3c.comparison.command import main; from pathlib import Path; "
        "from a3c.comparison.run_server import RunServer; "
        f"sys.exit(main(sys.argv[1:], Path({str(QUICK)!r}), Path({str(CONFIG)!r}), {server}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *GRID, "--output", str(output)],
        env={**os.environ, "QUICK_TRAIN": "wait"},
        stdout=subprocess.PIPE,
        text=True,
    )


SERVERS = pytest.mark.parametrize("server", ["RunServer()", "None"], ids=["forked", "fresh"])


@SERVERS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_stops_the_runs_in_order_and_leaves_none(tmp_path, log, number, server):
    output = tmp_path / "out"
    process = started_apart(output, server)
    try:
        wait_for(lambda: len(list(output.glob("runs/**/*.ready"))) == 2)
        process.send_signal(number)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert "stopped; the same command goes on" in said
    assert said.count(": stopped, ") == 2
    assert "failed" not in said
    assert [path.read_text() for path in output.glob("runs/**/stopped")] == [str(int(signal.SIGINT))] * 2
    assert len(started(log)) == 2
    assert alive(str(output)) == []


@SERVERS
def test_runs_are_told_to_stop_when_the_command_is_killed(tmp_path, log, server):
    output = tmp_path / "out"
    process = started_apart(output, server)
    try:
        wait_for(lambda: len(list(output.glob("runs/**/*.ready"))) == 2)
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: alive(str(output)) == [])
    assert len(list(output.glob("runs/**/stopped"))) == 2


def test_a_hang_up_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen = []
    try:
        task = Task("one", (sys.executable, "-c", ""), Path(os.devnull), os.environ)
        Schedule([task], 1, lambda running, ended: seen.append(signal.getsignal(signal.SIGHUP))).run()
        assert set(seen) == {signal.SIG_IGN}
    finally:
        signal.signal(signal.SIGHUP, before)


def test_never_more_than_the_jobs_run_at_a_time(tmp_path):
    most = []
    command = (sys.executable, "-c", "import time; time.sleep(1)")
    tasks = [Task(str(number), command, tmp_path / "logs" / str(number), dict(os.environ)) for number in range(5)]
    schedule = Schedule(tasks, 2, lambda names, outcomes: most.append(len(names)))
    outcomes = schedule.run()
    assert sorted(outcome.name for outcome in outcomes) == list("01234")
    assert max(most) == 2
    assert all(outcome.status == 0 and outcome.reason == "" for outcome in outcomes)


def test_a_program_that_dies_is_told_by_its_signal(tmp_path):
    command = (sys.executable, "-c", "import os; print('so far', flush=True); os.kill(os.getpid(), 9)")
    (outcome,) = Schedule([Task("it", command, tmp_path / "log", dict(os.environ))], 1, lambda *_: None).run()
    assert (outcome.status, outcome.reason) == (-9, "SIGKILL: so far")


# ---------------------------------------------------------------- runs that are there


def test_runs_that_are_there_are_compared_without_running(tmp_path, log, capsys):
    make_runs(tmp_path / "runs", {"NStep": [300, 310, 320], "GAE": [400, 410, 420]})
    assert compare("--from", tmp_path / "runs", "--output", tmp_path / "out") == 0
    assert started(log) == []
    assert "report: " in capsys.readouterr().out
    assert {(row["label"], row["final_return"]) for row in rows_of(tmp_path / "out")} >= {
        ("NStep", "300.0"),
        ("GAE", "420.0"),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "."], "output: got nothing, must be the folder for the report"),
        (["--from", "none", "--output", "out"], "from: got 'none', must be a folder or a .wandb file that exists"),
        (["--from", ".", "--output", "out", "--seeds", "3"], "from: got with seeds, must be alone: nothing is run"),
        (["--from", ".", "--output", "out", "--", "--x=1"], "from: got with --x=1, must be alone: nothing is run"),
        (["--output", "out", "--jobs", "0"], "jobs: got 0, must be at least 1"),
        (["--output", "out", "--seeds", "2", "--seed_list", "1"], "seed_list: got with seeds, must be one of them"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config: got twice, must be once, with all its values"),
        (["--", "--config", "a.yaml"], "--config: got after --, must be a file for --config before it"),
        (["--", "-ca.yaml"], "-ca.yaml: got after --, must be a file for --config before it"),
        (["--", "--data=a.yaml"], "--data: got after --, must be a file for --config before it"),
        (["--output", "file"], "output: got 'file', must be a folder"),
        (["--output", "out", "--config", "none.yaml"], "config: got 'none.yaml', must be a file that can be read"),
        (["--outputt", "out"], "--outputt: no such flag; nearest: --output"),
    ],
)
def test_what_cannot_be_done_ends_with_one_line_and_nothing_started(tmp_path, log, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert compare(*words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"compare.py: error: {message}")
    assert err.count("\n") == 1
    assert started(log) == []
    assert not (tmp_path / "out").exists()


def test_without_a_folder_the_environment_names_it(tmp_path, log, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compare("--returns", "NStep", "--seeds", "1", "--max_env_steps", "1000") == 0
    assert len(started(log)) == 1
    assert (tmp_path / "comparisons" / "CartPole-v1" / "report.html").is_file()


def test_a_folder_in_which_another_comparison_runs_is_refused(tmp_path, log, capsys):
    from a3c.runs.folder import FolderLock

    (tmp_path / "out").mkdir()
    lock = FolderLock(tmp_path / "out")
    assert compare(*GRID, "--output", tmp_path / "out") == 2
    assert "in which another process runs" in capsys.readouterr().err
    lock.release()


# ---------------------------------------------------------------- the real thing


@pytest.mark.timeout(300)
def test_a_real_comparison_from_the_command_to_the_report(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "compare.py"), "--returns", "NStep", "GAE:lambda_=0.9",
         "--modes", "sync", "--seeds", "3", "--max_env_steps", "5000", "--output", str(tmp_path / "out"), "--jobs", "2",
         "--", "--data.envs_per_worker=8", "--evaluation.episodes=4", "--evaluation.final_episodes=4"],
        env={**environment, "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    assert sorted((row["label"], row["seed"]) for row in rows) == [
        *(("GAE:lambda_=0.9", seed) for seed in "123"),
        *(("NStep", seed) for seed in "123"),
    ]
    assert all(int(row["env_steps"]) >= 5000 and float(row["final_return"]) > 5 for row in rows)
    summary = tmp_path / "out" / "runs" / "CartPole-v1" / "GAE-lambda_=0.9-sync" / "seed1" / "summary.json"
    assert json.loads(summary.read_text())["estimator_label"] == "GAE:lambda_=0.9"
    assert "in sync" in done.stdout
    assert alive(str(tmp_path / "out")) == []
