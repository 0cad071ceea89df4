"""A model of throughput and policy lag: from the seconds that the parts of a run take to what the whole of it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

ROUNDS = 100  # of the fixed point between how busy the cores are and how fast they are then


@dataclass(frozen=True)
class Curve:
    """Seconds by size, straight between the sizes that were measured, and beyond them.

    Args:
        sizes: ascending, at least one.
        seconds: for each of them.
    """

    sizes: tuple[float, ...]
    seconds: tuple[float, ...]

    @classmethod
    def line(cls, fixed: float, each: float = 0.0) -> Curve:
        """Return fixed + each · size."""
        return cls((0.0, 1.0), (fixed, fixed + each))

    def __call__(self, size: float) -> float:
        """Return the seconds for a size, ≥ 0."""
        sizes, seconds = self.sizes, self.seconds
        if len(sizes) == 1:
            return seconds[0]
        if sizes[0] <= size <= sizes[-1]:
            return float(np.interp(size, sizes, seconds))
        left, right = (0, 1) if size < sizes[0] else (-2, -1)
        slope = (seconds[right] - seconds[left]) / (sizes[right] - sizes[left])
        return max(0.0, seconds[right] + slope * (size - sizes[right]))


@dataclass(frozen=True)
class Parts:
    """What the parts of a run take, in seconds, on a machine that does nothing else.

    Attributes:
        env: one step of n environments together.
        forward: one choice of actions for n observations: a forward of the policy, and sampling.
        writing: the rest of a collector's time step with n environments: checks, and copies into the slot.
        rollout: what a collector does once a rollout of n environments: pull, log-probabilities, sums of episodes.
        cores: cores that a collector of n environments keeps busy: below 1 where environments wait, above 1
            where they have threads.
        send: a worker's announcement of a rollout.
        receive: what the learner does to receive one rollout and to give its slot back, with n workers.
        update: one update on n env steps, in the Trainer, publication and metrics included.
        passes: over each batch, with which `update` was measured.
        pass_share: share of `update` that one of the passes takes.
        round_trip: of a message between two processes and its answer.
        slowdown: factor on all times while every core is busy.
    """

    env: Curve
    forward: Curve
    writing: Curve
    rollout: Curve
    cores: Curve
    send: float
    receive: Curve
    update: Curve
    passes: int = 1
    pass_share: float = 1.0
    round_trip: float = 0.0
    slowdown: float = 1.0


@dataclass(frozen=True)
class Setup:
    """What a run is made of.

    Attributes:
        mode: "sync", "async" or "hogwild".
        cores: of the machine.
        workers: processes, ≥ 1.
        envs_per_worker: B, columns of a rollout, ≥ 1.
        n_steps: T, time steps of a rollout, ≥ 1.
        rollouts_per_update: R, ≥ 1.
        passes: over each batch, ≥ 1.

    Raises:
        ValueError: the field, what was given, and what is allowed.
    """

    mode: str = "async"
    cores: int = 2
    workers: int = 1
    envs_per_worker: int = 64
    n_steps: int = 32
    rollouts_per_update: int = 1
    passes: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("sync", "async", "hogwild"):
            raise ValueError(f"mode: got {self.mode!r}, must be one of sync, async, hogwild")
        for name in ("cores", "workers", "envs_per_worker", "n_steps", "rollouts_per_update", "passes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, must be at least 1")

    @property
    def steps(self) -> int:
        """Env steps of an update, N = T·B·R."""
        return self.n_steps * self.envs_per_worker * self.rollouts_per_update

    @property
    def slots(self) -> int:
        """Slots of a worker in mode async, S: one to fill, and those that an update holds."""
        return max(2, math.ceil(self.rollouts_per_update / self.workers) + 1)


class Lag(NamedTuple):
    """Mean policy lag, in updates.

    Attributes:
        spread: where the workers hand rollouts over evenly in time.
        together: where all hand over at once, as they do who begin together and take equally long.
    """

    spread: float
    together: float


class Prediction(NamedTuple):
    """What a run does, once it has begun.

    Attributes:
        env_steps_per_second: trained on, reset steps included.
        lag: mean policy lag, in updates, within which bounds.
        limit: what throughput is limited by: "workers", "learner", "cores", or "process" in mode sync.
        learner_busy: share of the time in which the learner works, 0 to 1.
        cores_busy: cores that are busy on average.
        collect: seconds for a rollout, in a worker.
        update: seconds for an update.
    """

    env_steps_per_second: float
    lag: Lag
    limit: str
    learner_busy: float
    cores_busy: float
    collect: float
    update: float


def collect_seconds(parts: Parts, setup: Setup) -> float:
    """Return the seconds for a rollout: c = T·(env + forward + writing)(B) + rollout(B)."""
    envs = setup.envs_per_worker
    return setup.n_steps * (parts.env(envs) + parts.forward(envs) + parts.writing(envs)) + parts.rollout(envs)


def update_seconds(parts: Parts, setup: Setup) -> float:
    """Return the seconds for an update on N env steps, without what it takes to receive its rollouts."""
    return parts.update(setup.steps) * (1 + parts.pass_share * (setup.passes - parts.passes))


def async_period(collect: float, update: float, setup: Setup) -> float:
    """Return the seconds between two updates where the cores are no limit.

    While an update is made, its R rollouts hold their slots, so that at most W·S − R others are collected, and no more
    than W·u/c; the rest follows after it: P = u + max(0, R − min(W·S − R, W·u/c))·c/W. With W ≥ R this is
    max(R·c/W, u).
    """
    workers, rollouts = setup.workers, setup.rollouts_per_update
    meanwhile = min(workers * setup.slots - rollouts, workers * update / collect)
    return update + max(0.0, rollouts - meanwhile) * collect / workers


def async_lag(collect: float, update: float, period: float, setup: Setup) -> Lag:
    """Return the mean policy lag of mode async.

    Where workers limit, a worker's next rollout begins as its last one is handed over, W rollouts before its own turn:
    W/R updates. To these comes the update at hand, for those of a batch's first R − 1 rollouts that begin before it is
    published, W·u/c at most. Workers who hand over together all begin with the version before the W/R updates that
    follow, so that their next rollouts are W/R to 2·W/R − 1 updates old. Where the learner limits, all slots are full,
    W·S rollouts less the R that are trained on lie before a rollout: (W·S − R)/R, and it is never more.
    """
    workers, rollouts = setup.workers, setup.rollouts_per_update
    full = (workers * setup.slots - rollouts) / rollouts
    if update >= period:
        return Lag(full, full)
    early = min(rollouts - 1, math.floor(update * workers / collect))
    burst = max(0.0, workers / rollouts - 1) / 2
    return Lag(min(full, (workers + early) / rollouts), min(full, workers / rollouts + burst))


def predict(parts: Parts, setup: Setup) -> Prediction:
    """Predict throughput and lag; how busy the cores are, and how much slower they are then, is a fixed point."""
    busy_cores = 1.0
    result = _predict(parts, setup, 1.0)
    for _ in range(ROUNDS):
        busy_cores = (busy_cores + min(result.cores_busy, setup.cores)) / 2
        result = _predict(parts, setup, _slowdown(parts, setup, busy_cores))
    return result


def _slowdown(parts: Parts, setup: Setup, busy: float) -> float:
    """Return the factor on all times: 1 with one core busy, `parts.slowdown` with all, straight between."""
    if setup.cores == 1:
        return 1.0
    return 1 + (parts.slowdown - 1) * min(1.0, max(0.0, busy - 1) / (setup.cores - 1))


def _predict(parts: Parts, setup: Setup, slowdown: float) -> Prediction:
    rollouts, workers = setup.rollouts_per_update, setup.workers
    core_share = parts.cores(setup.envs_per_worker)
    alone = collect_seconds(parts, setup)
    collect = alone * (1 + (slowdown - 1) * min(1.0, core_share))  # to wait takes as long on busy cores
    update = update_seconds(parts, setup) * slowdown
    if setup.mode == "async":
        collect += parts.send * slowdown
        update += rollouts * parts.receive(workers) * slowdown
    core_seconds = rollouts * collect * core_share + update  # for an update, all processes together
    if setup.mode == "sync":
        period, limit, learner_seconds = rollouts * collect + update, "process", update
        lag = Lag(0.0, 0.0)
    elif setup.mode == "hogwild":
        own = rollouts * collect + update  # of each worker
        period, limit, learner_seconds = own / workers, "workers", update
        lag = Lag(*2 * [(workers - 1) * ((rollouts + 1) / 2 * collect + update) / own])
    else:
        period = async_period(collect, update, setup)
        limit, learner_seconds = ("learner" if update >= period else "workers"), update
        lag = async_lag(collect, update, period, setup)
    if setup.mode != "sync" and core_seconds / setup.cores > period:
        period, limit = core_seconds / setup.cores, "cores"
    return Prediction(
        setup.steps / period, lag, limit, learner_seconds / period, core_seconds / period, collect, update
    )


def workers_until_full(parts: Parts, setup: Setup) -> int:
    """Return N* = ⌈R·c/u⌉: from so many workers on the learner of mode async is the limit, with cores enough."""
    roomy = replace(setup, mode="async", cores=10**6)
    found, most = 1, 1
    while predict(parts, replace(roomy, workers=most)).limit != "learner" and most < 10**5:
        found, most = most, 2 * most
    while found < most:
        middle = (found + most) // 2
        if predict(parts, replace(roomy, workers=middle)).limit == "learner":
            most = middle
        else:
            found = middle + 1
    return found


def recommend(parts: Parts, setup: Setup, most_workers: int = 256) -> tuple[Setup, Prediction]:
    """Return the workers for these cores, with updates of as many columns as before.

    Of those within a twentieth of the fastest it is the one with the least lag, then with the fewest workers.

    Args:
        parts: as measured.
        setup: B·R is kept.
        most_workers: to think of.
    """
    columns = setup.envs_per_worker * setup.rollouts_per_update
    candidates: list[tuple[Setup, Prediction]] = []
    for rollouts in (number for number in range(1, columns + 1) if columns % number == 0):
        for workers in sorted({*range(1, min(setup.cores, most_workers) + 1), rollouts}):
            if workers <= most_workers:
                sizes = replace(
                    setup,
                    mode="async",
                    workers=workers,
                    envs_per_worker=columns // rollouts,
                    rollouts_per_update=rollouts,
                )
                candidates.append((sizes, predict(parts, sizes)))
    fastest = max(prediction.env_steps_per_second for _, prediction in candidates)
    good = [each for each in candidates if each[1].env_steps_per_second >= 0.95 * fastest]
    return min(good, key=lambda each: (round(each[1].lag.spread, 1), each[0].workers))


def efficiency(rates: Sequence[float], workers: Sequence[int]) -> list[float]:
    """Return each rate as a share of linear scaling from the first one."""
    return [rate / (rates[0] / workers[0] * number) for rate, number in zip(rates, workers, strict=True)]
