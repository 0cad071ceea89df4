"""Measures throughput, time to solve, start-up and memory; prints JSON lines.

Whole runs of ``scripts/train.py`` and of Stable-Baselines3's A2C (extra ``bench``) alternate within
one call, so that both see the same machine at the same time; compare ratios, not seconds. The last
lines give medians and ratios. ``--quick`` ends within two minutes, leaves the estimators, the book, memories, Pong,
Ray and Hopper out and says little. Pong needs the extra ``atari``, Hopper the extra ``mujoco``, ``ray`` the extras
``ray`` and ``atari``. ``--peers`` compares with other programs instead, see ``scripts/peers.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peers

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs" / "benchmark"
TRAIN = [sys.executable, "-W", "ignore", str(ROOT / "scripts" / "train.py")]
SB3 = [sys.executable, "-W", "ignore", str(ROOT / "scripts" / "baselines" / "sb3_a2c.py")]
LARGE = ["--data.envs_per_worker", "256", "--model.returns.n_steps", "32"]  # for throughput alone
MEMORY_SIZE = ["--model.network.memory_size", "64"]
NO_EVALUATION = [
    *("--stop_when_solved", "false"),
    *("--evaluation.every_env_steps", "null"),
    *("--evaluation.final_episodes", "0"),
]

THRESHOLD = 475  # CartPole-v1's reward threshold, on 100 fresh episodes
SPEED = "env_steps_per_second"
PARTS = [
    *("throughput", "pong", "ray", "hopper", "recurrent", "solve", "scaling"),
    *("estimators", "startup", "memory", "breakdown", "guards", "book"),
]
SLOW = ("estimators", "book", "recurrent", "pong", "ray", "hopper")  # left out by --quick; the last three need extras
MODES = ("async", "hogwild", "sync")  # the first one is a3c's default

Record = dict[str, Any]


def emit(record: Record, output: Path | None) -> Record:
    """Prints a record, and appends it to the output file."""
    line = json.dumps(record)
    print(line, flush=True)
    if output is not None:
        with output.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return record


def train(*flags: str) -> Record:
    """Runs train.py with some flags; gives its summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*TRAIN, "--run_dir", f"{folder}/run", *flags]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        summary: Record = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))
        return summary


