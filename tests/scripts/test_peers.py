import json
import sys
from types import SimpleNamespace

import peers
import pytest
from run_record import Run, arguments


def make_run():
    return Run(env="E", seed=3, settings="", max_env_steps=1000, max_seconds=60, stop_at=10)


def test_a_return_is_reached_by_the_mean_of_the_last_100_finished_episodes():
    run = make_run()
    run.add_episode(0.0)
    for _ in range(98):
        run.add_episode(10.0)
    assert not run.is_over(99, 1.0)
    run.add_episode(10.0)  # 99 of 10 and one of 0: a mean of 9.9
    assert not run.is_over(100, 2.0)
    run.add_episode(10.0)  # the 0 is the 101st from the end
    assert run.is_over(101, 3.0)
    record = run.record("numpy")
    assert (record["solved_at_env_steps"], record["solved_at_seconds"]) == (101, 3.0)
    assert (record["return_mean"], record["episodes"], record["seed"]) == (10.0, 101, 3)
    assert record["env_steps_per_second"] == pytest.approx(101 / 3)
    assert list(record["versions"]) == ["numpy"]


def test_99_episodes_are_too_few_however_good():
    run = make_run()
    run.set_episodes(99, [500.0] * 99)
    assert not run.is_over(99, 1.0)
    run.set_episodes(100, [500.0] * 100)
    assert run.is_over(100, 1.0)


@pytest.mark.parametrize(("env_steps", "seconds"), [(1000, 1.0), (1, 60.0)])
def test_a_run_ends_unsolved_at_its_budget_and_stays_as_it_was_then(env_steps, seconds):
    run = make_run()
    assert run.is_over(env_steps, seconds)
    run.set_episodes(100, [500.0] * 100)
    assert run.is_over(5000, 99.0)  # a program may take some more steps before it stops
    record = run.record()
    assert (record["env_steps"], record["train_seconds"]) == (env_steps, seconds)
    assert record["solved_at_seconds"] is None


def test_without_a_return_to_reach_a_run_goes_on(capsys):
    run = Run.of(arguments("").parse_args(["--seed", "5"]), "words", 1000)
    run.set_episodes(100, [500.0] * 100)
    assert not run.is_over(999, 1.0)
    assert run.is_over(1000, 1.0)
    run.write(compile_seconds=2.5)
    record = json.loads(capsys.readouterr().out)
    assert (record["seed"], record["settings"], record["compile_seconds"]) == (5, "words", 2.5)


def test_a_record_is_the_last_line_of_json_among_what_a_program_writes():
    assert peers.read_record(0, '{"a": 1}\nhello\n{"a": 2}\n{no json\nbye\n', "") == {"a": 2}


def test_a_program_that_fails_gives_a_record_with_its_error():
    errors = "Traceback (most recent call last):\n  File x\nImportError: no jax\nan afterthought\n"
    assert peers.read_record(1, "hello\n", errors) == {"error": "ImportError: no jax", "exit_code": 1}


