"""Acting on observations: the one place where a network's output becomes actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a3c.networks.actor_critic import ActorCritic


class Policy:
    """Chooses actions of B environments, or, without memory, of whatever axes observations have in front.

    The caller sees to the mode of torch and of the network (`inference_mode`, `evaluating`).

    Args:
        network: says the parameters of the actions' distribution.
        greedy: take the most probable action; False samples.
        generator: of sampled actions; torch's global one by default.

    Attributes:
        state: what a network with memory remembers, [B, *state_shape]; None of another, and before
            `begin_episodes`.
    """

    def __init__(self, network: ActorCritic, greedy: bool = False, generator: torch.Generator | None = None) -> None:
        self._network = network
        self._greedy = greedy
        self._generator = torch.default_generator if generator is None else generator
        self._noise: Iterator[Tensor] = iter(())
        self._parameters: list[Tensor] | None = None
        self._masks: list[Tensor] = []  # where actions can be forbidden
        self.state: Tensor | None = None

    def begin_episodes(self, columns: int) -> None:
        """Put a network with memory into the state in which episodes begin, in all B columns."""
        self.state = self._network.initial_state(columns)

    def restart(self, columns: NDArray[np.bool_]) -> None:
        """Forget what a network with memory has seen in columns [B] whose next observation begins an episode."""
        if self.state is not None and columns.any():
            first = self._network.initial_state(len(columns))
            assert first is not None, "a network that has a state has one to begin in"
            fresh = torch.from_numpy(columns)
            self.state = self.state.clone()
            self.state[fresh] = first[fresh]

    def begin_fragment(self, steps: int, columns: int) -> None:
        """Draw the noise of a fragment's steps at once, and keep what is chosen from, for `log_probs`."""
        self._noise = iter(self._network.actions.noise((steps, columns), self._generator).unbind(0))
        self._parameters, self._masks = [], []

    def choose(self, observations: Tensor) -> NDArray[Any]:
        """Choose actions [..., *action_shape] on observations [..., *observation_shape], both as a batch holds them."""
        network = self._network
        inputs, mask = network.inputs(observations)
        if self.state is None:
            parameters = network.actor(inputs)
        else:
            parameters, self.state = network.actor_step(inputs, self.state)
        if self._parameters is not None:
            self._parameters.append(parameters)
            if mask is not None:
                self._masks.append(mask)
        distribution = network.actions(parameters, mask)
        if self._greedy:
            return distribution.mode().numpy()
        noise = next(self._noise, None)
        if noise is None:
            noise = network.actions.noise(parameters.shape[:-1], self._generator)
        return distribution.sample(noise).numpy()

    def act(self, observations: NDArray[Any]) -> Any:
        """Choose actions as the environments' `step` takes them."""
        return self._network.actions.for_env(self.choose(torch.from_numpy(observations)))

    def log_probs(self, actions: Tensor) -> Tensor:
        """Return log μ(a|s), [T, B], of the T steps of the fragment at hand, actions as `choose` gave them."""
        assert self._parameters is not None, "begin_fragment comes first"
        mask = torch.stack(self._masks) if self._masks else None
        return self._network.actions(torch.stack(self._parameters), mask).log_prob(actions)
