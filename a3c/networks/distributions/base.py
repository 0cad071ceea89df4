"""What every kind of action offers: to networks, to acting, to the losses and to pictures of a policy.

A collector samples every step of every environment, and a ``torch.distributions`` object a step
costs more than a small network. So noise is drawn for a whole fragment at once, a sample is a cheap
function of parameters and noise, and log-probabilities are taken once a fragment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import torch
from torch import Tensor

from a3c.envs.layouts import Layout


class Distribution(ABC):
    """Actions that are drawn according to what an actor says of each observation."""

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Return actions drawn by means of the family's `noise`, as a batch holds them, [..., *action_shape]."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Return the most probable actions, [..., *action_shape]."""

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log π(a), [...], of actions as a batch holds them, [..., *action_shape]."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the entropy in nats, [...]."""

    @abstractmethod
    def kl(self, other: Any) -> Tensor:
        """Return KL(self‖other) in nats, [...], to another distribution of the same family."""


class ActionFamily(ABC):
    """The distributions over the actions of one space, of which a network says the parameters.

    Write another kind: a subclass in a file of its own with its `Distribution`, and its entry in `FAMILIES`.
    A new kind of space has its layout in `a3c.envs.layouts.ACTIONS` as well.

    Args:
        space: one that the layout supports.
        squash: bring continuous actions within their bounds by tanh; False clips them.

    Attributes:
        layout: how its actions lie in memory, which also says of which spaces they are.
        squashes: whether it is the kind for continuous actions that are squashed; None if it is for both.
        parameter_count: number P of parameters of an action.
        free: places among them of those that need not depend on the observation, such as standard deviations.
        mask_size: numbers of a mask, which say of each choice whether it is allowed; None of actions
            that cannot be forbidden.
    """

    layout: ClassVar[type[Layout]]
    squashes: ClassVar[bool | None] = None
    parameter_count: int
    free: Sequence[int] = ()
    mask_size: int | None = None

    def __init__(self, space: gymnasium.Space[Any], squash: bool = False) -> None:
        self.space = space

    @abstractmethod
    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw what `sample` needs for actions of a shape [...]; its first axes are that shape's."""

    @abstractmethod
    def __call__(self, parameters: Tensor, mask: Tensor | None = None) -> Distribution:
        """Return the distribution that parameters stand for.

        Args:
            parameters: the actor's output, [..., P].
            mask: True where a choice is allowed, [..., mask_size]; None allows all.
        """

    def for_env(self, actions: Any) -> Any:
        """Return what the environments' `step` takes for actions as a batch holds them, [B, *action_shape].

        Of an array; and of a tensor, by torch's operations, where an exported policy shall have it.
        """
        return actions
