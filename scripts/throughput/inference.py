"""Where actions are chosen, on paper: in each worker, or batched across all of them in one process."""

from __future__ import annotations

import math
from typing import NamedTuple

from throughput.model import Parts, Setup


class Inference(NamedTuple):
    """Where actions are chosen, compared: env steps/s of all workers, the learner left out.

    Attributes:
        local: each of W + 1 workers has a copy of the policy.
        central: one process chooses for W workers.
        most: the same, were its forward to take no time.
        speed_needed: how many times as fast as a core here the central forward must be, to be as fast as `local`;
            infinite where messages and environments alone take longer.
    """

    local: float
    central: float
    most: float
    speed_needed: float


def compare_inference(parts: Parts, setup: Setup, speed: float = 1.0) -> Inference:
    """Compare inference in the workers with inference batched across them, on as many cores.

    A worker's time step with its own policy: env(B) + forward(B) + writing(B). Batched, with two halves of the
    environments in turn, so that a worker steps the one while the other half waits for its actions: the worker needs
    env(B) + writing(B) + 2 messages, the central process forward(W·B/2)/speed twice plus two messages for each worker.
    Its core could be one more worker's. The slower of the two sides limits.

    Args:
        parts: as measured.
        setup: W, B and cores, the central process's included.
        speed: of the central forward, in multiples of one core here.
    """
    workers, envs = setup.workers, setup.envs_per_worker
    every_env = workers * envs
    message = parts.round_trip / 2
    core_share = min(1.0, parts.cores(envs))

    def together(seconds: float, workers: int, cores: int) -> float:
        return workers * envs / (seconds * max(1.0, workers * core_share / max(1, cores)))

    local = together(parts.env(envs) + parts.forward(envs) + parts.writing(envs), workers + 1, setup.cores)
    stepping = together(parts.env(envs) + parts.writing(envs) + 2 * message, workers, setup.cores - 1)
    messages = 2 * workers * message
    forwards = 2 * parts.forward(every_env / 2)
    most = min(stepping, every_env / messages if messages else math.inf)
    left = every_env / local - messages  # for the forwards, per step of all environments
    needed = forwards / left if left > 0 and stepping >= local else math.inf
    return Inference(local, min(stepping, every_env / (messages + forwards / speed)), most, needed)
