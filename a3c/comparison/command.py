"""The command line of a comparison: runs a grid, or reads runs that are there, and writes the report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from a3c.comparison.analysis import compare
from a3c.comparison.grid import BUDGET, ENV, INTERVAL, MODE, RETURNS, SEED, STOP, env_folder, make_grid
from a3c.comparison.grid_run import GridRun, cores_of, default_jobs, report
from a3c.comparison.on_ray.runs import RunsOnRay
from a3c.comparison.programs import FreshCommands, Starter
from a3c.comparison.records import find_runs
from a3c.comparison.registry import RunRegistry
from a3c.comparison.run_server import RunServer
from a3c.comparison.run_settings import RunSettings, configured
from a3c.comparison.schedule import USAGE_ERROR
from a3c.comparison.sweep import GROUPS, read_sweep
from a3c.rollouts.on_ray.cluster import MISSING, is_installed
from a3c.runs.allowlist import add_current_folder
from a3c.runs.machine import machine_in_words
from a3c.training.cli.screening import Screening
from a3c.training.cli.typed_words import expanded
from a3c.training.cli.usage import UsageError, explain

EVALUATIONS = 30  # of a run, where nobody says how far apart
# What a grid is made of where no flag, sweep or config says so.
DEFAULTS: dict[str, list[Any]] = {
    RETURNS: ["FullEpisode", "NStep", "GAE", "VTrace"],
    MODE: ["async"],
    ENV: ["CartPole-v1"],
    SEED: [1, 2, 3, 4, 5],
    BUDGET: [300_000],
}
PROCESSES, RAY = PLACES = ("processes", "ray")  # on which runs are made
CONFIGURED = (MODE, ENV, BUDGET, INTERVAL)  # of which a config of train.py may set the one value
FLAGS = {"returns": RETURNS, "modes": MODE, "env": ENV, "max_env_steps": BUDGET, "evaluate_every": INTERVAL}


class OneLineParser(ArgumentParser):
    """Raises one line that says what is wrong, instead of printing the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(": ".join(filter(None, explain(message, ex, self)))) from ex


def make_parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = OneLineParser(
        prog="compare.py",
        description="Which return estimator is better here, and is the difference real? Runs every estimator in every "
        "mode with every seed on equal budgets of env steps, or reads runs that are there, and writes a report. "
        "Flags of train.py that every run shall get come last, after --.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="the comparison's folder; the same command goes on in it (default: comparisons/ENV)",
    )
    add("--returns", type=str, nargs="+", metavar="LABEL", help="estimators, e.g. NStep NStep:n_steps=20")
    add("--modes", type=str, nargs="+", metavar="MODE", help="update modes (default: the config's, or async)")
    add("--env", type=str, nargs="+", metavar="ID", help="environments (default: the config's, or CartPole-v1)")
    add("--seeds", type=int, metavar="N", help="seeds 1 to N (default: 5)")
    add("--seed_list", type=int, nargs="+", metavar="SEED", help="seeds, one by one, instead of --seeds")
    add("--max_env_steps", type=int, metavar="N", help="budget of each run (default: the config's, or 300,000)")
    add(
        "--evaluate_every",
        type=int,
        metavar="N",
        help=f"env steps between evaluations (default: the config's, or budget / {EVALUATIONS})",
    )
    add("--jobs", type=int, metavar="N", help="runs at a time (default: as the cores allow)")
    add("--config", type=Path, nargs="+", metavar="FILE", default=[], help="configs of train.py, for every run")
    add("--sweep", type=Path, metavar="FILE", help="W&B sweep file with method: grid, run here without an account")
    add("--allow", type=str, nargs="+", metavar="PREFIX", default=[], help="as of train.py, for every run")
    add("--restart_changed", action="store_true", help="begin runs anew that are there with other settings")
    add("--isolated", action="store_true", help="start each run as a fresh command instead of forking it")
    add(
        "--on",
        type=str,
        metavar="PLACE",
        default=PROCESSES,
        help="where runs are made: processes (of this machine, the default), or ray: on the nodes of a Ray cluster",
    )
    add(
        "--ray_address", type=str, metavar="HOST:PORT", help="of a cluster that is there, or auto (default: a Ray here)"
    )
    add("--from", type=Path, nargs="+", metavar="PLACE", help="compare the runs in these folders instead of running")
    return parser


