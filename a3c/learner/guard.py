"""Keeps updates whose loss or gradient is not finite away from the weights; workers import this too."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

log = logging.getLogger(__name__)


class TrainingDivergedError(RuntimeError):
    """More updates in a row than allowed had a loss or gradient that was not finite.

    Attributes:
        fatal: a worker that raises it is not replaced: the next one would begin with the same weights.
    """

    fatal = True


class UpdateGuard:
    """Clips an update's gradient, or finds that the update must be skipped.

    Args:
        max_grad_norm: gradients are scaled down to this L2 norm; None for no clipping.
        max_skipped: updates in a row that may be skipped, ≥ 0; one more raises.

    Attributes:
        skipped: updates skipped so far.
    """

    def __init__(self, max_grad_norm: float | None, max_skipped: int) -> None:
        self._max_grad_norm = max_grad_norm
        self._max_skipped = max_skipped
        self._in_a_row = 0
        self._culprit = ""
        self.skipped = 0

    def admit(self, network: nn.Module, losses: Sequence[Tensor]) -> Tensor | None:
        """Clip the gradient; where it or a loss is not finite, takes it away instead.

        An optimizer passes over parameters without a gradient: neither they nor their statistics
        change, the counts of steps included. A norm that overflows counts as not finite: squares
        of such a gradient would spoil an optimizer's statistics.

        Args:
            network: its parameters carry the gradient.
            losses: scalars that the gradient belongs to.

        Returns:
            The gradient's L2 norm before it is clipped; None if the update is to be skipped.
        """
        parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
        norm = self._norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if math.isfinite(norm) and all(map(math.isfinite, losses)):
            if self._max_grad_norm is not None:
                clip_grads_with_norm_(parameters, self._max_grad_norm, norm, foreach=True)
            return norm
        self._culprit = _culprit(network, losses)  # before clipping: with a norm of NaN it makes all gradients NaN
        network.zero_grad(set_to_none=True)
        return None

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        if self._max_grad_norm is not None or not gradients:
            return get_total_norm(gradients, foreach=True)
        # Only looked at, so it may not cost what torch's sorting by device and dtype does.
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return norm

    def skip(self, who: str = "") -> None:
        """Count a skipped update, and say what was not finite: of the 1st, 2nd, 4th, 8th … one.

        Args:
            who: begins the line of the log.

        Raises:
            TrainingDivergedError: it is one too many in a row.
        """
        self.skipped += 1
        self._in_a_row += 1
        if self.skipped & (self.skipped - 1) == 0:
            log.warning("%supdate skipped: %s is not finite (%d so far)", who, self._culprit, self.skipped)
        if self._in_a_row > self._max_skipped:
            raise TrainingDivergedError(
                f"{self._in_a_row} updates in a row were not finite, the last one in {self._culprit}; "
                f"max_skipped_updates allows {self._max_skipped}"
            )

    def begin(self) -> None:
        """Forget how many were skipped in a row: a fit begins, or an update has been made whole."""
        self._in_a_row = 0


OptimizerState = dict[Tensor, dict[str, Any]]


def state_of(optimizer: Optimizer) -> OptimizerState:
    """Return a copy of what an optimizer keeps of each parameter, to be put back."""
    return {
        parameter: {key: value.clone() if isinstance(value, Tensor) else value for key, value in kept.items()}
        for parameter, kept in optimizer.state.items()
    }


def put_back(optimizer: Optimizer, state: OptimizerState) -> None:
    """Have an optimizer keep again what `state_of` gave."""
    optimizer.state.clear()
    optimizer.state.update(state)


def _culprit(network: nn.Module, losses: Sequence[Tensor]) -> str:
    if not all(map(math.isfinite, losses)):
        return "the loss"
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name}"
    return "the norm of the gradient"