def stable_baselines(*flags: str) -> Record:
    """Runs Stable-Baselines3's A2C; gives its figures."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*SB3, *flags], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"Stable-Baselines3 failed; is it installed (pip install -e .[bench])?\n{done.stderr}")
    figures: Record = json.loads(done.stdout.splitlines()[-1])
    return figures


@contextmanager
def running(*flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Runs train.py in the background, and ends it; gives the process and its metrics.csv."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*TRAIN, "--run_dir", f"{folder}/run", *NO_EVALUATION, *flags]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process, Path(folder, "run", "metrics.csv")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def throughput(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Env steps trained a second, large vector environments, default logging."""
    for seed in seeds:
        for mode in MODES:
            flags = (*LARGE, *NO_EVALUATION, "--mode", mode, "--data.max_env_steps", str(env_steps), *seeded(seed))
            yield {"part": "throughput", "who": named(mode), "seed": seed, **chosen(train(*flags), SPEED)}
        for who, budget, envs in (("sb3_a2c", env_steps // 100, "8"), ("sb3_a2c_64_envs", env_steps // 50, "64")):
            flags = ("--max_env_steps", str(budget), "--seed", str(seed), "--envs", envs)
            yield {"part": "throughput", "who": who, "seed": seed, **chosen(stable_baselines(*flags), SPEED)}


def pong(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Env steps of Pong trained a second: as configured here, and with the images of SB3, with two networks."""
    config = ("--config", str(CONFIGS / "pong.yaml"))
    as_theirs = (
        *("--data.env_kwargs", '{"repeat_action_probability": 0.0}'),  # so 84 x 84
        *("--model.normalise_observations", "false", "--model.clip_observations", "null"),
    )
    nature = (*as_theirs, "--model.network.torso", "nature")  # SB3's own
    variants = {"a3c": (), "a3c, 84 x 84": as_theirs, "a3c, 84 x 84, nature": nature}
    budget = ("--data.max_env_steps", str(env_steps))
    for seed in seeds:
        for who, flags in variants.items():
            figures = train(*config, *flags, *NO_EVALUATION, *budget, *seeded(seed))
            yield {"part": "pong", "who": who, "seed": seed, **chosen(figures, SPEED)}
        flags = ("--env", "PongNoFrameskip-v4", "--envs", "16")
        theirs = stable_baselines(*flags, "--max_env_steps", str(env_steps // 4), "--seed", str(seed))
        yield {"part": "pong", "who": "sb3_a2c", "seed": seed, **chosen(theirs, SPEED)}


def ray(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Env steps of Pong trained a second, with images of 84 x 84: by our own worker processes, and by Ray's actors."""
    config = ("--config", str(CONFIGS / "pong.yaml"), "--data.env_kwargs", '{"repeat_action_probability": 0.0}')
    budget = ("--data.max_env_steps", str(env_steps))
    for seed in seeds:
        for who, flags in {"a3c": (), "a3c, pool ray": ("--data.pool", "ray", "--data.ray_cores", "0.5")}.items():
            figures = train(*config, *flags, *NO_EVALUATION, *budget, *seeded(seed))
            yield {"part": "ray", "who": who, "seed": seed, **chosen(figures, SPEED)}


def hopper(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Env steps of Hopper trained a second, normalised; SB3 with the rollouts of RL Zoo, and with larger ones."""
    for seed in seeds:
        budget = ("--data.max_env_steps", str(env_steps))
        ours = train("--config", str(CONFIGS / "hopper.yaml"), *NO_EVALUATION, *budget, *seeded(seed))
        yield {"part": "hopper", "who": "a3c", "seed": seed, **chosen(ours, SPEED)}
        for who, envs, steps in (("sb3_a2c", "4", "8"), ("sb3_a2c_16_envs", "16", "16")):
            flags = ("--env", "Hopper-v5", "--normalise", "--envs", envs, "--n_steps", steps, "--seed", str(seed))
            theirs = stable_baselines(*flags, "--max_env_steps", str(env_steps // 4))
            yield {"part": "hopper", "who": who, "seed": seed, **chosen(theirs, SPEED)}


def recurrent(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Env steps of CartPole trained a second without a memory, and with ones of the hidden layers' width."""
    memories = {"a3c": [], "a3c lstm": ["lstm", *MEMORY_SIZE], "a3c gru": ["gru", *MEMORY_SIZE]}
    for seed in seeds:
        for who, memory in memories.items():
            flags = ["--model.network.memory", *memory] if memory else []
            figures = train(*NO_EVALUATION, *flags, "--data.max_env_steps", str(env_steps), *seeded(seed))
            yield {"part": "recurrent", "who": who, "seed": seed, **chosen(figures, SPEED)}


def solve(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Seconds of training until CartPole-v1 is solved, with the default command."""
    keys = ("solved_at_env_steps", "solved_at_seconds", "train_seconds", "env_steps", "eval_return_mean")
    for seed in seeds:
        for mode in MODES:
            ours = train("--mode", mode, "--data.max_env_steps", str(env_steps), *seeded(seed))
            yield {"part": "solve", "who": named(mode), "seed": seed, **chosen(ours, *keys)}
        theirs = stable_baselines("--solve", "--max_env_steps", str(env_steps), "--seed", str(seed))
        yield {"part": "solve", "who": "sb3_a2c", "seed": seed, **chosen(theirs, *keys)}


def scaling(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Env steps trained a second by one and by two Hogwild workers, of 64 environments each."""
    for seed in seeds:
        for workers in ("1", "2"):
            flags = ("--mode", "hogwild", "--data.workers", workers, "--data.max_env_steps", str(env_steps))
            figures = train(*NO_EVALUATION, *flags, *seeded(seed))
            yield {"part": "scaling", "who": f"hogwild, {workers}", "seed": seed, **chosen(figures, SPEED)}


def book(seeds: list[int]) -> Iterator[Record]:
    """The book's two programs: seven workers, 500 episodes each."""
    keys = (SPEED, "env_steps", "episodes", "last_350_episode_length_mean", "worker_exit_codes", "eval_return_mean")
    for seed in seeds:
        for name in ("full_episode", "n_step"):
            figures = train("--config", str(ROOT / "configs" / "book" / f"{name}.yaml"), *seeded(seed))
            yield {"part": "book", "who": name, "seed": seed, **chosen(figures, *keys)}


ESTIMATORS = {
    "FullEpisode": ["--model.returns", "FullEpisode"],
    "NStep": ["--model.returns", "NStep"],
    "NStep:n_steps=1": ["--config", str(ROOT / "configs" / "one_step.yaml")],
    "GAE": ["--model.returns", "GAE"],
    "VTrace": ["--model.returns", "VTrace"],
    "L2Normalised:NStep": ["--model.returns", "L2Normalised", "--model.returns.estimator", "NStep"],
    "L2Normalised:FullEpisode": [
        *("--model.returns", "L2Normalised"),
        *("--model.returns.estimator", "FullEpisode"),
        *("--data.envs_per_worker", "16"),
    ],
}


def estimators(seeds: list[int], env_steps: int) -> Iterator[Record]:
    """Whether every estimator solves CartPole-v1, and after how long."""
    for seed in seeds:
        for name, flags in ESTIMATORS.items():
            figures = train(*flags, "--data.max_env_steps", str(env_steps), *seeded(seed))
            keys = ("solved_at_env_steps", "solved_at_seconds", "eval_return_mean")
            yield {"part": "estimators", "who": name, "seed": seed, **chosen(figures, *keys)}


def startup(repetitions: int) -> Iterator[Record]:
    """Seconds from the command to the first update, seen from outside."""
    for repetition in range(repetitions):
        started = time.perf_counter()
        with running("--trainer.log_every_n_steps", "1") as (process, metrics):
            while not metrics.exists() and process.poll() is None:
                time.sleep(0.005)
            yield {"part": "startup", "who": "a3c", "repetition": repetition, "seconds": time.perf_counter() - started}


def memory(workers: int) -> Iterator[Record]:
    """Memory of each worker process in a running training: proportional set size."""
    with running("--data.workers", str(workers)) as (process, metrics):
        while not metrics.exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(1.0)
        servers = [
            pid
            for pid in children(process.pid)
            if "forkserver" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
        ]
        for pid in (worker for server in servers for worker in children(server)):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            yield {"part": "memory", "who": "worker", "megabytes": kilobytes / 1024}


def children(parent: int) -> list[int]:
    """Process ids of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def guards(repetitions: int) -> Iterator[Record]:
    """What guards cost: CPU time of updates with them and without, as ratios of turns that alternate."""
    import breakdown as parts

    yield from parts.guards(repetitions)


def breakdown(repetitions: int) -> Iterator[Record]:
    """Where a step's time goes: parts of the collector and of an update, in microseconds."""
    import breakdown as parts

    yield from parts.worker(repetitions)
    yield from parts.learner(repetitions)


def named(mode: str) -> str:
    """Names a3c in a mode."""
    return "a3c" if mode == MODES[0] else f"a3c {mode}"


def seeded(seed: int) -> tuple[str, str]:
    """Gives the flag that sets the seed."""
    return "--seed_everything", str(seed)


def chosen(record: Record, *keys: str) -> Record:
    """Gives some keys of a record."""
    return {key: record[key] for key in keys}


def conclude(records: list[Record]) -> Iterator[Record]:
    """Gives medians, and ratios of runs of the same seed."""
    for part, key, better in (
        ("throughput", SPEED, 1),
        ("pong", SPEED, 1),
        ("ray", SPEED, 1),
        ("hopper", SPEED, 1),
        ("recurrent", SPEED, 1),
        ("scaling", SPEED, 1),
        ("book", SPEED, 0),
        ("book", "last_350_episode_length_mean", 0),
        ("solve", "solved_at_seconds", -1),
        ("estimators", "solved_at_seconds", 0),
    ):
        rows = [record for record in records if record["part"] == part]
        by_who: dict[str, dict[int, float | None]] = {}
        for row in rows:
            by_who.setdefault(row["who"], {})[row["seed"]] = row[key]
        for who, figures in by_who.items():
            known = [value for value in figures.values() if value is not None]
            record: Record = {"part": f"{part}, summary", "who": who, "runs": len(figures), "with a figure": len(known)}
            finals = [row["eval_return_mean"] for row in rows if row["who"] == who and "eval_return_mean" in row]
            if finals:
                record["final return at least 475"] = sum(final >= THRESHOLD for final in finals)
            if known:
                record[key] = peers.spread(known)
            best = "hogwild, 2" if part == "scaling" else "a3c"
            pairs = [
                (ours / theirs) ** better
                for seed, theirs in figures.items()
                if (ours := by_who.get(best, {}).get(seed)) is not None and theirs is not None
            ]
            if pairs and who != best:
                record[f"{best} is better by"] = peers.spread(pairs)
            yield record
    for part, key in (("startup", "seconds"), ("memory", "megabytes")):
        figures_of_part = [record[key] for record in records if record["part"] == part]
        if figures_of_part:
            yield {
                "part": f"{part}, summary",
                key: {"median": statistics.median(figures_of_part), "max": max(figures_of_part)},
            }


def machine() -> Record:
    """Says what the figures were measured on."""
    import torch

    from a3c.runs.machine import cpu_model

    return {
        "part": "machine",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def compare_peers(options: argparse.Namespace, seeds: list[int]) -> None:
    """Compares a3c with its peers."""
    runs = peers.compare(options.peers, options.envs, seeds, options.max_seconds, options.peers_folder)
    records = [emit(record, options.output) for record in runs]
    for record in peers.conclude(records):
        emit(record, options.output)


def main() -> None:
    """Runs the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"one seed, small budgets, without {', '.join(SLOW)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default: 1 to 10, with --quick 1")
    parser.add_argument("--parts", nargs="+", default=None, choices=PARTS)
    parser.add_argument("--peers", nargs="*", default=None, choices=list(peers.PEERS), help="these; alone: all")
    parser.add_argument("--peers_folder", type=Path, default=peers.FOLDER, help="of their virtual environments")
    parser.add_argument("--envs", nargs="+", default=["CartPole-v1"], choices=list(peers.RETURNS), help="with --peers")
    parser.add_argument("--max_seconds", type=float, default=120.0, help="of training, of each run; with --peers")
    parser.add_argument("--output", type=Path, default=None, help="file to append the lines to")
    options = parser.parse_args()
    seeds = options.seeds or ([1] if options.quick else list(range(1, 11)))
    quick = options.quick
    parts: dict[str, Callable[[], Iterator[Record]]] = {
        "throughput": lambda: throughput(seeds[:5], 600_000 if quick else 3_000_000),
        "pong": lambda: pong(seeds[:3], 60_000),
        "ray": lambda: ray(seeds[:5], 60_000),
        "hopper": lambda: hopper(seeds[:5], 240_000),
        "recurrent": lambda: recurrent(seeds[:5], 200_000 if quick else 1_000_000),
        "solve": lambda: solve(seeds, 200_000 if quick else 500_000),
        "scaling": lambda: scaling(seeds[:5], 400_000 if quick else 2_000_000),
        "book": lambda: book(seeds[:5]),
        "estimators": lambda: estimators(seeds[:5], 500_000),
        "startup": lambda: startup(1 if quick else 5),
        "memory": lambda: memory(1 if quick else 2),
        "guards": lambda: guards(100 if quick else 2000),
        "breakdown": lambda: breakdown(20 if quick else 200),
    }
    emit(machine(), options.output)
    if options.peers is not None:
        compare_peers(options, options.seeds or [1, 2, 3])
        return
    chosen_parts = options.parts or [part for part in PARTS if not (quick and part in SLOW)]
    records = [emit(record, options.output) for name in chosen_parts for record in parts[name]()]
    for record in conclude(records):
        emit(record, options.output)


if __name__ == "__main__":
    main()
