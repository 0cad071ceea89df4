"""Compares estimators under injected policy lag; writes staleness.csv and staleness.png.

``python scripts/staleness.py --output docs`` makes the picture in the README: runs of
``scripts/train.py`` in mode sync, which come out the same every time, so several go side by side.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

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


def run(point: tuple[str, int, int], env_steps: int) -> Result:
    """Trains once with an estimator, a lag and a seed."""
    from a3c.runs.curves import read_metric

    estimator, inject_lag, seed = point
    flags = {
        "--mode": "sync",
        "--config": str(ROOT / "configs" / "staleness.yaml"),
        "--model.returns": estimator,
        "--model.returns.n_steps": 16,
        "--data.inject_lag": inject_lag,
        "--seed_everything": seed,
        "--data.max_env_steps": env_steps,
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--run_dir", f"{folder}/run"]
        command += [str(word) for flag in flags.items() for word in flag]
        environment = {**os.environ, "WANDB_MODE": "disabled"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        metrics = Path(folder, "run", "metrics.csv")
        means = []
        for key in ("rollout/episode_return", "policy/kl_from_behaviour", "importance/effective_sample_size"):
            steps, values = read_metric(metrics, key)
            last = [value for step, value in zip(steps, values, strict=True) if step > (1 - LAST_SHARE) * env_steps]
            if not last:
                raise SystemExit(f"env_steps: got {env_steps}, must be more: no {key} in the run's last quarter")
            means.append(statistics.fmean(last))
    return Result(estimator, inject_lag, seed, *(round(mean, 4) for mean in means))


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
        with ThreadPoolExecutor(options.jobs) as pool:
            results = []
            for result in pool.map(lambda point: run(point, options.env_steps), grid):
                results.append(result)
                print(*result, f"({len(results)} of {len(grid)})", flush=True)
        write(results, table)
    draw(read(table), options.output / "staleness.png")


if __name__ == "__main__":
    main()
