"""What every action distribution offers: to acting, to the losses and to pictures of a policy.

A collector samples every step of every environment, and a ``torch.distributions`` object a step
costs more than a small network. So noise is drawn for a whole fragment at once, a sample is a cheap
function of parameters and noise, and log-probabilities are taken once a fragment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium
import torch
from numpy.typing import NDArray
from torch import Tensor

from a3c.envs.spaces import Layout


class Distribution(ABC):
    """Actions of one kind of action space, drawn according to what an actor says.

    Write another kind: a subclass in a file of its own, its entry in `DISTRIBUTIONS`, and its
    layout's in `a3c.envs.spaces.ACTIONS`.

    Args:
        parameters: the actor's output, [..., P].
        action_space: for kinds of which the parameters alone do not say enough, such as bounds.

    Attributes:
        layout: how its actions lie in memory, which also says of which spaces they are.
    """

    layout: ClassVar[type[Layout]]

    def __init__(self, parameters: Tensor, action_space: gymnasium.Space[Any] | None = None) -> None:
        self.parameters = parameters
        self.action_space = action_space

    @staticmethod
    @abstractmethod
    def parameter_count(action_space: gymnasium.Space[Any]) -> int:
        """Return the number P of parameters that an action of this space needs."""

    @staticmethod
    @abstractmethod
    def noise(action_space: gymnasium.Space[Any], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw what `sample` needs for actions of a shape [...]; its first axes are that shape's."""

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Return actions drawn by means of `noise`, as a batch holds them, [..., *action_shape]."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Return the most probable actions, [..., *action_shape]."""

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """Return log π(a), [...], of actions as a batch holds them, [..., *action_shape]."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the entropy in nats, [...]."""

    @staticmethod
    def for_env(actions: NDArray[Any]) -> Any:
        """Return what the environments' `step` takes for actions as a batch holds them."""
        return actions
