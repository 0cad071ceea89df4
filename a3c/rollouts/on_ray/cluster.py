"""The Ray that actors run on: one that is started for this run, or a cluster that is there."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import signal
import socket
import threading
from typing import Any, NamedTuple

from a3c.rollouts.workers.failures import WorkerError
from a3c.rollouts.workers.resources import available_cores

MISSING = "Ray is not installed: pip install 'a3c[ray]'"
REACH_SECONDS = 10.0
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def is_installed() -> bool:
    """Return whether Ray is there; it is not imported."""
    return importlib.util.find_spec("ray") is not None


class Cluster(NamedTuple):
    """Where actors run, and what each takes.

    Attributes:
        address: of a cluster ("auto", "HOST:6379"); None for one that is started on this machine
            and ends with the run.
        cores: of each worker, a fraction too, > 0.
    """

    address: str | None = None
    cores: float = 1.0

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: Ray is not installed, or a worker takes no cores.
        """
        if not is_installed():
            raise ValueError(f"pool: got ray, must be processes: {MISSING}")
        if not (self.cores > 0 and math.isfinite(self.cores)):
            raise ValueError(f"ray_cores: got {self.cores}, must be above 0 and finite")

    def connect(self, workers: int) -> bool:
        """Connect to the cluster, or start one with room for so many workers; return whether it is this run's own.

        Raises:
            WorkerError: there is no cluster at the address, or none can be started.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if ray.is_initialized():
            return False
        before = {number: signal.getsignal(number) for number in HANDLED}
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        where = f"got {self.address}, must be that of a cluster"
        if self.address is None:
            options |= {"num_cpus": max(available_cores(), math.ceil(workers * self.cores)), "include_dashboard": False}
            where = "got none, and Ray cannot be started here"
        try:
            self._reach()
            ray.init(address=self.address or "local", **options)
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            raise WorkerError(f"ray_address: {where}: {str(error).strip().partition(chr(10))[0]}") from error
        finally:
            if threading.current_thread() is threading.main_thread():  # Ray has put its own in their place
                for number, handler in before.items():
                    signal.signal(number, handler or signal.SIG_DFL)
        return True

    def _reach(self) -> None:
        """Knock at a cluster's door: Ray would do so for minutes.

        Raises:
            OSError: nobody answers.
        """
        host, _, port = (self.address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdecimal():
            socket.create_connection((host, int(port)), REACH_SECONDS).close()

    def room(self) -> int:
        """Return how many workers the nodes have cores for, each by itself; cores that are taken now count too."""
        import ray

        cores = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        return sum(int(number / self.cores) for number in cores)
