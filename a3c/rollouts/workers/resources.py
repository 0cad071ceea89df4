"""What a run will take of the machine, against what the machine has, before anything is started."""

from __future__ import annotations

import logging
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
LEARNERS_HERE = "LOCAL_WORLD_SIZE"  # environment variable, as torchrun has it: of one run, on this machine
WORKER_BYTES = 100 * 2**20  # proportional set size of a worker, as scripts/benchmark.py --parts memory measures it
# In the learner, for each worker: its pipe, its sentinel, the end of the pipe by which it notices our death,
# its slots, a pipe for what it says when it hangs, and a handle on its process.
WORKER_DESCRIPTORS = 6
OTHER_DESCRIPTORS = 32  # loggers and checkpoints, and what is only open while a worker starts
SERVER_DESCRIPTORS = 16  # in the fork server, beside one for each worker


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        shared_memory: bytes that are free where shared memory lies.
        memory: bytes that can be taken without swapping.
        open_descriptors: file descriptors that are in use.
        descriptors: how many it may have in use.
        most_descriptors: how many it may allow itself.
    """

    shared_memory: int
    memory: int
    open_descriptors: int
    descriptors: int
    most_descriptors: int

    @classmethod
    def here(cls) -> Limits:
        """Ask the system; what it does not say is unlimited."""
        soft, hard = (
            sys.maxsize if limit == resource.RLIM_INFINITY else limit
            for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
        )
        here = learners_here()
        return cls(free_shared_memory() // here, available_memory() // here, _open_descriptors(), soft, hard)


@dataclass(frozen=True)
class Demand:
    """What a run will take, in bytes where nothing else is said.

    Attributes:
        workers: processes; 0 if there are none.
        envs_per_worker: environments of each.
        rollouts_per_update: rollouts of so many columns that an update is made of.
        slot_steps: length of a rollout in shared memory, in steps.
        steps: length of the longest one elsewhere.
        inject_lag: updates for which batches are held back.
        mode: of the run.
        slots: rollouts in shared memory.
        learned: weights and, where workers learn, the optimizers' statistics, in shared memory.
        rollouts: rollouts elsewhere.
        delayed: batches that are held back.
    """

    workers: int
    envs_per_worker: int
    rollouts_per_update: int
    slot_steps: int
    steps: int
    inject_lag: int
    mode: str
    slots: int
    learned: int
    rollouts: int
    delayed: int

    @property
    def columns(self) -> str:
        """Name the larger factor of the columns of an update, and its value."""
        if self.rollouts_per_update > self.envs_per_worker:
            return f"rollouts_per_update: got {self.rollouts_per_update}"
        return f"envs_per_worker: got {self.envs_per_worker}"

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory."""
        return self.slots + self.learned

    @property
    def memory(self) -> int:
        """Bytes of memory, those of shared memory included."""
        return self.shared_memory + self.rollouts + self.delayed + self.workers * WORKER_BYTES


def check(demand: Demand, limits: Limits | None = None) -> None:
    """Refuse a run that the machine cannot hold; raise the limit of file descriptors if that is enough.

    Args:
        demand: what the run will take.
        limits: what it may take; this process's own by default.

    Raises:
        ValueError: the argument to blame, what was given, what is needed and what there is.
    """
    limits = limits or Limits.here()
    _check_shared_memory(demand, limits.shared_memory)
    _check_memory(demand, limits.memory)
    if demand.workers:
        _check_descriptors(demand.workers, limits)


def _check_shared_memory(demand: Demand, free: int) -> None:
    if demand.shared_memory <= free:
        return
    if demand.learned > demand.slots:
        field = f"mode: got {demand.mode}, whose weights and optimizer statistics take"
        allowed = "must be a smaller network, or another mode"
    elif demand.workers > 1 and demand.slots // demand.workers + demand.learned <= free:
        field, allowed = f"workers: got {demand.workers}, whose rollouts take", "must be fewer"
    else:
        field = f"{demand.columns}, whose rollouts of {demand.slot_steps} steps take"
        allowed = "must be fewer, or shorter ones"
    raise ValueError(
        f"{field} {demand.shared_memory:,} bytes of shared memory, and {free:,} are free in {SHARED_MEMORY}; {allowed}"
    )


def _check_memory(demand: Demand, available: int) -> None:
    if demand.memory <= available:
        return
    parts = {
        f"workers: got {demand.workers}": demand.workers * WORKER_BYTES,
        f"{demand.columns}, in rollouts of {demand.steps} steps": demand.slots + demand.rollouts,
        f"inject_lag: got {demand.inject_lag}": demand.delayed,
    }
    field = max(parts, key=lambda name: parts[name])
    raise ValueError(
        f"{field}, which takes {parts[field]:,} of {demand.memory:,} bytes of memory in all, "
        f"and {available:,} are available; must be fewer"
    )


def _check_descriptors(workers: int, limits: Limits) -> None:
    needed = limits.open_descriptors + OTHER_DESCRIPTORS + workers * WORKER_DESCRIPTORS
    if needed <= limits.descriptors:
        return
    # The fork server may run already, and then keeps the limit that it began with.
    server_has_enough = workers + SERVER_DESCRIPTORS <= limits.descriptors
    allowed = limits.most_descriptors if server_has_enough else limits.descriptors
    if needed > allowed:
        raise ValueError(
            f"workers: got {workers}, which take {needed:,} file descriptors, and {allowed:,} are allowed "
            "(ulimit -n); must be fewer"
        )
    _raise_descriptors(allowed)
    log.warning(
        "raised the limit of open files from %d to %d: %d workers take %d", limits.descriptors, allowed, workers, needed
    )


def _raise_descriptors(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def learners_here() -> int:
    """Return how many learners of the run share this machine."""
    number = os.environ.get(LEARNERS_HERE, "1")
    return max(1, int(number)) if number.isdecimal() else 1


def available_cores() -> int:
    """Return how many cores this process may use; several learners of a run share them."""
    return max(1, len(os.sched_getaffinity(0)) // learners_here())


def free_shared_memory() -> int:
    """Return the bytes that are free where shared memory lies."""
    if not SHARED_MEMORY.is_dir():
        return sys.maxsize
    status = os.statvfs(SHARED_MEMORY)
    return status.f_bavail * status.f_frsize


def available_memory() -> int:
    """Return the bytes that can be taken without swapping."""
    for line in (
        Path("/proc/meminfo").read_text(encoding="utf-8").splitlines() if Path("/proc/meminfo").exists() else ()
    ):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


def _open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
