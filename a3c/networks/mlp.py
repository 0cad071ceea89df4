"""Actor-critic of fully connected layers, for observations of any kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
from torch import Tensor, nn

from a3c.networks.actor_critic import Inputs
from a3c.networks.flat import Flat
from a3c.networks.trunk import TrunkActorCritic

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "elu": nn.ELU}


class MLPActorCritic(TrunkActorCritic):
    """Fully connected actor and critic, each with a trunk of its own or on a shared one.

    Weights start orthogonal, biases at 0: gain √2 in the trunks, 0.01 before the actions (a first
    policy close to uniform), 1 before the value. Observations become vectors first (`Flat`).

    Args:
        observation_space: any that is supported.
        action_space: any that is supported.
        hidden_sizes: width of each hidden layer, at least one.
        activation: what follows each hidden layer.
        shared_trunk: actor and critic share the hidden layers, as they do in any case where there is a memory.
        orthogonal_init: False leaves torch's own initialisation.
        memory: "lstm" or "gru" above the hidden layers; None for none.
        memory_size: width of the memory, ≥ 1.
        squash: bring continuous actions within their bounds by tanh; False clips them.
        free_std: the standard deviations of continuous actions are parameters of the network; False has
            them depend on the observation.
        initial_std: with which they begin, in half the width of the actions' bounds, > 0.

    Raises:
        ValueError: no hidden layer, a width below 1, or an unknown activation or memory.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "silu", "elu"] = "relu",
        shared_trunk: bool = False,
        orthogonal_init: bool = True,
        memory: str | None = None,
        memory_size: int = 128,
        squash: bool = False,
        free_std: bool = True,
        initial_std: float = 1.0,
    ) -> None:
        super().__init__(observation_space, action_space, memory, memory_size, squash, free_std, initial_std)
        if not hidden_sizes or min(hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes: got {list(hidden_sizes)}, must be one width or more, each at least 1")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: got {activation!r}, must be one of {', '.join(ACTIVATIONS)}")
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation
        self.shared_trunk = shared_trunk
        self.orthogonal_init = orthogonal_init

        self._flat = Flat(self.input_space)
        self.actor_trunk = self._trunk(self._flat.width)
        shares = shared_trunk or self.make_memory(1) is not None
        self.critic_trunk = self.actor_trunk if shares else self._trunk(self._flat.width)
        self.make_heads(hidden_sizes[-1], orthogonal_init)
        self._shares = shares

    def _trunk(self, inputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in self.hidden_sizes:
            layers += [nn.Linear(inputs, width), ACTIVATIONS[self.activation]()]
            inputs = width
        trunk = nn.Sequential(*layers)
        if self.orthogonal_init:
            for layer in layers:
                if isinstance(layer, nn.Linear):
                    nn.init.orthogonal_(layer.weight, math.sqrt(2))
                    nn.init.zeros_(layer.bias)
        return trunk

    def encode(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.actor_trunk(self._flat(inputs))
        return features

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        if self._shares:
            return super().forward(inputs)
        vectors = self._flat(inputs)
        values: Tensor = self.critic_head(self.critic_trunk(vectors))
        return self.actor_head(self.actor_trunk(vectors)), values.squeeze(-1)
