"""Networks in which actor and critic share features, and a memory if they have one."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from a3c.networks.actor_critic import ActorCritic, Inputs
from a3c.networks.distributions import ActionFamily
from a3c.networks.memory import MEMORIES, Memory


class ActorHead(nn.Module):
    """Says the parameters of the actions' distribution; some of them may be free of the observation.

    Args:
        width: of the features.
        actions: of which it says the parameters.
        free_std: those that the family calls free are parameters of the network; False has them depend on
            the features as well.
        initial_std: standard deviation that continuous actions begin with, > 0.
    """

    def __init__(self, width: int, actions: ActionFamily, free_std: bool, initial_std: float) -> None:
        super().__init__()
        free = set(actions.free) if free_std else set()
        bound = [place for place in range(actions.parameter_count) if place not in free]
        self.linear = nn.Linear(width, len(bound))
        self.free = nn.Parameter(torch.full((len(free),), math.log(initial_std)))
        self._begin = [place for place, number in enumerate(bound) if number in actions.free], math.log(initial_std)
        order = [*bound, *sorted(free)]
        self._order = sorted(range(len(order)), key=order.__getitem__)

    def begin(self, gain: float) -> None:
        """Set weights orthogonal with a gain, and biases so that standard deviations begin as they should."""
        places, log_std = self._begin
        nn.init.orthogonal_(self.linear.weight, gain)
        nn.init.zeros_(self.linear.bias)
        with torch.no_grad():
            self.linear.bias[places] = log_std

    def forward(self, features: Tensor) -> Tensor:
        """Return parameters [..., P] of features [..., width]."""
        bound = self.linear(features)
        return torch.cat((bound, self.free.expand(*bound.shape[:-1], -1)), -1)[..., self._order]


def make_actor_head(width: int, actions: ActionFamily, free_std: bool, initial_std: float) -> nn.Linear | ActorHead:
    """Build what says the parameters of the actions' distribution.

    Args:
        width: see `ActorHead`.
        actions: see `ActorHead`.
        free_std: see `ActorHead`.
        initial_std: see `ActorHead`.

    Raises:
        ValueError: `initial_std` is not above 0 and finite.
    """
    if not (initial_std > 0 and math.isfinite(initial_std)):
        raise ValueError(f"initial_std: got {initial_std}, must be above 0 and finite")
    if not actions.free:
        return nn.Linear(width, actions.parameter_count)
    return ActorHead(width, actions, free_std, initial_std)


class TrunkActorCritic(ActorCritic):
    """Features of the observations, a memory over them if asked for, and two heads.

    A subclass has `encode`, and calls `make_heads` at the end of its constructor. A memory of your own:
    a subclass with `make_memory`.

    Args:
        observation_space: the environment's.
        action_space: the environment's.
        memory: "lstm", "gru", or None for none.
        memory_size: width of what the memory gives to the heads, ≥ 1.
        squash: bring continuous actions within their bounds by tanh; False clips them.
        free_std: the standard deviations of continuous actions are parameters of the network; False has them
            depend on the observation.
        initial_std: with which they begin, in half the width of the actions' bounds, > 0.

    Raises:
        ValueError: an unknown memory, or a size below 1.
    """

    actor_head: nn.Linear | ActorHead
    critic_head: nn.Linear

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        memory: str | None = None,
        memory_size: int = 128,
        squash: bool = False,
        free_std: bool = True,
        initial_std: float = 1.0,
    ) -> None:
        super().__init__(observation_space, action_space, squash)
        if memory is not None and memory not in MEMORIES:
            raise ValueError(f"memory: got {memory!r}, must be one of {', '.join(MEMORIES)}, or null")
        self.memory, self.memory_size = memory, memory_size
        self.free_std, self.initial_std = free_std, initial_std
        self.core: Memory | None = None

    def make_memory(self, features: int) -> Memory | None:
        """Build the memory over features of a width; None for none."""
        return MEMORIES[self.memory](features, self.memory_size) if self.memory is not None else None

    def make_heads(self, features: int, orthogonal_init: bool = True) -> None:
        """Build the memory over features of a width, and the heads over it.

        The heads' weights start orthogonal, with gain 0.01 before the actions (a first policy close to uniform) and 1
        before the value; `orthogonal_init` False leaves torch's own.
        """
        self.core = self.make_memory(features)
        if self.core is not None:
            features = self.core.size
        self.actor_head = make_actor_head(features, self.actions, self.free_std, self.initial_std)
        self.critic_head = nn.Linear(features, 1)
        if orthogonal_init:
            begin_heads(self.actor_head, self.critic_head)

    @abstractmethod
    def encode(self, inputs: Inputs) -> Tensor:
        """Return features [..., F] of inputs [..., *shape]."""

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return self._heads(self.encode(inputs))

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor_head(features), self.critic_head(features).squeeze(-1)

    def actor(self, inputs: Inputs) -> Tensor:
        parameters: Tensor = self.actor_head(self.encode(inputs))
        return parameters

    def initial_state(self, columns: int) -> Tensor | None:
        return None if self.core is None else self.core.initial_state(columns)

    def step(self, inputs: Inputs, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, state = self._core()(self.encode(inputs), state)
        return *self._heads(features), state

    def actor_step(self, inputs: Inputs, state: Tensor) -> tuple[Tensor, Tensor]:
        features, state = self._core()(self.encode(inputs), state)
        return self.actor_head(features), state

    def unroll(self, inputs: Inputs, state: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        return self._heads(self._core().unroll(self.encode(inputs), state, begins))

    def _core(self) -> Memory:
        assert self.core is not None, "only of a network with memory"
        return self.core


def begin_heads(actor_head: nn.Linear | ActorHead, critic_head: nn.Linear) -> None:
    """Set the weights with which heads begin: orthogonal, with gain 0.01 for the actor and 1 for the critic."""
    if isinstance(actor_head, ActorHead):
        actor_head.begin(0.01)
    else:
        nn.init.orthogonal_(actor_head.weight, 0.01)
        nn.init.zeros_(actor_head.bias)
    nn.init.orthogonal_(critic_head.weight)
    nn.init.zeros_(critic_head.bias)
