"""Trains estimators along one controlled variable, policy lag or passes over each batch; draws return against it.

``python scripts/controlled.py lag --output docs`` makes staleness.csv and staleness.png, and ``passes`` reuse.csv and
reuse.png: runs of ``scripts/train.py`` in mode sync, which come out the same every time, so several go side by side.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from a3c.comparison.programs import Program
from a3c.comparison.run_server import RunServer
from a3c.runs.curves import read_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
LAST_SHARE = 0.25  # of the run, over which the return is averaged
COLOURS = ("#ee6677", "#4477aa", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000")


@dataclass(frozen=True)
class Variable:
    """What is varied, and what is trained with it.

    Attributes:
        file: name of table and picture.
        flag: of train.py, that sets it.
        axis: what the picture says of it.
        values: usual ones.
        variants: estimators by name, with the flags of train.py that make them.
        env_steps: budget of a run, by environment.
        config: what train.py trains with beside these.
    """

    file: str
    flag: str
    axis: str
    values: tuple[int, ...]
    variants: dict[str, tuple[str, ...]]
    env_steps: dict[str, int]
    config: str

    def place(self, result: Result) -> tuple[int, int, int, int]:
        """Returns what a table is sorted by."""
        envs, variants = list(self.env_steps), list(self.variants)
        return envs.index(result.env), variants.index(result.variant), result.value, result.seed


def returns(name: str, n_steps: int, *flags: str) -> tuple[str, ...]:
    """Gives the flags of train.py that make an estimator."""
    return "--model.returns", name, "--model.returns.n_steps", str(n_steps), *flags


CLIPPED = ("--model.ratio_clip", "0.2")
ANEW = ("--model.recompute_targets", "true")
VARIABLES = {
    "lag": Variable(
        "staleness",
        "--data.inject_lag",
        "policy lag of every update, in updates (--data.inject_lag)",
        (0, 32, 64, 128, 256),
        {name: returns(name, 16) for name in ("NStep", "VTrace")},
        {"Acrobot-v1": 250_000},
        "staleness.yaml",
    ),
    "passes": Variable(
        "reuse",
        "--model.passes",
        "passes over each batch (--model.passes)",
        (1, 2, 4, 8),
        {
            "NStep": returns("NStep", 32),
            "NStep clipped": returns("NStep", 32, *CLIPPED),
            "GAE": returns("GAE", 32),
            "GAE clipped": returns("GAE", 32, *CLIPPED),
            "VTrace anew": returns("VTrace", 32, *ANEW),
            "Retrace anew": returns("Retrace", 32, "--model.returns.lambda_", "0.95", *ANEW),
            "UPGO anew": returns("UPGO", 32, *ANEW),
        },
        {"CartPole-v1": 100_000, "Acrobot-v1": 200_000, "LunarLander-v3": 300_000},
        "reuse.yaml",
    ),
}


class Point(NamedTuple):
    """One run of the grid."""

    env: str
    variant: str
    value: int
    seed: int
    env_steps: int


class Result(NamedTuple):
    """One run: its mean training return over the last quarter, and how far the policy had moved."""

    env: str
    variant: str
    value: int
    seed: int
    env_steps: int
    episode_return: float
    kl_from_behaviour: float
    effective_sample_size: float

    @property
    def point(self) -> Point:
        """Which run of the grid it is."""
        return Point(*self[:5])


class Run:
    """A run with an estimator, a lag and a seed, forked from a server."""

    def __init__(self, point: Point, variable: Variable, server: RunServer) -> None:
        self.point = point
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        flags = {
            "--run_dir": folder / "run",
            "--mode": "sync",
            "--config": ROOT / "configs" / variable.config,
            "--data.env": point.env,
            variable.flag: point.value,
            "--seed_everything": point.seed,
            "--data.max_env_steps": point.env_steps,
        }
        words = [str(word) for flag in flags.items() for word in flag]
        words += variable.variants[point.variant]
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
                begin = (1 - LAST_SHARE) * self.point.env_steps
                last = [value for step, value in zip(steps, values, strict=True) if step > begin]
                if not last:
                    given = self.point.env_steps
                    raise SystemExit(f"env_steps: got {given}, must be more: no {key} in the run's last quarter")
                means.append(statistics.fmean(last))
        return Result(*self.point, *(round(mean, 4) for mean in means))


def run_all(grid: list[Point], variable: Variable, jobs: int, table: Path) -> None:
    """Trains what of a grid is not in the table yet, so many points at a time; adds each to it at once."""
    results = {result.point: result for result in (read(table) if table.exists() else [])}
    server, waiting = RunServer(), [point for point in reversed(grid) if point not in results]
    running: list[Run] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Run(waiting.pop(), variable, server))
            time.sleep(0.05)
            for run in [run for run in running if run.has_ended]:
                running.remove(run)
                results[run.point] = run.result()
                write(sorted(results.values(), key=variable.place), table)
                done = sum(point in results for point in grid)
                print(*results[run.point], f"({done} of {len(grid)})", flush=True)
    finally:
        server.close()


def write(results: list[Result], path: Path) -> None:
    """Writes a line a run."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Result._fields)
        writer.writerows(results)


