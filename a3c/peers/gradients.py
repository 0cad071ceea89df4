"""One gradient of the minibatches of all learners."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from a3c.peers.agreement import add_up, size


class Share(NamedTuple):
    """What goes with a learner's gradient, or with that of all.

    Attributes:
        loss: that the gradient is of; the sum of all learners' is finite where each is.
        steps: real ones that it was made from.
        is_last: no other gradient is to follow in this update.
    """

    loss: Tensor
    steps: int
    is_last: bool

    @property
    def is_empty(self) -> bool:
        """Whether several learners together had no real step."""
        return size() > 1 and self.steps == 0


@torch.no_grad()
def join_gradients(parameters: Iterable[nn.Parameter], mine: Share, is_mean: bool) -> Share:
    """Make of each learner's own gradient that of all their minibatches together.

    A parameter that no learner has a gradient of keeps none.

    Args:
        parameters: in the same order with every learner.
        mine: what goes with this learner's gradient.
        is_mean: its loss is a mean over its real steps, else their sum.

    Raises:
        LearnerLostError: one is gone.
    """
    if size() == 1:
        return mine
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    has_gradient = [parameter.grad is not None for parameter in trained]
    weight = float(mine.steps) if is_mean else 1.0
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad * weight for each in trained]
    notes = gradients[0].new_tensor([mine.loss.item(), mine.steps, mine.is_last, *has_gradient])
    add_up([*gradients, notes])
    loss, steps, is_last, *numbers = notes.tolist()
    for parameter, gradient, number in zip(trained, gradients, numbers, strict=True):
        parameter.grad = (gradient.div_(max(steps, 1.0)) if is_mean else gradient) if number else None
    return Share(mine.loss.new_tensor(loss), int(steps), is_last > 0)
