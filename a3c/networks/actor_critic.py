"""What every actor-critic network offers to the collector and to the objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from a3c.envs.spaces import Spaces
from a3c.networks.distributions import Distribution, distribution_for


class ActorCritic(nn.Module, ABC):
    """A policy and a value function over one observation space.

    A subclass takes `observation_space` and `action_space` and keeps every constructor argument
    as an attribute of the same name, so that a checkpoint can say how to rebuild it.

    Args:
        observation_space: the environment's, of one environment.
        action_space: the environment's, of one environment.

    Attributes:
        action_distribution: class of the distributions over the actions of its space.

    Raises:
        ValueError: no distribution is there for the action space.
    """

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        super().__init__()
        self.observation_space = observation_space
        self.action_space = action_space
        self.action_distribution = distribution_for(action_space)

    @property
    def spaces(self) -> Spaces:
        """The spaces that it was made for."""
        return Spaces(self.observation_space, self.action_space)

    @property
    def parameter_count(self) -> int:
        """Number P of parameters that the actor says for each action."""
        return self.action_distribution.parameter_count(self.action_space)

    def distribution(self, parameters: Tensor) -> Distribution:
        """Return the distribution of actions that parameters [..., P] stand for."""
        return self.action_distribution(parameters, self.action_space)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw what sampling of actions of a shape [...] needs."""
        return self.action_distribution.noise(self.action_space, shape, generator)

    @abstractmethod
    def actor(self, observations: Tensor) -> Tensor:
        """Return the action distribution's parameters alone: all that acting needs.

        Args:
            observations: [..., *observation_shape], in the environment's dtype.

        Returns:
            Parameters of `distribution`, [..., P].
        """

    def initial_state(self, columns: int) -> Tensor | None:
        """Return the state in which episodes begin, [B, ...]; None of a network without memory, as all are by default.

        A network with memory says it here, and goes on from one state to the next in `actor_step`.
        Evaluations, videos and `Agent` carry the state; rollouts carry none yet, so it cannot be trained.
        """
        return None

    def actor_step(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return `actor`'s parameters [B, P] for observations [B, *shape], and the state after them, [B, ...]."""
        raise NotImplementedError(f"{type(self).__name__} has an initial_state and no actor_step")

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
