"""The configurations of configs/env: each trains, says what to install without its package, and is told of."""

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import gymnasium
import pytest
import torch
import yaml

from a3c.training.cli.command import main

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "configs" / "cartpole.yaml"
CONFIGS = {path.stem: path for path in sorted((ROOT / "configs" / "env").glob("*.yaml"))}
PACKAGES = {  # which an environment needs, by how its id begins: what to import, and what to type without it
    "ALE/": ("ale_py", r"pip install 'a3c\[atari\]'"),
    "LunarLander": ("Box2D", r"pip install 'a3c\[box2d\]'"),
    "BipedalWalker": ("Box2D", r"pip install 'a3c\[box2d\]'"),
    "Hopper": ("mujoco", r"pip install 'a3c\[mujoco\]'"),
    "HalfCheetah": ("mujoco", r"pip install 'a3c\[mujoco\]'"),
    "MiniGrid-": ("minigrid", "pip install minigrid"),
}
SHORT = [
    *("--data.max_env_steps", "600"),
    *("--evaluation.every_env_steps", "null"),
    *("--evaluation.final_episodes", "0"),
    *("--stop_when_solved", "false"),
]


def env_of(name):
    return yaml.safe_load(CONFIGS[name].read_text())["data"]["env"]


def package_of(name):
    return next((needs for beginning, needs in PACKAGES.items() if env_of(name).startswith(beginning)), None)


def test_there_is_a_configuration_for_each_of_these():
    assert set(CONFIGS) == {
        *("cartpole", "acrobot", "mountaincar_continuous", "pendulum", "lunarlander", "lunarlander_continuous"),
        *("bipedalwalker", "cartpole_without_velocities", "minigrid_empty", "pong", "breakout", "hopper"),
        "halfcheetah",
    }


@pytest.mark.parametrize(("name", "mode"), list(zip(CONFIGS, itertools.cycle(["async", "hogwild", "sync"]))))
def test_each_trains(here, name, mode):
    needs = package_of(name)
    if needs and not importlib.util.find_spec(needs[0]):
        pytest.skip(f"{needs[0]} is not installed")
    assert main(DEFAULT, ["--config", str(CONFIGS[name]), "--mode", mode, *SHORT, "--run_dir", "run"]) == 0
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert summary["env_steps"] >= 600
    assert summary["updates"] > 0


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ("CartPole-v1", "MLPActorCritic"),
        ("Pendulum-v1", "MLPActorCritic"),
        ("Taxi-v4", "MLPActorCritic"),
        ("Blackjack-v1", "MLPActorCritic"),
        ("parts_env:Parts-v0", "ConvActorCritic"),
        ("CarRacing-v3", "ConvActorCritic"),
        ("ALE/Pong-v5", "ConvActorCritic"),
    ],
)
def test_the_default_for_all_trains_on_an_environment_that_it_is_pointed_at(here, env, kind):
    needs = {"CarRacing-v3": "Box2D", "ALE/Pong-v5": "ale_py"}.get(env)
    if needs and not importlib.util.find_spec(needs):
        pytest.skip(f"{needs} is not installed")
    short = ["--data.max_env_steps", "2100", *SHORT[2:], "--model.passes", "1", "--run_dir", "run"]
    assert main(DEFAULT, ["--config", str(ROOT / "configs" / "default.yaml"), "--data.env", env, *short]) == 0
    assert json.loads((here / "run" / "summary.json").read_text())["updates"] >= 1
    checkpoint = torch.load(here / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["a3c"]["network"]["class_path"] == f"a3c.{kind}"


def test_reuse_solves_cartpole_in_fewer_env_steps_than_the_default_needs(here):
    command = ["--config", str(ROOT / "configs" / "cartpole_reuse.yaml"), "--mode", "sync", "--run_dir", "run"]
    assert main(DEFAULT, command) == 0
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert summary["solved_at_env_steps"] < 25_000


@pytest.mark.parametrize("name", [name for name in CONFIGS if package_of(name)])
def test_each_says_what_to_install_without_its_package(here, capsys, monkeypatch, name):
    package, line = package_of(name)
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    for registered in [key for key in gymnasium.registry if re.match(r"ALE/|MiniGrid-", key)]:
        monkeypatch.delitem(gymnasium.registry, registered)
    for module in [module for module in sys.modules if re.match(r"gymnasium\.envs\.(box2d|mujoco)(\.|$)", module)]:
        monkeypatch.delitem(sys.modules, module)
    assert main(DEFAULT, ["--config", str(CONFIGS[name]), "--run_dir", "run"]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(line, error)
    assert "\n" not in error
    assert not Path("run").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_each_begins_with_what_to_expect_and_how_long_it_takes(name):
    comment = re.match(r"(?:#.*\n)+", CONFIGS[name].read_text())[0].replace("\n# ", " ")
    assert re.search(r"\d+ (?:s|min|h)\b", comment), comment
    assert re.search(r"return of −?\d", comment), comment
    needs = package_of(name)
    assert not needs or re.search(needs[1], comment), comment