def main(args: Sequence[str], train: Path, default_config: Path, server: RunServer | None = None) -> int:
    """Make the comparison that the command line asks for.

    Args:
        args: the command line without the program's name.
        train: the script that makes one run.
        default_config: the config that the script reads first.
        server: that forks the runs; None starts each as a fresh command.

    Returns:
        The exit status: 0; 1 if a run failed; 2 for what cannot be done; 128 + n after signal n.
    """
    add_current_folder()  # a user's own estimator lies where the command is typed
    words = expanded(args)
    cut = words.index("--") if "--" in words else len(words)
    console = Console()
    command = shlex.join(["python", "scripts/compare.py", *words])
    try:
        _check_once(words[:cut])
        options = make_parser().parse_args(words[:cut])
        passed = [*(f"--allow={prefix}" for prefix in options.allow), *words[cut + 1 :]]
        _check(options, passed)
        if options["from"] is not None:
            comparison = compare(find_runs(options["from"]))
            try:
                options.output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"output: got {str(options.output)!r}, must be a folder that can be made: {error}"
                ) from error
            report(comparison, options.output, console, origin=f"Made by: {command}.")
            return 0
        axes = axes_of(options, passed)
        grid = make_grid(axes, [*(f"--config={path}" for path in options.config), *passed])
        output = options.output or Path("comparisons", "+".join(map(env_folder, axes[ENV])))
        registry = RunRegistry(output, [default_config, *options.config])
        if not options.restart_changed:
            registry.refuse_changed(grid.runs)
        settings = RunSettings(options.config, passed, axes)
        cores = cores_of(grid, settings.workers, settings.learners)

        def execute(starter: Starter, jobs: int, place: str) -> int:
            jobs = options.jobs or jobs
            return GridRun(grid, output, registry, train, jobs, console, command, starter, place).execute()

        if options.on == RAY:
            settings.check_for_ray()
            with RunsOnRay(options.ray_address, cores, options.jobs or 1) as runs:
                runs.check(output, [train, Path.cwd()])
                return execute(runs, runs.room, f"{runs.in_words}; here {machine_in_words()}")
        starter = FreshCommands() if options.isolated or server is None else server
        return execute(starter, default_jobs(cores), machine_in_words())
    except UsageError as error:
        sys.stderr.write(f"compare.py: error: {error}\n")
        return USAGE_ERROR


def _check_once(words: Sequence[str]) -> None:
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    for flag in flags:
        if flags.count(flag) > 1:  # the parser would keep the last one alone
            raise UsageError(f"{flag}: got twice, must be once, with all its values")


def _check(options: Namespace, passed: Sequence[str]) -> None:
    if options.output is None and options["from"] is not None:
        raise UsageError("output: got nothing, must be the folder for the report")
    if options.output is not None and options.output.exists() and not options.output.is_dir():
        raise UsageError(f"output: got {str(options.output)!r}, must be a folder")
    for name in ("seeds", "jobs", "evaluate_every"):
        if options[name] is not None and options[name] < 1:
            raise UsageError(f"{name}: got {options[name]}, must be at least 1")
    for word in passed:
        name = word.partition("=")[0]
        if name.removeprefix("--") in GROUPS or (word.startswith("-c") and not word.startswith("--")):
            raise UsageError(f"{name}: got after --, must be a file for --config before it, or single keys")
    if options.seeds is not None and options.seed_list is not None:
        raise UsageError("seed_list: got with seeds, must be one of them")
    _check_place(options)
    if options["from"] is not None:
        others = [*FLAGS, "seeds", "seed_list", "jobs", "sweep", "restart_changed", "isolated", "config"]
        given = [name for name in others if options[name] not in (None, False, [])]
        if given or passed:
            raise UsageError(f"from: got with {given[0] if given else passed[0]}, must be alone: nothing is run")


def _check_place(options: Namespace) -> None:
    if options.on not in PLACES:
        raise UsageError(f"on: got {options.on!r}, must be one of {', '.join(PLACES)}")
    if options.on == PROCESSES:
        if options.ray_address is not None:
            raise UsageError(f"ray_address: got {options.ray_address} without --on ray, must come with it")
        return
    for name, why in (("isolated", "each run is a fresh command there"), ("from", "nothing is run")):
        if options[name] not in (None, False):
            raise UsageError(f"{name}: got with --on ray, must be without it: {why}")
    if not is_installed():
        raise UsageError(f"on: got ray, must be {PROCESSES}: {MISSING}")


def axes_of(options: Namespace, passed: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the axes of the grid that the flags, the sweep file and then the configs ask for.

    Args:
        options: the parsed flags.
        passed: what goes to train.py; its `--allow` says whom the files may name.

    Raises:
        UsageError: a flag and the sweep set the same, or a file cannot be read or says what a file may not.
    """
    axes: dict[str, list[Any]] = {}
    # Files are screened: as flags of a run, their words would pass for the user's own.
    if options.sweep is not None:
        axes = read_sweep(options.sweep)
        Screening(passed).check(axes, options.sweep)
    flags = {FLAGS[name]: options[name] for name in FLAGS if options[name] is not None}
    if options.seeds is not None or options.seed_list is not None:
        flags[SEED] = options.seed_list or list(range(1, options.seeds + 1))
    for key, given in flags.items():
        if key in axes:
            raise UsageError(f"sweep: {options.sweep} sets {key}, so it must not be given by a flag")
        axes[key] = given if isinstance(given, list) else [given]
    for key, value in configured(options.config, passed, CONFIGURED).items():
        axes.setdefault(key, [value])
    for key, values in DEFAULTS.items():
        if key == RETURNS and options.sweep is not None:
            values = ["NStep"]
        axes.setdefault(key, values)
    axes.setdefault(STOP, [False])
    if isinstance(axes[BUDGET][0], int):
        axes.setdefault(INTERVAL, [max(1, axes[BUDGET][0] // EVALUATIONS)])
    return axes
