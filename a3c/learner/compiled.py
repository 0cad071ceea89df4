"""The objective by torch.compile: fewer and larger kernels, which a GPU wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.learner.measures import Trace
from a3c.learner.objective import Estimation, Objective
from a3c.learner.steps import Judged, Steps
from a3c.networks.actor_critic import ActorCritic


class CompilationError(RuntimeError):
    """torch.compile cannot do with a network, an estimator or this machine's compiler."""


@dataclass(frozen=True)
class CompiledObjective(Objective):
    """An objective whose estimates and losses are compiled when they are first asked for, and for each new shape.

    Attributes:
        backend: of torch.compile.

    Raises:
        ValueError: torch knows no such backend.
    """

    backend: str = "inductor"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = torch.compiler.list_backends(exclude_tags=())
        if self.backend not in known:
            raise ValueError(f"compile_objective: got {self.backend!r}, must be one of {', '.join(known)}, or null")

    def estimate(self, network: ActorCritic, batch: RolloutBatch) -> tuple[Judged, Estimation]:
        found: tuple[Judged, Estimation] = _run(_compiled(Objective.estimate, self.backend), self, network, batch)
        return found

    def loss(
        self, network: ActorCritic, judged: Judged, steps: Steps, entropy_coefficient: float | None = None
    ) -> tuple[Tensor, Trace]:
        compiled = _compiled(Objective.loss, self.backend)
        found: tuple[Tensor, Trace] = _run(compiled, self, network, judged, steps, entropy_coefficient)
        return found


@cache
def _compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    return torch.compile(function, backend=backend)


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    from torch._dynamo.exc import TorchDynamoException

    try:
        return function(*arguments)
    except TorchDynamoException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise CompilationError(f"compile_objective: torch.compile failed: {' '.join(lines[:2])}") from error
