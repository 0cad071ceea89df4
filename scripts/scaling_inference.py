"""Where actions are chosen, on paper: in each worker, or batched across all of them in one process."""

from __future__ import annotations

import math
from typing import NamedTuple

from scaling_model import Parts, Setup


class Inference(NamedTuple):
    """Where actions are chosen, compared: env steps/s of all workers, the learner left out.

    Attributes:
        local: each worker has a copy of the policy.
        central: one process chooses for all workers, two halves of the environments in turn.
        speed_needed: how many times as fast as a core here the central forward must be, to be as fast as `local`;
            infinite where message and environment alone take longer.
    """

    local: float
    central: float
    speed_needed: float


def compare_inference(parts: Parts, setup: Setup, speed: float = 1.0) -> Inference:
    """Compare inference in the workers with inference batched across them.

    A worker's time step with its own policy: env(B) + forward(B) + writing(B). Batched, with two halves of the
    environments in turn, so that a worker steps the one while the other half waits for its actions: the worker needs
    env(B) + writing(B) + 2 messages, the central process forward(W·B/2)/speed twice plus a message for each worker and
    half. One core is the central process's; the slower of the two sides limits.

    Args:
        parts: as measured.
        setup: W, B and cores.
        speed: of the central forward, in multiples of one core here.
    """
    workers, envs = setup.workers, setup.envs_per_worker
    every_env = workers * envs
    message = parts.round_trip / 2
    core_share = parts.cores(envs)

    def of_workers(seconds: float, cores: int) -> float:
        return every_env / (seconds * max(1.0, workers * min(1.0, core_share) / max(1, cores)))

    local = of_workers(parts.env(envs) + parts.forward(envs) + parts.writing(envs), setup.cores)
    stepping = of_workers(parts.env(envs) + parts.writing(envs) + 2 * message, setup.cores - (speed == 1.0))
    messages = 2 * workers * message
    forwards = 2 * parts.forward(every_env / 2)
    central = min(stepping, every_env / (messages + forwards / speed))
    left = every_env / local - messages  # for the forwards, per step of all environments
    needed = forwards / left if left > 0 and stepping >= local else math.inf
    return Inference(local, central, needed)