def read(path: Path) -> list[Result]:
    """Reads what `write` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Result(
                row["env"],
                row["variant"],
                *(int(row[name]) for name in ("value", "seed", "env_steps")),
                *(float(row[name]) for name in Result._fields[5:]),
            )
            for row in csv.DictReader(file)
        ]


def draw(results: list[Result], variable: Variable, path: Path) -> None:
    """Draws every run as a point, and the median of the seeds as a line, a panel for each environment."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    envs = list(dict.fromkeys(result.env for result in results))
    figure = Figure(figsize=(9, 5) if len(envs) == 1 else (5 * len(envs), 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(envs), squeeze=False)[0]
    for axes, env in zip(panels, envs, strict=True):
        draw_env(axes, [result for result in results if result.env == env], variable)
        axes.set_title(env)
    panels[0].set_ylabel("episode return while training, last quarter")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    seeds = len({result.seed for result in results})
    figure.suptitle(f"Mode sync: {seeds} seeds, lines are medians")
    figure.savefig(path, dpi=120)


def draw_env(axes: Axes, results: list[Result], variable: Variable) -> None:
    """Draws the runs of one environment."""
    values = sorted({result.value for result in results})
    variants = [name for name in variable.variants if any(result.variant == name for result in results)]
    for number, variant in enumerate(variants):
        colour = COLOURS[number % len(COLOURS)]
        ours = [result for result in results if result.variant == variant]
        by_value = [[result.episode_return for result in ours if result.value == value] for value in values]
        shift = (number - (len(variants) - 1) / 2) * 0.8 / (len(variants) + 4)
        for position, returns in enumerate(by_value):
            axes.plot([position + shift] * len(returns), returns, "o", color=colour, markersize=4, alpha=0.5)
        places = [position + shift for position in range(len(values))]
        axes.plot(places, [statistics.median(returns) for returns in by_value], color=colour, label=variant, lw=2)
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlabel(variable.axis)
    axes.grid(alpha=0.25)


def main() -> None:
    """Runs the grid, or draws again what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variable", choices=VARIABLES)
    parser.add_argument("--env", nargs="+", help="environments (default: the usual ones)")
    parser.add_argument("--variants", nargs="+", help="estimators, by the names in the picture (default: all)")
    parser.add_argument("--values", type=int, nargs="+", help="of the variable (default: the usual ones)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--env_steps", type=int, help="budget of each run (default: the usual one)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at the same time")
    parser.add_argument("--output", type=Path, required=True, help="folder for table and picture; goes on with a table")
    parser.add_argument("--draw", action="store_true", help="only draw the table that is there")
    options = parser.parse_args()
    variable = VARIABLES[options.variable]
    for name, given, allowed in (
        ("env", options.env, variable.env_steps),
        ("variants", options.variants, variable.variants),
    ):
        if unknown := set(given or ()) - set(allowed):
            parser.error(f"--{name}: got {', '.join(sorted(unknown))}, must be among {', '.join(allowed)}")
    table = options.output / f"{variable.file}.csv"
    if not options.draw:
        points = product(
            options.env or variable.env_steps,
            options.variants or variable.variants,
            options.values or variable.values,
            options.seeds,
        )
        grid = [Point(*point, options.env_steps or variable.env_steps[point[0]]) for point in points]
        budgets = {result.env: result.env_steps for result in (read(table) if table.exists() else [])}
        for point in grid:
            if (budget := budgets.get(point.env, point.env_steps)) != point.env_steps:
                parser.error(f"--env_steps: got {point.env_steps}, must be {budget} for {point.env}, as in {table}")
        options.output.mkdir(parents=True, exist_ok=True)
        run_all(grid, variable, options.jobs, table)
    draw(read(table), variable, options.output / f"{variable.file}.png")


if __name__ == "__main__":
    main()
