"""Several learners of one run: torch.distributed's group of processes, started and left as Lightning does it.

Each learner has a Trainer, a copy of the network and a source of rollouts of its own. What they make together, a
gradient, counts, the end of the run, they agree on where the update is made (`a3c.peers`); to everything else in a
Trainer, its callbacks and loggers a learner is alone. So none of these can make one learner wait for another.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from a3c.peers.agreement import LearnerLostError
from a3c.rollouts.workers.server_lifetime import signal_at_end_of

FIRST_LEARNER = "A3C_LEARNER_BESIDE"  # environment variable: process id of the learner that has started this one
LOOK_SECONDS = 0.05
END_SECONDS = 20.0  # in which a learner comes to its end by itself, once the first one has
KILL_SECONDS = 5.0
EXPLAIN_SECONDS = 3.0  # in which a process whose connection is gone has ended


def end_with_first_learner() -> None:
    """Have a learner that another one has started end in order when that one is gone. Idempotent."""
    first = os.environ.pop(FIRST_LEARNER, None)
    if first is not None:
        LearnerLauncher.is_started_by_first = True
        signal_at_end_of(int(first), signal.SIGTERM)


def is_started_by_slurm() -> bool:
    """Return whether srun has started this process as one of several."""
    if dist.is_torchelastic_launched():
        return False
    return "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"


class Learners(DDPStrategy):
    """The strategy of a Trainer that is one of several learners, one process each.

    Args:
        timeout: after which a learner that does not answer is given up.
        kwargs: see `DDPStrategy`.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=30), **kwargs: Any) -> None:
        super().__init__(timeout=timeout, **kwargs)

    def _configure_launcher(self) -> None:
        end_with_first_learner()
        assert self.cluster_environment is not None, "Lightning has chosen one"
        self._launcher = LearnerLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        reset_seed()
        self.set_world_ranks()
        environment, wait = self.cluster_environment, self._timeout or timedelta(minutes=30)
        assert environment is not None, "Lightning has chosen one"
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        # Numbers are agreed on on the CPU, gradients where they are.
        backend = "cpu:gloo,cuda:nccl" if self.root_device.type == "cuda" else self._get_process_group_backend()
        store = self._meet(environment, wait)
        where: dict[str, Any] = {} if store is None else {"store": store}
        dist.init_process_group(backend, rank=self.global_rank, world_size=self.world_size, timeout=wait, **where)

    def _meet(self, environment: ClusterEnvironment, wait: timedelta) -> TCPStore | None:
        """Return where the learners that the first one has started find each other; None if it has started none.

        Raises:
            LearnerLostError: one has ended before it came here.
        """
        launcher = self._launcher
        assert isinstance(launcher, LearnerLauncher), "as configured"
        is_first = bool(launcher.procs)
        if not (is_first or launcher.is_started_by_first):
            return None
        store = TCPStore(environment.main_address, environment.main_port, None, is_first, wait, wait_for_workers=False)
        if is_first:
            launcher.wait_for_all(lambda number: store.check([_ready(number)]))
        else:
            store.set(_ready(self.local_rank), "")
        return store

    def setup(self, trainer: Trainer) -> None:
        # It asks the first learner at each batch whether it got SIGTERM; here learners agree on all signals.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """Leave the module as it is: gradients are joined by `a3c.peers`, with what else all must know then."""

    def teardown(self) -> None:
        super().teardown()
        if dist.is_initialized():
            dist.destroy_process_group()

    # What Lightning and its callbacks would make learners agree on, each at a moment of its own.

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for nobody."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Return the object as it is."""
        return obj

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Return the tensor as it is."""
        return tensor

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Return the tensor as one of one learner."""
        return tensor.unsqueeze(0)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Return the decision as it is."""
        return bool(decision)


class LearnerLauncher(_SubprocessScriptLauncher):
    """Starts the other learners of this machine, unless torchrun or SLURM has.

    Lightning's own kills all processes when one of them ends, so that none could save a checkpoint.

    Attributes:
        is_started_by_first: whether this process is one of those others.
        has_begun: whether it has had its fit.
    """

    is_started_by_first: ClassVar[bool] = False
    has_begun: ClassVar[bool] = False

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if LearnerLauncher.has_begun:
            raise RuntimeError("several learners make one fit in a process: begin a second one in a new process")
        if not self.cluster_environment.creates_processes_externally:
            os.environ[FIRST_LEARNER] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[FIRST_LEARNER]
        LearnerLauncher.has_begun = True
        return function(*args, **kwargs)

    def wait_for_all(self, is_there: Callable[[int], bool]) -> None:
        """Wait until all learners that were started say that they are there.

        Raises:
            LearnerLostError: one has ended before.
        """
        while not all(is_there(number) for number in range(1, len(self.procs) + 1)):
            if any(process.poll() is not None for process in self.procs):
                raise LearnerLostError(self.explain())
            time.sleep(LOOK_SECONDS)

    def explain(self, seconds: float = EXPLAIN_SECONDS) -> str:
        """Say which of the learners that were started have ended, and how.

        Args:
            seconds: for which an end is waited for.
        """
        deadline = time.monotonic() + seconds
        while self.procs and all(process.poll() is None for process in self.procs) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        ends = {number: process.returncode for number, process in enumerate(self.procs, 1)}
        return ", ".join(f"learner {number} {_how(status)}" for number, status in ends.items() if status is not None)

    def end(self) -> None:
        """See the learners that were started end; those that do not are told to, and then killed. Idempotent."""
        for number, seconds in ((None, END_SECONDS), (signal.SIGTERM, KILL_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            running = [process for process in self.procs if process.poll() is None]
            if number is not None:
                for process in running:
                    process.send_signal(number)
            deadline = time.monotonic() + seconds
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))


def _ready(number: int) -> str:
    return f"learner {number} is ready"


def _how(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
