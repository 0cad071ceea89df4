"""Compares estimators under injected policy lag; writes staleness.csv and staleness.png.

``python scripts/controlled.py --output docs`` makes the picture in the README: runs of
``scripts/train.py`` in mode sync, which come out the same every time, so several go side by side.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

from a3c.comparison.run_server import Program, RunServer
from a3c.runs.curves import read_metric

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"NStep": "#ee6677", "VTrace": "#4477aa"}
LAST_SHARE = 0.25  # of the run, over which the return is averaged


class Result(NamedTuple):
    """One run: its mean training return over the last quarter, and how far the policy had moved."""

    estimator: str
    inject_lag: int
    seed: int
    episode_return: float
    kl_from_behaviour: float
    effective_sample_size: float


class Run:
    """A run with an estimator, a lag and a seed, forked from a server."""

    def __init__(self, point: tuple[str, int, int], env_steps: int, server: RunServer) -> None:
        estimator, inject_lag, seed = self.point = point
        self._env_steps = env_steps
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        flags = {
            "--run_dir": folder / "run",
            "--mode": "sync",
            "--config": ROOT / "configs" / "staleness.yaml",
            "--model.returns": estimator,
            "--model.returns.n_steps": 16,
            "--data.inject_lag": inject_lag,
            "--seed_everything": seed,
            "--data.max_env_steps": env_steps,
        }
        words = [str(word) for flag in flags.items() for word in flag]
        self._command = [sys.executable, str(ROOT / "scripts" / "train.py"), *words]
        environment = {**os.environ, "WANDB_MODE": "disabled"}
        self._process = server.start(Program(self._command, environment, folder, folder / "output"))

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> Result:
        """Returns what the run came to, once it has ended."""
        folder = Path(self._folder.name)
        with self._folder:
            if self._process.returncode != 0:
                errors = (folder / "output").read_text(encoding="utf-8")
                raise SystemExit(f"{' '.join(self._command)} ended with {self._process.returncode}:\n{errors}")
            means = []
            for key in ("rollout/episode_return", "policy/kl_from_behaviour", "importance/effective_sample_size"):
                steps, values = read_metric(folder / "run" / "metrics.csv", key)
                begin = (1 - LAST_SHARE) * self._env_steps
                last = [value for step, value in zip(steps, values, strict=True) if step > begin]
                if not last:
                    raise SystemExit(
                        f"env_steps: got {self._env_steps}, must be more: no {key} in the run's last quarter"
                    )
                means.append(statistics.fmean(last))
        return Result(*self.point, *(round(mean, 4) for mean in means))


def run_all(grid: list[tuple[str, int, int]], env_steps: int, jobs: int) -> list[Result]:
    """Trains all points of a grid, so many at a time; gives their results in the grid's order."""
    results: dict[tuple[str, int, int], Result] = {}
    server, waiting = RunServer(), list(reversed(grid))
    running: list[Run] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Run(waiting.pop(), env_steps, server))
            time.sleep(0.05)
            for run in [run for run in running if run.has_ended]:
                running.remove(run)
                results[run.point] = run.result()
                print(*results[run.point], f"({len(results)} of {len(grid)})", flush=True)
    finally:
        server.close()
    return [results[point] for point in grid]


def write(results: list[Result], path: Path) -> None:
    """Writes a line a run."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Result._fields)
        writer.writerows(results)


def read(path: Path) -> list[Result]:
    """Reads what `write` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Result(row["estimator"], int(row["inject_lag"]), int(row["seed"]), *map(float, list(row.values())[3:]))
            for row in csv.DictReader(file)
        ]


def draw(results: list[Result], path: Path) -> None:
    """Draws every run as a point, and the median of the seeds as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lags = sorted({result.inject_lag for result in results})
    estimators = sorted({result.estimator for result in results})
    for number, estimator in enumerate(estimators):
        colour = COLOURS.get(estimator, f"C{number}")
        ours = [result for result in results if result.estimator == estimator]
        by_lag = [[result.episode_return for result in ours if result.inject_lag == lag] for lag in lags]
        shift = (number - (len(estimators) - 1) / 2) * 0.12
        for position, returns in enumerate(by_lag):
            axes.plot([position + shift] * len(returns), returns, "o", color=colour, markersize=5, alpha=0.5)
        places = [position + shift for position in range(len(lags))]
        medians = [statistics.median(returns) for returns in by_lag]
        axes.plot(places, medians, color=colour, label=estimator, linewidth=2)
    seeds = len({result.seed for result in results})
    axes.set_xticks(range(len(lags)), [str(lag) for lag in lags])
    axes.set_xlabel("policy lag of every update, in updates (--data.inject_lag)")
    axes.set_ylabel("episode return while training, last quarter")
    axes.set_title(f"Acrobot-v1, mode sync: {seeds} seeds, lines are medians")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Runs the grid, or draws again what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--estimators", nargs="+", default=["NStep", "VTrace"])
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 32, 64, 128, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--env_steps", type=int, default=250_000, help="budget of each run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at the same time")
    parser.add_argument("--output", type=Path, required=True, help="folder for staleness.csv and staleness.png")
    parser.add_argument("--draw", action="store_true", help="only draw the staleness.csv that is there")
    options = parser.parse_args()
    table = options.output / "staleness.csv"
    if not options.draw:
        options.output.mkdir(parents=True, exist_ok=True)
        grid = list(product(options.estimators, options.lags, options.seeds))
        write(run_all(grid, options.env_steps, options.jobs), table)
    draw(read(table), options.output / "staleness.png")


if __name__ == "__main__":
    main()