def test_a_program_that_does_not_end_is_ended(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(300)"]
    assert peers.run_program(command, str(tmp_path), {}, 0.1) == {"error": "had not ended after 0 s"}


class FakePip:
    """Notes commands; fails those with a word in them."""

    def __init__(self, fails_at=None):
        self.commands, self.fails_at = [], fails_at

    def __call__(self, command, **_):
        self.commands.append(command)
        if "venv" in command:
            (self.place(command) / "bin").mkdir(parents=True, exist_ok=True)
        fails = any(self.fails_at and word.startswith(self.fails_at) for word in command)
        return SimpleNamespace(returncode=int(fails), stderr="ERROR: No matching distribution\nnotice: a new pip\n")

    @staticmethod
    def place(command):
        return peers.Path(command[-1])


def test_an_environment_is_made_once_with_torch_pinned_and_first(tmp_path, capsys):
    pip = FakePip()
    assert peers.installed("sf", tmp_path, pip) is None
    make, torch, rest = pip.commands
    assert make[1:] == ["-m", "venv", str(tmp_path / "sf")]
    assert torch[-1] == peers.pinned_torch()
    assert rest[-len(peers.REQUIREMENTS["sf"]) - 1 :] == [peers.pinned_torch(), *peers.REQUIREMENTS["sf"]]
    assert "sample-factory==" in capsys.readouterr().err
    assert peers.installed("sf", tmp_path, pip) is None
    assert len(pip.commands) == 3


def test_a_peer_that_cannot_be_installed_is_left_out_and_tried_again(tmp_path):
    line = "sf cannot be installed: ERROR: No matching distribution"
    assert peers.installed("sf", tmp_path, FakePip("sample-factory")) == line
    assert peers.installed("sf", tmp_path, FakePip()) is None


def test_peers_run_in_turn_and_one_that_cannot_be_installed_is_said_to_be_left_out(monkeypatch, tmp_path, capsys):
    ran = []

    def run(who):
        ran.append(who)
        return {"solved_at_seconds": None}

    monkeypatch.setattr(peers, "installed", lambda venv, folder: "sf: no wheel" if venv == "sf" else None)
    monkeypatch.setattr(peers, "run_ours", lambda flags, env, seed, *_: run(("a3c", env, seed)))
    monkeypatch.setattr(peers, "run_peer", lambda peer, env, seed, *_: run((peer.command[0], env, seed)))
    records = list(peers.compare(["sb3_ppo", "sf_appo", "gymnax_ppo"], ["LunarLander-v3"], [1, 2], 9.0, tmp_path))
    assert records[0] == {"part": "peers", "who": "sf_appo", "left_out": "sf: no wheel"}
    assert ran == [(who, "LunarLander-v3", seed) for seed in (1, 2) for who in ("a3c", "sb3_zoo.py")]
    assert capsys.readouterr().err == "sf: no wheel; left out: sf_appo\n"


def row(who, seed, seconds, speed):
    figures = {"solved_at_seconds": seconds, "solved_at_env_steps": 100, "env_steps_per_second": speed}
    return {"part": "peers", "env": "E", "who": who, "seed": seed, "train_seconds": 50.0, "stop_at": 1, **figures}


def test_ratios_are_of_runs_of_the_same_seed_that_both_reached_the_return():
    records = [
        *(row("a3c", 1, 2.0, 1000), row("sb3_ppo", 1, 6.0, 500)),  # 6 / 2 = 3 and 1000 / 500 = 2
        *(row("a3c", 2, 4.0, 1000), row("sb3_ppo", 2, 4.0, 250)),  # 1 and 4
        *(row("a3c", 3, 4.0, 1000), row("sb3_ppo", 3, None, 100)),  # none and 10
        *(row("a3c", 4, 4.0, 1000), {"part": "peers", "env": "E", "who": "sb3_ppo", "seed": 4, "error": "E: it"}),
        {"part": "peers", "who": "sf_appo", "left_out": "why"},
        {"part": "machine"},
    ]
    ours, theirs = peers.conclude(records)
    assert (ours["who"], ours["runs"], ours["reached"]) == ("a3c", 4, 4)
    assert ours["solved_at_seconds"] == {"median": 4.0, "min": 2.0, "max": 4.0}
    assert not [key for key in ours if key.startswith("a3c ")]
    assert (theirs["runs"], theirs["failed"], theirs["reached"]) == (4, 1, 2)
    assert theirs["a3c reaches it faster by"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert theirs["a3c trains more env steps a second by"] == {"median": 4.0, "min": 2.0, "max": 10.0}
    assert theirs["seconds without reaching it"] == {"median": 50.0, "min": 50.0, "max": 50.0}


def test_every_peer_has_its_program_and_requirements_with_pinned_versions():
    for peer in peers.PEERS.values():
        assert (peers.PROGRAMS / peer.command[0]).exists()
        assert set(peer.envs) <= set(peers.RETURNS)
        assert all("==" in line for line in peers.REQUIREMENTS[peer.venv])


def test_a_run_of_a3c_ends_at_the_return_and_gives_the_record_of_its_peers():
    record = peers.run_ours(("--data.envs_per_worker", "8"), "CartPole-v1", 1, 60.0, 5.0)
    assert record["env"] == "CartPole-v1"
    assert record["episodes"] >= 100
    assert record["return_mean"] >= 5.0
    assert record["solved_at_env_steps"] == record["env_steps"] < 20_000
    assert record["settings"] == "--data.envs_per_worker 8"
