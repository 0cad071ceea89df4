"""Actor-critic of fully connected layers, for vector observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import torch
from torch import Tensor, nn

from a3c.envs.spaces import observation_layout
from a3c.networks.actor_critic import ActorCritic

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "elu": nn.ELU}


class MLPActorCritic(ActorCritic):
    """Fully connected actor and critic, each with a trunk of its own or on a shared one.

    Weights start orthogonal, biases at 0: gain √2 in the trunks, 0.01 before the logits (a first
    policy close to uniform), 1 before the value. Observations of more than one axis are flattened.

    Args:
        observation_space: of which each value is one array of numbers.
        action_space: any that has a distribution.
        hidden_sizes: width of each hidden layer, at least one.
        activation: what follows each hidden layer.
        shared_trunk: actor and critic share the hidden layers.
        orthogonal_init: False leaves torch's own initialisation.

    Raises:
        ValueError: no hidden layer, a width below 1, or an unknown activation.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "silu", "elu"] = "relu",
        shared_trunk: bool = False,
        orthogonal_init: bool = True,
    ) -> None:
        super().__init__(observation_space, action_space)
        if not hidden_sizes or min(hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes: got {list(hidden_sizes)}, must be one width or more, each at least 1")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: got {activation!r}, must be one of {', '.join(ACTIVATIONS)}")
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation
        self.shared_trunk = shared_trunk
        self.orthogonal_init = orthogonal_init

        shape = observation_layout(observation_space).shape
        self._observation_axes = len(shape)
        self.actor_trunk = self._trunk(math.prod(shape))
        self.critic_trunk = self.actor_trunk if shared_trunk else self._trunk(math.prod(shape))
        self.actor_head = nn.Linear(hidden_sizes[-1], self.parameter_count)
        self.critic_head = nn.Linear(hidden_sizes[-1], 1)
        if orthogonal_init:
            self._initialise()

    def _trunk(self, inputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in self.hidden_sizes:
            layers += [nn.Linear(inputs, width), ACTIVATIONS[self.activation]()]
            inputs = width
        return nn.Sequential(*layers)

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                gain = {self.actor_head: 0.01, self.critic_head: 1.0}.get(layer, math.sqrt(2))
                nn.init.orthogonal_(layer.weight, gain)
                nn.init.zeros_(layer.bias)

    def _flat(self, observations: Tensor) -> Tensor:
        if self._observation_axes != 1:
            axes = observations.dim() - self._observation_axes
            observations = observations.reshape(*observations.shape[:axes], -1)
        return observations.to(torch.float32)

    def actor(self, observations: Tensor) -> Tensor:
        logits: Tensor = self.actor_head(self.actor_trunk(self._flat(observations)))
        return logits

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self._flat(observations)
        features = self.actor_trunk(inputs)
        critic_features = features if self.shared_trunk else self.critic_trunk(inputs)
        return self.actor_head(features), self.critic_head(critic_features).squeeze(-1)
