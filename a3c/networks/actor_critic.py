"""What every actor-critic network offers to the collector and to the objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
from torch import Tensor, nn

from a3c.networks.distributions import Categorical


class ActorCritic(nn.Module, ABC):
    """A policy and a value function over one observation space.

    A subclass takes `observation_space` and `action_space` and keeps every constructor argument
    as an attribute of the same name, so that a checkpoint can say how to rebuild it.

    Args:
        observation_space: the environment's, of one environment.
        action_space: the environment's, of one environment.

    Attributes:
        distribution: class of the action distribution over the actor's output.
    """

    distribution: type[Categorical] = Categorical

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        super().__init__()
        self.observation_space = observation_space
        self.action_space = action_space

    @abstractmethod
    def actor(self, observations: Tensor) -> Tensor:
        """Return the action distribution's parameters alone: all that acting needs.

        Args:
            observations: [..., *observation_shape], in the environment's dtype.

        Returns:
            Parameters of `distribution`, [..., P].
        """

    @abstractmethod
    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return distribution parameters [..., P] and values [...] of observations [..., *shape]."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its modules back into its own: some may be frozen."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
