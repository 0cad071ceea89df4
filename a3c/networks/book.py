"""The book's network for CartPole (program 5.4)."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from a3c.networks.actor_critic import ActorCritic


class BookActorCritic(ActorCritic):
    """Inputs of unit L2 norm, 25 and 50 hidden units, and a critic that does not train the trunk.

    The actor is 50-2 for CartPole. The critic is 50-25-1 behind a detach, and its tanh keeps
    values in (−1, 1), which is why the book normalises its returns.

    Args:
        observation_space: a Box of one axis.
        action_space: a Discrete.
        zero_biases: begin with biases of 0 instead of torch's random ones, which the book has.

    Raises:
        ValueError: the observations have more than one axis.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        zero_biases: bool = False,
    ) -> None:
        super().__init__(observation_space, action_space)
        shape = observation_space.shape
        if not isinstance(observation_space, spaces.Box) or shape is None or len(shape) != 1:
            raise ValueError(f"observation_space: got {observation_space}, BookActorCritic takes vectors only")
        self.l1 = nn.Linear(shape[0], 25)
        self.l2 = nn.Linear(25, 50)
        self.actor_lin1 = nn.Linear(50, self.parameter_count)
        self.l3 = nn.Linear(50, 25)
        self.critic_lin1 = nn.Linear(25, 1)
        self.zero_biases = zero_biases
        if zero_biases:
            for layer in (self.l1, self.l2, self.actor_lin1, self.l3, self.critic_lin1):
                nn.init.zeros_(layer.bias)

    def _features(self, observations: Tensor) -> Tensor:
        inputs = observations.to(torch.float32)
        norm = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
        inputs = inputs / norm.clamp_min(1e-12)  # F.normalize, in half its time
        return F.relu(self.l2(F.relu(self.l1(inputs))))

    def actor(self, observations: Tensor) -> Tensor:
        logits: Tensor = self.actor_lin1(self._features(observations))
        return logits

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        features = self._features(observations)
        critic = F.relu(self.l3(features.detach()))
        return self.actor_lin1(features), self.critic_lin1(critic).tanh().squeeze(-1)
