"""Measures the parts of a run and predicts env steps/s and policy lag from cores, workers and environments.

Takes its own flags and those of scripts/train.py, a --config too. Within two minutes it prints the parts, what this
machine does with 1, 2, 4, … workers, what to set, and where it saturates. docs/scaling.md explains the model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a3c.training.cli.entry import prepare_process

if TYPE_CHECKING:
    from throughput.model import Parts, Setup

SECONDS, QUICK_SECONDS = 45.0, 4.0  # spent in measuring, about; to build what is measured comes on top
WARM_UP, WINDOW = 2.0, 8.0  # seconds of a run of --check
PATIENCE = 4.0  # times the window, for one in which other programs are quiet
MOST_PROCESSES = 64  # of --simulate; more workers are simulated, event by event
SLEEP = 0.05  # seconds of a step of an environment that sleeps
VARIATION = 0.05  # of a rollout's seconds, where the queue is simulated
USAGE_ERROR = 2

Record = dict[str, Any]


class Parser(argparse.ArgumentParser):
    """Keeps what it does not know, the flags of scripts/train.py, as `flags`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        options, rest = super().parse_known_args(args, namespace)
        options.flags = rest
        return options, []


def parse(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with one line."""
    parser = Parser(description=__doc__, allow_abbrev=False, epilog="All other flags are those of scripts/train.py.")
    parser.add_argument("--quick", action="store_true", help=f"measure for {QUICK_SECONDS:g} s only, and say little")
    parser.add_argument("--check", action="store_true", help="train for seconds in mode sync and with 1 and 2 workers")
    parser.add_argument(
        "--simulate", type=int, nargs="+", metavar="WORKERS", help="workers whose environments sleep, up to the most"
    )
    parser.add_argument("--processes", type=int, default=MOST_PROCESSES, help="the most that --simulate starts")
    parser.add_argument("--sleep", type=float, default=SLEEP, help="seconds of a step of an environment that sleeps")
    parser.add_argument("--cores", type=int, default=None, help="predict for so many cores instead of this machine's")
    parser.add_argument("--window", type=float, default=WINDOW, help="seconds of each run of --check and --simulate")
    parser.add_argument("--output", type=Path, default=None, help="file to append JSON lines to")
    options = parser.parse_args(args)
    for name in ("simulate", "processes", "cores"):
        given = getattr(options, name)
        for number in given if isinstance(given, list) else [given]:
            if number is not None and number < 1:
                refuse(f"{name}: got {number}, must be at least 1")
    for name in ("sleep", "window"):
        if not 0 < getattr(options, name) <= 3600:
            refuse(f"{name}: got {getattr(options, name):g}, must be above 0 and at most 3600")
    return options


def refuse(message: str) -> None:
    """End the program with one line."""
    sys.stderr.write(f"scaling.py: error: {message}\n")
    raise SystemExit(USAGE_ERROR)


def setup_of(flags: Sequence[str], cores: int) -> Setup:
    """Return what the flags come to, on so many cores."""
    from throughput.model import Setup
    from throughput.runs import make

    cli = make(flags)
    mode, module = cli.datamodule.mode, cli.model
    collection = mode.collection
    return Setup(
        mode.name,
        cores,
        mode.workers,
        collection.envs_per_worker,
        module.returns.horizon,
        collection.rollouts_per_update,
        module.learning.reuse.passes,
    )


def check(flags: Sequence[str], setup: Setup, parts: Parts, window: float) -> Iterator[Record]:
    """Compare predictions with real runs: mode sync, and async with 1 and 2 workers."""
    from throughput.model import predict
    from throughput.runs import run

    for mode, workers in (("sync", 1), ("async", 1), ("async", 2)):
        case = replace(setup, mode=mode, workers=workers)
        numbers = [] if mode == "sync" else ["--data.workers", str(workers)]
        measured = run([*flags, *sized(case), "--mode", mode, *numbers], WARM_UP, window, PATIENCE * window)
        yield record("scaling, check", "measured", case, predict(parts, case), measured._asdict())


def simulate(flags: Sequence[str], cores: int, workers: Sequence[int], options: argparse.Namespace) -> Iterator[Record]:
    """Compare predictions with workers whose environments sleep: real processes up to a number, a simulation above."""
    from throughput.model import efficiency, predict
    from throughput.parts import measure
    from throughput.queue import simulate as simulate_queue
    from throughput.runs import run

    kwargs = json.dumps({"seconds": options.sleep})
    env = ("--data.env", "throughput.sleeping_env:Sleeping-v0", "--data.env_kwargs", kwargs)
    flags = [*flags, *env, "--mode", "async"]
    base: Setup = setup_of(flags, cores)
    parts = measure(flags, QUICK_SECONDS if options.quick else SECONDS / 2)
    rates: list[float] = []
    result: Record
    for number in workers:
        case = replace(base, workers=number)
        if number <= options.processes:
            rollout = options.sleep * case.n_steps
            window = max(options.window, 4 * rollout)
            measured = run(
                [*flags, "--data.workers", str(number)], max(WARM_UP, 3 * rollout), window, PATIENCE * window
            )
            kind, result = "measured", measured._asdict()
            predicted = predict(parts, case)
        else:
            case = replace(case, cores=number + 1)
            kind, predicted = "simulated", predict(parts, case)
            queue = simulate_queue(case, predicted.collect, predicted.update, variation=VARIATION, updates=50 * number)
            result = {
                "env_steps_per_second": queue.updates_per_second * case.steps,
                "lag": queue.lag,
                "learner_busy": queue.learner_busy,
            }
        rates.append(result["env_steps_per_second"])
        result["share_of_linear"] = efficiency(rates, workers[: len(rates)])[-1]
        yield record("scaling, simulate", kind, case, predicted, result)


def sized(setup: Setup) -> list[str]:
    """Return the flags that fix the size of an update, whatever a config says of workers."""
    return [
        *("--data.envs_per_worker", str(setup.envs_per_worker)),
        *("--data.rollouts_per_update", str(setup.rollouts_per_update)),
    ]


def record(part: str, kind: str, case: Setup, predicted: Any, result: Record) -> Record:
    """Return a comparison as one line of JSON has it; the ratio is predicted over measured.

    The second ratio leaves out the time in which the side that limits was ready and waited for a core.
    """
    at_work = 1.0 - result.get("workers_queued" if predicted.limit == "workers" else "learner_queued", 0.0)
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}
    return {
        "part": part,
        "kind": kind,
        "mode": case.mode,
        "workers": case.workers,
        "envs_per_worker": case.envs_per_worker,
        "rollouts_per_update": case.rollouts_per_update,
        "ratio": round(predicted.env_steps_per_second / result["env_steps_per_second"], 4),
        "ratio, unqueued": round(predicted.env_steps_per_second / result["env_steps_per_second"] * at_work, 4),
        "result": rounded,
        "predicted": {
            key: round(value, 5) if isinstance(value, float) else value for key, value in predicted._asdict().items()
        },
    }


def main(args: Sequence[str] | None = None) -> int:
    """Measures, predicts, and compares if asked to."""
    options = parse(args)
    prepare_process()
    from a3c.rollouts.workers.fork_server import start_fork_server

    start_fork_server()
    from benchmark import machine
    from throughput import tables as tables
    from throughput.parts import measure

    from a3c.rollouts.workers.resources import available_cores
    from a3c.training.cli.usage import UsageError

    sys.argv[1:] = []  # Lightning's parser warns of them
    os.environ.setdefault("WANDB_MODE", "disabled")
    cores = options.cores or available_cores()
    records: list[Record] = [machine()]
    try:
        if options.simulate:
            for line in simulate(options.flags, cores, options.simulate, options):
                records.append(line)
                tables.show_comparison([line])
        else:
            setup = setup_of(options.flags, cores)
            parts = measure(options.flags, QUICK_SECONDS if options.quick else SECONDS)
            records += tables.show(parts, setup)
            if options.check:
                compared = list(check(options.flags, setup, parts, options.window))
                tables.show_comparison(compared)
                records += compared
    except UsageError as error:
        refuse(str(error))
    if options.output is not None:
        with options.output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in records)
    return 0


if __name__ == "__main__":  # workers import this file again: nothing heavy may stand above
    sys.exit(main())
