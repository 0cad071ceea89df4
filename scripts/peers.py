"""Compares a3c with other programs that train actor-critics: seconds until a return is reached, and env steps a second.

Part of ``scripts/benchmark.py --peers``. Each peer runs in a virtual environment of its own, made the first time, with
the settings that it documents itself; ``scripts/baselines/`` has a program for each, which says them. All stop at the
same return, by the same rule (`scripts/baselines/run_record.py`).
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "scripts" / "baselines"
FOLDER = Path("~/.cache/a3c/peers").expanduser()
RETURNS = {"CartPole-v1": 475, "LunarLander-v3": 200, "ALE/Pong-v5": 18}  # to reach
GRACE = 120.0  # seconds that a program may take beside its training, to start and to end
PART = "peers"

# Tested together. Box2D is what gymnasium's extra builds from sources under another name.
BOX2D, ATARI = ("box2d==2.3.10",), ("ale-py==0.12.1",)
GYM = ("gymnasium==1.4.0", "pygame-ce==2.5.8", "opencv-python-headless==5.0.0.93", *BOX2D, *ATARI)
REQUIREMENTS = {
    "sb3": ("stable-baselines3==2.9.2", "sbx-rl==0.28.0", "jax==0.10.2", "flax==0.12.8", *GYM),
    "torchrl": ("torchrl==0.14.1", "tensordict==0.14.3", *GYM),
    "rllib": ("ray[rllib]==2.60.0", "gymnasium==1.2.2", "pygame==2.6.1", "numpy==2.4.6", *BOX2D),
    "sf": ("sample-factory==2.1.1", "gymnasium==0.29.1", "pygame==2.6.1", "numpy==1.26.4", "ale-py==0.10.1", *BOX2D),
    "gymnax": ("gymnax==1.0.1", "jax==0.10.2", "flax==0.12.8", "optax==0.2.8", "six==1.17.0"),
}
WITHOUT_TORCH = ("gymnax",)

Record = dict[str, Any]
Run = Callable[..., Any]  # as subprocess.run


@dataclass(frozen=True)
class Peer:
    """A program that is compared with a3c.

    Attributes:
        venv: the virtual environment that it runs in, by its name in REQUIREMENTS.
        command: file in scripts/baselines, and flags.
        envs: what it can train on.
    """

    venv: str
    command: tuple[str, ...]
    envs: tuple[str, ...] = ("CartPole-v1", "LunarLander-v3")


MANY_ENVS = ("--envs", "256", "--max_env_steps", "2000000")  # of gymnax, for throughput alone
PEERS = {
    "sb3_a2c": Peer("sb3", ("sb3_zoo.py", "--algorithm", "a2c"), tuple(RETURNS)),
    "sb3_ppo": Peer("sb3", ("sb3_zoo.py", "--algorithm", "ppo"), tuple(RETURNS)),
    "sbx_ppo": Peer("sb3", ("sb3_zoo.py", "--algorithm", "sbx_ppo")),
    "torchrl_a2c": Peer("torchrl", ("torchrl_a2c.py",)),
    "rllib_impala": Peer("rllib", ("rllib_impala.py",)),
    "sf_appo": Peer("sf", ("sample_factory_appo.py",), tuple(RETURNS)),
    "gymnax_ppo": Peer("gymnax", ("gymnax_ppo.py",), ("CartPole-v1",)),
    "gymnax_ppo_256_envs": Peer("gymnax", ("gymnax_ppo.py", *MANY_ENVS), ("CartPole-v1",)),
}

ENV_CONFIGS = ROOT / "configs" / "env"
# By environment, what of a3c takes part: flags of train.py. Budgets are set where a run may need more steps than its
# config has for a greedy policy to be good; neither config of CartPole has a schedule that depends on them.
LARGE = ("--data.envs_per_worker", "256", "--model.returns.n_steps", "32", "--data.max_env_steps", "3000000")
OURS: dict[str, dict[str, tuple[str, ...]]] = {
    "CartPole-v1": {
        "a3c": ("--data.max_env_steps", "2000000"),
        "a3c, cartpole_reuse": (
            "--config",
            str(ROOT / "configs" / "cartpole_reuse.yaml"),
            "--data.max_env_steps",
            "500000",
        ),
        "a3c, 256 environments": LARGE,
    },
    "LunarLander-v3": {"a3c": ("--config", str(ENV_CONFIGS / "lunarlander.yaml"))},
    "ALE/Pong-v5": {"a3c": ("--config", str(ENV_CONFIGS / "pong.yaml"))},
}
THROUGHPUT_ONLY = ("a3c, 256 environments", "gymnax_ppo_256_envs")  # they do not stop at a return
NO_EVALUATION = [
    *("--stop_when_solved", "false"),
    *("--evaluation.every_env_steps", "null"),
    *("--evaluation.final_episodes", "0"),
]


def pinned_torch() -> str:
    """Return the requirement of torch that constraints.txt has."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def installed(venv: str, folder: Path, run: Run = subprocess.run) -> str | None:
    """Make a virtual environment where it is not there yet, with what a peer needs.

    torch is installed first and pinned: asked for in any other way, pip may fetch another build.

    Returns:
        None, or the line that says why it cannot be installed.
    """
    place = folder / venv
    torch = () if venv in WITHOUT_TORCH else (pinned_torch(),)
    wanted = "\n".join((*torch, *REQUIREMENTS[venv])) + "\n"
    done = place / "installed.txt"  # written last, so an installation that was cut short is made again
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return None
    print(f"installing {' '.join(wanted.split())} in {place}: some minutes, this once", file=sys.stderr, flush=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    commands = [[sys.executable, "-m", "venv", str(place)], *([[*pip, *torch]] if torch else [])]
    for command in (*commands, [*pip, *torch, *REQUIREMENTS[venv]]):
        result = run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            return f"{venv} cannot be installed: {last_error(result.stderr)}"
    done.write_text(wanted, encoding="utf-8")
    return None


def last_error(text: str) -> str:
    """Return the last line of what a program wrote that speaks of an error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "Error" in line.partition(":")[0]]
    return (errors or lines or ["it wrote nothing"])[-1]


def read_record(exit_code: int, output: str, errors: str) -> Record:
    """Return the record that a program printed as its last line of JSON, or one that says how it failed."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                record: Record = json.loads(line)
            except json.JSONDecodeError:
                continue
            return record
    return {"error": last_error(errors), "exit_code": exit_code}


def run_program(command: Sequence[str], folder: str, environment: dict[str, str], limit: float) -> Record:
    """Run a program, with a limit in seconds; return its record.

    It gets a process group of its own, as some peers start many processes, which end with it.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        end_group(process)
        return {"error": f"had not ended after {limit:.0f} s"}
    except BaseException:  # an interrupt: nothing may go on
        end_group(process)
        raise
    return read_record(process.returncode, output, errors)


def end_group(process: subprocess.Popen[str]) -> None:
    """End a running program and its process group: asked first, forced after 15 seconds."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=15.0)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def one_thread() -> dict[str, str]:
    """Return the environment variables of a program: one thread a process, no package of a3c's environment."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run_ours(flags: tuple[str, ...], env: str, seed: int, max_seconds: float, stop_at: float | None) -> Record:
    """Train with scripts/train.py, mode async, until the return is reached; return the record."""
    words = " ".join(flag.removeprefix(f"{ROOT}/") for flag in flags) or "the default command"
    arguments = {"settings": words, "max_seconds": max_seconds, "stop_at": stop_at}
    callbacks = json.dumps([{"class_path": "a3c_run.RunCallback", "init_args": arguments}])
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-W", "ignore", str(ROOT / "scripts" / "train.py"), "--run_dir", f"{folder}/run"),
            *(*flags, *NO_EVALUATION, "--data.env", env, "--seed_everything", str(seed)),
            f"--trainer.callbacks={callbacks}",
        ]
        environment = {**one_thread(), "PYTHONPATH": str(ROOT)}
        return run_program(command, str(PROGRAMS), environment, max_seconds + GRACE)  # a3c_run.py is found there


def run_peer(peer: Peer, env: str, seed: int, max_seconds: float, stop_at: float | None, folder: Path) -> Record:
    """Train with a peer until the return is reached; return the record."""
    program, *flags = peer.command
    command = [str(folder / peer.venv / "bin" / "python"), "-W", "ignore", str(PROGRAMS / program), *flags]
    command += ["--env", env, "--seed", str(seed), "--max_seconds", str(max_seconds)]
    if stop_at is not None:
        command += ["--stop_at", str(stop_at)]
    with tempfile.TemporaryDirectory() as here:  # for what it may write
        return run_program(command, here, one_thread(), max_seconds + GRACE)


def compare(
    names: Sequence[str], envs: Sequence[str], seeds: Sequence[int], max_seconds: float, folder: Path
) -> Iterator[Record]:
    """Train a3c and each peer in turn, seed by seed; give a record of each run, and of each peer that is left out."""
    chosen = [name for name in names or PEERS if set(PEERS[name].envs) & set(envs)]
    failures = {venv: installed(venv, folder) for venv in dict.fromkeys(PEERS[name].venv for name in chosen)}
    for venv, failure in failures.items():
        if failure is not None:
            left_out = [name for name in chosen if PEERS[name].venv == venv]
            print(f"{failure}; left out: {', '.join(left_out)}", file=sys.stderr, flush=True)
            yield from ({"part": PART, "who": name, "left_out": failure} for name in left_out)
    for env in envs:
        for seed in seeds:
            for name, flags in OURS[env].items():
                stop_at = None if name in THROUGHPUT_ONLY else RETURNS[env]
                figures = run_ours(flags, env, seed, max_seconds, stop_at)
                yield {"part": PART, "who": name, "env": env, "seed": seed, **figures}
            for name in chosen:
                peer = PEERS[name]
                if env in peer.envs and failures[peer.venv] is None:
                    stop_at = None if name in THROUGHPUT_ONLY else RETURNS[env]
                    figures = run_peer(peer, env, seed, max_seconds, stop_at, folder)
                    yield {"part": PART, "who": name, "env": env, "seed": seed, **figures}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def conclude(records: Sequence[Record]) -> Iterator[Record]:
    """Give medians for each environment and program, and ratios to a3c's runs of the same seed.

    Ratios of seconds are of runs that both reached the return. Of env steps a second there is one for each of a3c's
    configurations.
    """
    rows = [record for record in records if record["part"] == PART and "env" in record]
    for env in dict.fromkeys(row["env"] for row in rows):
        by_who: dict[str, dict[int, Record]] = {}
        for row in rows:
            if row["env"] == env:
                by_who.setdefault(row["who"], {})[row["seed"]] = row
        for who, runs in by_who.items():
            yield {"part": f"{PART}, summary", "env": env, "who": who, **summarised(who, runs, by_who)}


def summarised(who: str, runs: dict[int, Record], by_who: dict[str, dict[int, Record]]) -> Record:
    """Return what the runs of one program on one environment come to."""
    finished = [run for run in runs.values() if "error" not in run]
    reached = [run for run in finished if run["solved_at_seconds"] is not None]
    record: Record = {"runs": len(runs), "failed": len(runs) - len(finished), "reached": len(reached)}
    for key in ("solved_at_seconds", "solved_at_seconds_with_compilation", "solved_at_env_steps"):
        if values := [run[key] for run in reached if run.get(key) is not None]:
            record[key] = spread(values)
    if given_up := [run["train_seconds"] for run in finished if run not in reached and run["stop_at"] is not None]:
        record["seconds without reaching it"] = spread(given_up)
    if speeds := [run["env_steps_per_second"] for run in finished if run["env_steps_per_second"]]:
        record["env_steps_per_second"] = spread(speeds)
    if who in PEERS:
        for name in (name for name in by_who if name not in PEERS):
            record |= ratios(name, by_who[name], runs)
    return record


def ratios(name: str, ours: dict[int, Record], theirs: dict[int, Record]) -> Record:
    """Return how many times as fast a configuration of a3c is as a peer, in runs of the same seed."""
    record: Record = {}
    for key, power, what in (
        ("solved_at_seconds", -1, f"{name} reaches it faster by"),
        ("env_steps_per_second", 1, f"{name} trains more env steps a second by"),
    ):
        pairs = [(ours[seed].get(key), theirs[seed].get(key)) for seed in theirs if seed in ours]
        if known := [(mine / other) ** power for mine, other in pairs if mine and other]:
            record[what] = spread(known)
    return record
