"""The command line: whole runs as a user types them, and what it refuses."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import pytest
import torch
import yaml
from helpers import fit
from shared_server import ForkedScript, run_script

from a3c import NStep, load
from a3c.runs.checkpoints import CheckpointError
from a3c.training.cli.command import main

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs" / "cartpole.yaml"
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]
SMALL = ["--data.max_env_steps", "4000", "--data.envs_per_worker", "8", "--evaluation.every_env_steps", "2000"]


def run_folder(here):
    (folder,) = (path.parent for path in here.glob("runs/**/config.yaml"))
    return folder


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def environment():
    """This process's, less what W&B left in it: a child would speak to our W&B service."""
    return {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}


def processes_naming(text, where="cmdline"):
    found = []
    for path in Path("/proc").glob(f"[0-9]*/{where}"):
        try:
            if text in path.read_text():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def group_is_gone(group, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run with the default command, in a process of its own and with an empty HOME."""
    folder, home = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("home")
    command = [*TRAIN, "--seed_everything", "3", *SMALL, "--stop_when_solved", "false"]
    done = run_script(command, folder, {**environment(), "HOME": str(home)})
    assert done.returncode == 0, done.stderr
    done.home = str(home)
    return folder, done


def test_a_run_folder_holds_all_that_the_run_was(finished):
    folder = run_folder(finished[0])
    assert re.fullmatch(r"runs/CartPole-v1/NStep-async/seed3-\d{8}-\d{6}", str(folder.relative_to(finished[0])))
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "episode_length.png",
        "learning_curve.png",
        "log.txt",
        "metrics.csv",
        "summary.json",
        "wandb",
    ]
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_agrees_with_the_metrics(finished):
    folder = run_folder(finished[0])
    summary = json.loads((folder / "summary.json").read_text())
    last = [row for row in rows_of(folder) if row["loss/total"]][-1]
    assert summary["env"] == "CartPole-v1"
    assert summary["estimator"] == "NStep"
    assert summary["mode"] == "async"
    assert summary["seed"] == 3
    assert summary["env_steps"] == float(last["env_steps"]) >= 4000
    assert summary["updates"] == float(last["updates"])
    assert summary["episodes"] == float(last["rollout/episodes"])
    assert summary["eval_episodes"] == 100
    assert 8 < summary["eval_return_mean"] <= 500
    assert summary["env_steps_per_second"] == pytest.approx(summary["env_steps"] / summary["train_seconds"])
    assert summary["collected_env_steps"] == (
        summary["trained_env_steps"] + summary["dropped_env_steps"] + summary["in_flight_env_steps"]
    )
    assert 0 <= summary["policy_lag_mean"] <= summary["policy_lag_max"]
    assert summary["solved_at_env_steps"] is None
    evaluations = [float(row["env_steps"]) for row in rows_of(folder) if row["eval/episode_return"]]
    assert len(evaluations) >= 2


def test_the_end_of_a_run_says_where_everything_is(finished):
    output = finished[1].stdout
    folder = run_folder(finished[0]).relative_to(finished[0])
    assert f"{folder}/learning_curve.png" in output
    assert f"wandb leet {folder}/wandb/offline-run-" in output
    assert f"wandb sync {folder}/wandb/offline-run-" in output
    assert "greedy return, 100 fresh episodes" in output


def test_the_workers_are_gone_when_the_run_is(finished):
    deadline = time.monotonic() + 5
    while (left := processes_naming(finished[1].home, "environ")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def wandb_records(folder):
    """All records of the offline run, parsed from its file."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data = path.read_bytes()
    records, position, partial = [], 7, b""
    while position + 7 <= len(data):  # LevelDB's log format: blocks of 32 KiB, header of 7 bytes
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        partial += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(partial)
            records.append(record)
            partial = b""
    return records


def test_the_wandb_run_has_config_group_name_tags_axis_and_history(finished):
    folder = run_folder(finished[0])
    records = wandb_records(folder)
    (run,) = (record.run for record in records if record.HasField("run"))
    assert run.run_group == "CartPole-v1/NStep"
    assert run.display_name == "NStep-async-s3"
    assert set(run.tags) == {"CartPole-v1", "NStep", "async"}
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["model"]["returns"]["init_args"]["n_steps"] == 32
    assert config["data"]["env"] == "CartPole-v1"
    assert config["seed_everything"] == 3
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert any(metric.glob_name == "*" and metric.step_metric == "env_steps" for metric in metrics)
    history = []
    for record in records:
        if record.HasField("history"):
            items = record.history.item
            history.append({item.key or "/".join(item.nested_key): item.value_json for item in items})
    rows = rows_of(folder)
    assert len(history) == len(rows)
    for line, row in zip(history, rows, strict=True):
        assert float(line["env_steps"]) == float(row["env_steps"])
        keys = {key.replace("lag/histogram/values", "lag/histogram") for key in line}
        assert {key for key in keys if "/" in key and not key.endswith(("/bins", "/_type", "/global_step"))} == {
            key for key, value in row.items() if value and "/" in key
        }


def test_a_finished_run_can_be_loaded_to_act_and_to_evaluate(finished):
    agent = load(run_folder(finished[0]))
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        observation, *_ = env.step(agent.act(observation))
    assert len(agent.evaluate(episodes=3).episodes) == 3
    assert agent.summary["seed"] == 3
    assert agent.plot().axes[0].get_xlabel() == "env steps"


def test_a_saved_config_repeats_the_run_into_a_new_folder(here):
    arguments = ["--mode", "sync", "--model.returns", "GAE", "--model.returns.lambda_", "0.8", *SMALL]
    arguments += ["--model.lr_schedule", "Linear", "--model.entropy_schedule", "Constant"]
    assert main(CONFIG, [*arguments, "--run_dir", "first"]) == 0
    named = re.findall(r"class_path: (a3c\S*)", (here / "first/config.yaml").read_text())
    assert sorted(named) == ["a3c.Constant", "a3c.GAE", "a3c.Linear", "a3c.MLPActorCritic"]
    assert main(CONFIG, ["--config", "first/config.yaml"]) == 0
    first, second = here / "first", run_folder(here)
    assert yaml.safe_load((first / "config.yaml").read_text()) == yaml.safe_load((second / "config.yaml").read_text())
    weights = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (first, second)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    steps = [[row["env_steps"] for row in rows_of(folder)] for folder in (first, second)]
    assert steps[0] == steps[1]


def test_configs_merge_in_order_and_flags_win(here):
    Path("one.yaml").write_text("model:\n  returns: {class_path: NStep, init_args: {n_steps: 4}}\n  discount: 0.9\n")
    Path("two.yaml").write_text("model: {discount: 0.8}\ndata: {envs_per_worker: 3, max_env_steps: 50}\n")
    arguments = ["--config", "one.yaml", "--config", "two.yaml", "--data.envs_per_worker", "2", "--mode", "sync"]
    assert main(CONFIG, arguments) == 0
    config = yaml.safe_load((run_folder(here) / "config.yaml").read_text())
    assert config["model"]["returns"]["init_args"]["n_steps"] == 4
    assert config["model"]["discount"] == 0.8
    assert config["data"]["envs_per_worker"] == 2
    assert config["data"]["max_env_steps"] == 50


def test_a_users_own_estimator_and_network_work_by_their_import_paths(here):
    shutil.copy(ROOT / "tests" / "my_returns.py", here / "returns_of_mine.py")
    arguments = ["--model.returns", "returns_of_mine.OneStep", "--model.returns.bonus", "0.25", "--mode", "async"]
    arguments += ["--model.network", "returns_of_mine.Narrow", "--model.network.width", "5", *SMALL]
    assert main(CONFIG, arguments) == 0
    assert load(run_folder(here)).network.width == 5
    summary = json.loads((run_folder(here) / "summary.json").read_text())
    assert summary["estimator"] == "OneStep"
    assert 62 <= summary["updates"] < 75  # its horizon of 8 cuts rollouts of 64 steps, resets among them


OWN_ENV = """
from scripted_envs import Countdown

class Hall(Countdown):
    pass

def make_hall(length=3):
    return Hall((length,))
"""


@pytest.mark.parametrize(("name", "flags"), [("Hall", ["--mode", "async"]), ("make_hall", ["--mode", "sync"])])
def test_an_environment_of_a_users_own_is_named_by_its_import_path(here, capsys, name, flags):
    (here / "halls_of_mine.py").write_text(OWN_ENV)
    assert main(CONFIG, ["--data.env", f"halls_of_mine.{name}", *flags, *SMALL]) == 0
    folder = run_folder(here)
    assert folder.relative_to(here).parts[:2] == ("runs", name)
    assert json.loads((folder / "summary.json").read_text())["env"] == name
    assert load(folder, allow="halls_of_mine").evaluate(1).length_mean >= 1
    again = ["--resume", str(folder), "--data.max_env_steps", "5000"]
    if name == "make_hall":  # which a file may not have called by itself
        with pytest.raises(CheckpointError, match="must be a class of a module below the current folder"):
            load(folder)
        assert main(CONFIG, again) == 2
        assert "data.env: got 'halls_of_mine.make_hall', must be a class" in capsys.readouterr().err
        again += ["--allow", "halls_of_mine"]
    assert main(CONFIG, again) == 0


def test_a_resumed_run_goes_on_where_the_first_one_ended(here, capsys):
    assert main(CONFIG, ["--mode", "sync", *SMALL, "--run_dir", "a"]) == 0
    more = ["--mode", "sync", *SMALL, "--data.max_env_steps", "6000", "--ckpt_path", "a/checkpoints/last.ckpt"]
    assert main(CONFIG, [*more, "--run_dir", "b"]) == 0
    before, after = (json.loads((here / name / "summary.json").read_text()) for name in "ab")
    assert before["env_steps"] < 6000 <= after["env_steps"]
    assert after["updates"] > before["updates"]
    assert after["train_seconds"] > before["train_seconds"]
    assert float(rows_of(here / "b")[0]["env_steps"]) > before["env_steps"]
    capsys.readouterr()
    assert main(CONFIG, ["--mode", "sync", *SMALL, "--ckpt_path", "a/checkpoints/last.ckpt", "--run_dir", "c"]) == 0
    assert "nothing was trained" in capsys.readouterr().out
    assert json.loads((here / "c/summary.json").read_text())["updates"] == before["updates"]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--model.network.hidden_sizes", "[7]"], "network.hidden_sizes"),
        (["--model.returns", "GAE"], "returns"),
        (["--model.optimizer", "SGD", "--model.optimizer.lr", "0.1"], "optimizer"),
        (["--data.env", "Acrobot-v1"], "env.id"),
    ],
)
def test_a_checkpoint_of_another_kind_of_run_is_refused_by_what_differs(here, capsys, flags, what):
    _, _, trainer = fit(NStep(32), env="CartPole-v1", max_env_steps=200)
    trainer.save_checkpoint("other.ckpt")
    command = ["--mode", "sync", "--model.network.hidden_sizes", "[16]", "--ckpt_path", "other.ckpt", *flags]
    assert main(CONFIG, command) == 2
    assert f"ckpt_path: other.ckpt was trained with {what} " in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_one_flag_changes_the_mode_and_everything_else_works_as_before(here, mode):
    schedules = ["--model.lr_schedule", "Linear", "--model.entropy_schedule", "TorchScheduler"]
    schedules += ["--model.entropy_schedule.scheduler", "StepLR", "--model.entropy_schedule.scheduler.step_size", "1"]
    schedules += ["--model.entropy_schedule.scheduler.gamma", "0.5", "--trainer.log_every_n_steps", "1"]
    assert main(CONFIG, ["--mode", mode, "--run_dir", "run", "--stop_when_solved", "false", *SMALL, *schedules]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["mode"] == mode
    assert 4000 <= summary["env_steps"] < 4000 + 2 * 8 * 32
    assert summary["collected_env_steps"] == summary["trained_env_steps"] + summary["in_flight_env_steps"]
    assert summary["worker_exit_codes"] == {"sync": [], "async": [0], "hogwild": [0, 0]}[mode]
    assert summary["eval_episodes"] == 100
    assert sum(summary["policy_lag_columns"].values()) == 8 * summary["updates"]
    assert 8 < summary["last_350_episode_length_mean"] < 100
    rows = rows_of(Path("run"))
    assert len([row for row in rows if row["eval/episode_return"]]) >= 2
    trained = [row for row in rows if row["loss/total"]]
    assert trained
    for row in trained:
        steps = float(row["env_steps"])
        assert float(row["schedule/learning_rate"]) == pytest.approx(max(0, 0.002 * (1 - steps / 4000)), abs=1e-12)
        assert float(row["schedule/entropy_coefficient"]) == 0.003 * 0.5 ** min(steps // 1000, 3)
        assert json.loads(row["lag/histogram"])
    assert load("run", "best").summary == load("run", "last").summary
    resumed = ["--mode", mode, "--run_dir", "more", "--ckpt_path", "run/checkpoints/last.ckpt", *SMALL]
    assert main(CONFIG, [*resumed, "--data.max_env_steps", "6000"]) == 0
    more = json.loads(Path("more/summary.json").read_text())
    assert more["env_steps"] >= 6000
    assert sum(more["policy_lag_columns"].values()) == 8 * more["updates"]


@pytest.mark.parametrize("name", ["full_episode", "n_step"])
def test_the_books_configurations_play_their_episodes(here, capsys, name):
    config = str(ROOT / "configs" / "book" / f"{name}.yaml")
    budget = ["--data.max_episodes_per_worker", "3", "--evaluation.final_episodes", "2"]
    assert main(CONFIG, ["--config", config, "--run_dir", "run", *budget]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["episodes"] == 21
    assert summary["worker_exit_codes"] == [0] * 7
    assert "0 0 0 0 0 0 0" in capsys.readouterr().out
    described = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert described["a3c"]["optimizers"] == len(described["optimizer_states"]) == 7
    assert described["a3c"]["env"]["init_args"]["wrappers"] == [["a3c.TerminalReward", {"reward": -10}]]
    assert Path("run/episode_length.png").stat().st_size > 10_000


def test_a_checkpoint_with_another_number_of_optimizers_is_refused(here, capsys):
    own = ["--mode", "hogwild", "--model.shared_optimizer", "false", *SMALL]
    assert main(CONFIG, [*own, "--run_dir", "run"]) == 0
    capsys.readouterr()
    again = ["--ckpt_path", "run/checkpoints/last.ckpt", "--run_dir", "more"]
    assert main(CONFIG, ["--mode", "hogwild", *SMALL, *again]) == 2
    assert "was trained with optimizers 2, must be that of the run: 1" in capsys.readouterr().err


def test_wandb_can_be_switched_off(here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(CONFIG, ["--mode", "sync", *SMALL]) == 0
    folder = run_folder(here)
    assert not list(folder.glob("wandb/*run-*"))
    assert len(rows_of(folder)) > 2


def test_a_solved_run_stops_and_is_judged_on_fresh_episodes(here, monkeypatch):
    monkeypatch.setattr("a3c.envs.spec.EnvSpec.reward_threshold", 9.0)  # any policy reaches it
    assert main(CONFIG, ["--mode", "sync", *SMALL]) == 0
    summary = json.loads((run_folder(here) / "summary.json").read_text())
    assert 2000 <= summary["solved_at_env_steps"] == summary["env_steps"] < 4000
    assert 0 < summary["solved_at_seconds"] <= summary["train_seconds"]
    assert summary["eval_episodes"] == 100
    assert summary["eval_return_mean"] != summary["best_eval_return_mean"]


def test_a_worker_that_raises_ends_the_run_with_its_traceback(here, capfd):
    arguments = ["--data.env", "scripted_envs:Broken-v0", "--data.env_kwargs", '{"at_step": 300}', *SMALL]
    # A long window: on a slow machine ten restarts may take longer than the one of a minute.
    assert main(CONFIG, [*arguments, "--data.envs_per_worker", "1", "--data.restart_window", "600"]) == 1
    error = capfd.readouterr().err
    assert "worker 0 failed" in error
    assert "ZeroDivisionError: the pole went through the floor" in error
    assert (run_folder(here) / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("number", "status", "mode"),
    [(signal.SIGINT, 130, "async"), (signal.SIGTERM, 143, "async"), (signal.SIGINT, 130, "hogwild")],
)
def test_a_signal_leaves_a_checkpoint_a_finished_wandb_run_and_no_process(tmp_path, number, status, mode):
    command = [
        *TRAIN,
        "--mode",
        mode,
        "--data.max_env_steps",
        "1000000000",
        "--stop_when_solved",
        "false",
        "--run_dir",
        "run",
    ]
    process = ForkedScript(command, tmp_path, environment())
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run/metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal does: to the workers too
        assert process.wait(30) == status
    finally:
        process.kill()
        error = process.communicate()[1]
    assert "Traceback" not in error
    agent = load(tmp_path / "run")
    assert agent.summary["interrupted"]
    assert any(record.HasField("exit") for record in wandb_records(tmp_path / "run"))
    assert group_is_gone(process.pid)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_the_command_at_once(tmp_path, number, status):
    command = [*TRAIN, "--data.max_env_steps", "1000000000", "--stop_when_solved", "false"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 30
        while not processes_naming("a3c.rollouts.workers.process") and time.monotonic() < deadline:
            time.sleep(0.01)  # until the fork server is there, which is started before the imports
        time.sleep(0.5)
        os.killpg(process.pid, number)
        assert process.wait(30) == status
    finally:
        process.kill()
        error = process.communicate()[1]
    assert error == ""
    assert group_is_gone(process.pid)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what is refused

TORCH_SCHEDULE = "--model.lr_schedule TorchScheduler --model.lr_schedule.scheduler"
REFUSED = [
    ("--model.returns GEA", "model.returns: got 'GEA', must be one of .*FullEpisode, .*; nearest: GAE"),
    ("--model.returns nowhere.Mine", "model.returns: got 'nowhere.Mine': No module named 'nowhere'"),
    ("--model.retruns NStep", "--model.retruns: no such flag; nearest: --model.returns"),
    ("--model.returns.n_stps 5", "model.returns.n_stps: no such key; nearest: n_steps"),
    ("--model.returns.n_steps 0", "model.returns.n_steps: got 0, must be at least 1"),
    ("--model.returns GAE --model.returns.lambda_ 1.5", "model.returns.lambda_: got 1.5, must be between 0 and 1"),
    (
        "--model.returns L2Normalised --model.returns.estimator VTrace",
        "model.returns.estimator: got VTrace, must be one",
    ),
    ("--model.network MLPActorCrtic", "model.network: got 'MLPActorCrtic', must be .*; nearest: MLPActorCritic"),
    ("--model.network.activation foo", "model.network.activation: got foo, must be one of 'relu'"),
    ("--model.optimizer Adm", "model.optimizer: got 'Adm', must be a class derived from Optimizer.*; nearest: Adam"),
    ("--model.optimizer.lr nan", "model.optimizer.lr: got nan, must be a finite number"),
    ("--model.optimizer.lr -1", "model.optimizer: Invalid learning rate: -1.0"),
    ("--model.optimizer.lrr 1", "model.optimizer.lrr: no such key; nearest: lr"),
    ("--model.discount 1.5", "model.discount: got 1.5, must be between 0 and 1"),
    ("--model.discount much", "model.discount: got much, must be a finite number"),
    ("--data.env CartPol-v1", "data.env: got 'CartPol-v1', .*; nearest: CartPole-v1"),
    ("--data.env Pendulum-v1 --model.network ConvActorCritic", "model.network.observation_space: got shape .*an image"),
    ("--model.network.memory rnn", "model.network.memory: got 'rnn', must be one of lstm, gru, or null"),
    (
        "--model.network ConvActorCritic --model.network.torso vgg",
        "model.network.torso: got 'vgg', must be one of a3c",
    ),
    ("--data.workers -1", "data.workers: got -1, must be at least 1"),
    ("--data.envs_per_worker 0", "data.envs_per_worker: got 0, must be at least 1"),
    ("--data.max_env_steps 0", "data.max_env_steps: got 0, must be at least 1"),
    ("--data.max_env_steps null", "data.max_env_steps: got none"),
    ("--data.worker 3", "--data.worker: no such flag; nearest: --data.workers"),
    ("--data.workers 1.5", "data.workers: got 1.5, must be a whole number"),
    ("--mode=", "mode: got '', must be one of 'sync', 'async', 'hogwild'"),
    ("--data.workers=", "data.workers: got '', must be a whole number or 'auto' or null"),
    ("--data.wrappers=", "data.wrappers: got '', must be a list or null"),
    ("--model.passes=", "model.passes: got '', must be a whole number"),
    ("--model.returns=", "model.returns: got '', must be one of AdvantageNormalised, .*, or an import path"),
    ("--model.lr_schedule=", "model.lr_schedule: got '', must be one of Constant, .*, or an import path"),
    ("--config=", "config: got '', must be a file that exists"),
    ("--evaluation=", "evaluation: got '', must be settings, or a file of them"),
    ("--evaluation=there.yaml", "evaluation: got 'there.yaml', must be settings, or a file of them"),
    ("--mode asink", "mode: got asink, must be one of 'sync', 'async', 'hogwild'"),
    ("--data.max_lag -1", "data.max_lag: got -1, must be at least 0"),
    ("--data.inject_lag -1", "data.inject_lag: got -1, must be at least 0"),
    ("--data.inject_lag 3 --data.max_lag 2", "data.max_lag: got 2, must be at least inject_lag, 3"),
    ("--mode hogwild --data.inject_lag 3", "data.inject_lag: got 3 in mode hogwild, must be none there"),
    ("--mode hogwild --model.optimizer NAdam", "model.optimizer: got NAdam, must be one whose statistics workers can"),
    ("--data.terminal_reward nan", "data.terminal_reward: got nan, must be a finite number or null"),
    ("--data.clip_rewards 0", "data.clip_rewards: got 0.0, must be above 0 and finite"),
    (
        "--model.clip_observations 5",
        "model.clip_observations: got 5.0, must be null without normalise_observations",
    ),
    ("--mode hogwild --model.popart true", "model.popart: got true in mode hogwild, must be false there"),
    (
        "--model.network BookActorCritic --model.popart true",
        "model.popart: got true, must be false: BookActorCritic has",
    ),
    ("--model.shared_optimizer maybe", "model.shared_optimizer: got maybe, must be true or false"),
    ("--model.max_grad_norm x", "model.max_grad_norm: got x, must be a finite number or null"),
    ("--model.lr_schedule Linaer", "model.lr_schedule: got 'Linaer', must be one of Constant, .*; nearest: Linear"),
    ("--model.lr_schedule Linear --model.lr_schedule.finel 1", "model.lr_schedule.finel: no such key; nearest: final"),
    (
        "--model.lr_schedule Linear --model.lr_schedule.final -1",
        "model.lr_schedule.final: got -1.0, must be at least 0",
    ),
    (f"{TORCH_SCHEDULE} Cosine", "model.lr_schedule.scheduler: got 'Cosine', must be a class derived from LRScheduler"),
    (f"{TORCH_SCHEDULE} CosineAnnealingLR", "model.lr_schedule.scheduler: its arguments are required: T_max"),
    (
        f"{TORCH_SCHEDULE} torch.optim.lr_scheduler.ReduceLROnPlateau",
        "model.lr_schedule.scheduler: got ReduceLROnPlateau, which waits for a metric; must depend on env steps alone",
    ),
    (
        f"--mode hogwild {TORCH_SCHEDULE} OneCycleLR --model.lr_schedule.scheduler.max_lr 0.1 "
        "--model.lr_schedule.scheduler.total_steps 500",
        "model.lr_schedule.scheduler: got OneCycleLR, which changes the momentum as well; must change the learning",
    ),
    (
        "--model.lr_schedule Linear --data.max_env_steps null --data.max_episodes_per_worker 3",
        "model.lr_schedule.env_steps: got none, must be at least 1 in a run without max_env_steps",
    ),
    ("--probe maybe", "probe: got maybe, must be true or false or settings"),
    ("--probe.evry_updates 3", "probe.evry_updates: no such key; nearest: every_updates"),
    ("--probe.every_updates 0", "probe.every_updates: got 0, must be at least 1$"),
    ("--probe.every_updates x", "probe.every_updates: got x, must be a whole number$"),
    ("--probe.estimators [GEA]", "probe.estimators: 'GEA': got estimator 'GEA', must be one of .*; nearest: GAE$"),
    ("--probe.estimators NStep:n_steps=0", "probe.estimators: 'NStep:n_steps=0': n_steps: got 0, must be at least 1$"),
    (
        "--mode hogwild --probe true",
        "probe: got true in mode hogwild, must be false there: workers learn by themselves",
    ),
    (
        "--config probe.yaml",
        "probe.yaml: probe.estimators: got 'nowhere.Mine', must be a class of a3c, .* --allow nowhere",
    ),
    ("--wandb.histograms_every 0", "wandb.histograms_every: got 0, must be at least 1, or null$"),
    ("--wandb.artefacts true", "--wandb.artefacts: no such flag; nearest: --wandb.artifacts"),
    (
        "--mode hogwild --wandb.histograms_every 5",
        "wandb.histograms_every: got 5 in mode hogwild, must be null there: workers take the gradients",
    ),
    ("--seed_everything -3", "seed_everything: got -3, must be a whole number from 0"),
    ("--evaluation.episodes 0", "evaluation.episodes: got 0, must be at least 1"),
    ("--ckpt_path nowhere.ckpt", "ckpt_path: got 'nowhere.ckpt', must be a checkpoint file that exists"),
    ("--ckpt_path bad.yaml", "ckpt_path: bad.yaml: damaged, or not a checkpoint of a3c in format 6: "),
    ("--config binary.yaml", ".*decode"),
    ("--run_dir used/something/deeper", "run_dir: got 'used/something/deeper', must be a folder that can be made"),
    ("--config nowhere.yaml", "config: got '.*nowhere.yaml', must be a file that exists"),
    ("--config bad.yaml", "data.worker: no such key; nearest: data.workers"),
    ("--model.returns FullEpisode --data.env scripted_envs:Countdown-v0", "data.max_episode_steps: got none, and"),
    ("--run_dir used", "run_dir: got 'used', must be a folder that is new or empty"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[arguments for arguments, _ in REFUSED])
def test_a_command_line_that_cannot_be_used_is_refused_in_one_line(here, capsys, arguments, message):
    Path("used").mkdir()
    Path("used/something").touch()
    Path("binary.yaml").write_bytes(bytes(range(128, 200)))
    Path("bad.yaml").write_text("data: {worker: 3}\n")
    Path("probe.yaml").write_text("probe: {estimators: ['L2Normalised:estimator=(nowhere.Mine:bonus=0.5)']}\n")
    assert main(CONFIG, arguments.split()) == 2
    error = capsys.readouterr().err
    assert re.match(f"train.py: error: {message}", error), error
    assert error.count("\n") == 1
    assert not Path("runs").exists()
    assert not processes_naming(str(here))


def test_the_script_itself_ends_with_status_2(tmp_path):
    done = subprocess.run(
        [*TRAIN, "--data.env", "CartPol-v1"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
