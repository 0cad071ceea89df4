"""Trains for a while and says whether memory, open files and shared memory stay flat; exit status 1 if not.

``python scripts/soak.py --mode hogwild --seconds 3600 --fault_every 10 --output soak.csv`` is for a
night; what follows ``--`` goes to ``scripts/train.py``. All processes of the run are counted together.

The slope is Theil and Sen's: the median of the slopes between all pairs of samples (Sen, 1968,
"Estimates of the regression coefficient based on Kendall's tau"), which a burst of a few samples
cannot tilt; its 95 % interval comes from the same paper. A quantity is not flat if the whole
interval lies above its tolerance.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from processes import Usage, marked_environment, processes_of, usage_of, wait_until, workers_of

TRAIN = Path(__file__).resolve().parent / "train.py"
ENDLESS = 10**15  # env steps
SAMPLES = 30  # at least
START_SECONDS = 60.0
STOP_SECONDS = 20.0
# Growth a minute that counts as flat: a share of the mean for bytes, a number for the others.
TOLERANCE = {"memory": 0.01, "files": 1.0, "shared": 0.01, "processes": 0.5}
BYTES = ("memory", "shared")


class Slope(NamedTuple):
    """Growth a minute: the estimate, and its 95 % interval."""

    estimate: float
    low: float
    high: float


def theil_sen(minutes: Sequence[float], values: Sequence[float]) -> Slope:
    """Gives the median of the slopes between all pairs of samples, and its 95 % interval: Sen (1968), eq. 2.6.

    Args:
        minutes: when, n ≥ 3 and increasing.
        values: what.
    """
    x, y = np.asarray(minutes, float), np.asarray(values, float)
    first, second = np.triu_indices(len(x), 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    n, pairs = len(x), len(slopes)
    spread = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low, high = round((pairs - spread) / 2), round((pairs + spread) / 2)
    return Slope(float(np.median(slopes)), float(slopes[max(0, low - 1)]), float(slopes[min(pairs - 1, high)]))


def tolerance_of(name: str, mean: float) -> float:
    """Gives the growth a minute up to which a quantity counts as flat."""
    return TOLERANCE[name] * (mean if name in BYTES else 1.0)


class Trouble:
    """Kills or stops a random worker every few seconds.

    Args:
        mark: of the run.
        every: seconds from one to the next; None for no trouble.
        seed: of the choice.
    """

    def __init__(self, mark: str, every: float | None, seed: int) -> None:
        self._mark, self._every, self._random = mark, every, random.Random(seed)
        self._next = math.inf if every is None else time.monotonic() + every
        self.count = 0

    def make(self) -> None:
        """Does it, if it is time."""
        if self._every is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        if workers := workers_of(self._mark):
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(workers).pid, self._random.choice([signal.SIGKILL, signal.SIGSTOP]))
                self.count += 1


def train(options: argparse.Namespace, folder: Path) -> tuple[list[float], list[Usage], int]:
    """Trains for the seconds asked for; gives the times in minutes, the samples, and how often there was trouble."""
    mark = uuid.uuid4().hex
    flags = ["--mode", options.mode, "--run_dir", str(folder / "run"), "--data.max_env_steps", str(ENDLESS)]
    flags += ["--stop_when_solved", "false", "--evaluation.every_env_steps", "null", *options.flags]
    if options.fault_every is not None:
        flags += ["--data.worker_timeout", "1", "--data.max_restarts", "1000000"]
    with (folder / "output").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, str(TRAIN), *flags],
            env=marked_environment(mark, WANDB_MODE=options.wandb_mode),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        metrics = folder / "run" / "metrics.csv"
        wait_until(lambda: metrics.exists() or process.poll() is not None, START_SECONDS, "the first metrics")
        minutes: list[float] = []
        samples: list[Usage] = []
        start, trouble = time.monotonic(), Trouble(mark, options.fault_every, options.seed)
        while process.poll() is None:
            now = time.monotonic()
            if now > start + options.seconds and len(samples) >= SAMPLES:  # a busy machine gives few in a short time
                break
            trouble.make()
            samples.append(usage_of(mark))
            minutes.append((now - start) / 60)
            time.sleep(options.interval)
        process.send_signal(signal.SIGINT)
        status = process.wait(STOP_SECONDS)
        if status != 128 + signal.SIGINT:
            raise SystemExit(f"the run ended with {status}:\n{(folder / 'output').read_text(encoding='utf-8')[-4000:]}")
        wait_until(lambda: not processes_of(mark), 2, "the end of all processes")
    finally:
        for left in processes_of(mark):
            with suppress(ProcessLookupError):
                os.kill(left.pid, signal.SIGKILL)
        process.wait()
    return minutes, samples, trouble.count


def judge(minutes: list[float], samples: list[Usage], warm_up: float) -> bool:
    """Prints a line a quantity, of the samples after the warm-up; says whether all are flat."""
    first = int(len(samples) * warm_up)
    print(f"{'':10} {'mean':>12} {'a minute':>12} {'95 % interval':>27} {'tolerance':>12}")
    all_flat = True
    for name in Usage._fields:
        values = [float(getattr(sample, name)) for sample in samples[first:]]
        unit = 2**20 if name in BYTES else 1
        mean, slope = float(np.mean(values)), theil_sen(minutes[first:], values)
        tolerance = tolerance_of(name, mean)
        flat = slope.low <= tolerance
        all_flat &= flat
        shown = [f"{number / unit:12.3f}" for number in (mean, slope.estimate)]
        interval = f"{slope.low / unit:12.3f} … {slope.high / unit:12.3f}"
        verdict = "flat" if flat else "GROWS"
        print(f"{name:10} {' '.join(shown)} {interval} {tolerance / unit:12.3f}  {verdict}")
    print("(memory and shared in MiB)")
    return all_flat


def main() -> int:
    """Trains, samples and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["sync", "async", "hogwild"], default="async")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two samples")
    parser.add_argument("--warm_up", type=float, default=0.3, help="share of the samples that is left out")
    parser.add_argument("--fault_every", type=float, help="seconds between two workers killed or stopped")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--wandb_mode", choices=["disabled", "offline"], default="disabled")
    parser.add_argument("--output", type=Path, help="CSV file for the samples")
    parser.add_argument("flags", nargs="*", help="of scripts/train.py, after --")
    options = parser.parse_args()
    if not 0 <= options.warm_up <= 0.8:
        parser.error(f"argument --warm_up: got {options.warm_up}, must be from 0 to 0.8")
    with tempfile.TemporaryDirectory() as folder:
        minutes, samples, troubles = train(options, Path(folder))
    if options.output is not None:
        with options.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("minutes", *Usage._fields))
            writer.writerows((minute, *sample) for minute, sample in zip(minutes, samples, strict=True))
    print(f"{options.mode}, {options.seconds:g} s, {len(samples)} samples, {troubles} workers killed or stopped")
    return 0 if judge(minutes, samples, options.warm_up) else 1


if __name__ == "__main__":
    sys.exit(main())
