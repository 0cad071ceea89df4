"""What every actor-critic network offers to the collector and to the objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

from a3c.batch import RolloutBatch
from a3c.envs.layouts import Layout, observation_layout
from a3c.envs.masks import ACTION_MASK
from a3c.envs.spaces import Spaces
from a3c.networks.distributions import Distribution, family_for
from a3c.networks.normalisation import CRITIC_HEAD, ObservationNormaliser, PopArt

Inputs = Any  # a tensor [..., *shape], or of a Dict a dict and of a Tuple a tuple of such


class Judgement(NamedTuple):
    """What a network makes of observations that follow each other.

    Attributes:
        parameters: of the actions' distribution, [T, B, P].
        mask: True where a choice is allowed, [T, B, mask_size]; None if none is ever forbidden.
        values: [T, B].
    """

    parameters: Tensor
    mask: Tensor | None
    values: Tensor


class ActorCritic(nn.Module):
    """A policy and a value function over one observation space.

    A subclass takes `observation_space` and `action_space` and keeps every constructor argument
    as an attribute of the same name, so that a checkpoint can say how to rebuild it. It has `forward`,
    and if acting needs less, `actor`; or it has a memory, and so `initial_state` and `step`.

    What these methods are given are *inputs*: of a Box, Discrete, MultiDiscrete or MultiBinary a tensor
    [..., *shape] in the space's dtype, of a Dict a dict and of a Tuple a tuple of inputs. The `action_mask` of
    a Dict is not among them: it says which actions can be taken, and is heeded without the network. Where
    observations are normalised, inputs are.

    Args:
        observation_space: the environment's, of one environment.
        action_space: the environment's, of one environment.
        squash: bring continuous actions within their bounds by tanh; False clips them.

    Attributes:
        input_space: the observation space without its action mask.
        actions: the family of distributions over the actions.
        parameter_count: number P of parameters that the actor says for each action.
        normaliser: of the inputs; None leaves them as they are.

    Raises:
        ValueError: a space is not supported, or an action mask does not fit the actions.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        squash: bool = False,
    ) -> None:
        super().__init__()
        self.observation_space = observation_space
        self.action_space = action_space
        self.squash = squash
        self.actions = family_for(action_space, squash)
        self.parameter_count = self.actions.parameter_count
        self._layout: Layout = observation_layout(observation_space)
        self.input_space, self._is_masked = _without_mask(observation_space, self.actions.mask_size)
        self._mask_axes = len(observation_space[ACTION_MASK].shape) if self._is_masked else 0  # type: ignore[index]
        self.normaliser: ObservationNormaliser | None = None

    @property
    def spaces(self) -> Spaces:
        """The spaces that it was made for."""
        return Spaces(self.observation_space, self.action_space)

    # What a network has of its own.

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return distribution parameters [..., P] and values [...] of inputs [..., *shape]."""
        raise NotImplementedError(f"{type(self).__name__} has neither forward nor, for one with a memory, step")

    def actor(self, inputs: Inputs) -> Tensor:
        """Return the distribution's parameters alone, [..., P]: all that acting needs."""
        return self(inputs)[0]  # type: ignore[no-any-return]

    def initial_state(self, columns: int) -> Tensor | None:
        """Return the memory with which episodes begin, [B, *state_shape], float32; None of a network without memory.

        If it is learned, its gradient is that of the episodes that begin after a column's first step: what stands
        there is remembered as a number. Rollouts that are cut where episodes end have none.
        """
        return None

    def step(self, inputs: Inputs, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return parameters [B, P], values [B] and the memory afterwards, of inputs [B, *shape] and the memory before.

        Only of a network with memory.
        """
        raise NotImplementedError(f"{type(self).__name__} has an initial_state and no step")

    def actor_step(self, inputs: Inputs, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return parameters and memory alone, of a network with memory: all that acting needs."""
        parameters, _, state = self.step(inputs, state)
        return parameters, state

    def unroll(self, inputs: Inputs, state: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """Return parameters [T, B, P] and values [T, B] of a network with memory, step after step.

        Args:
            inputs: that follow each other, [T, B, *shape].
            state: the memory before the first, [B, *state_shape].
            begins: which are the first of an episode, so that nothing is remembered before them, [T, B].
        """
        fresh = self.initial_state(begins.shape[1])
        assert fresh is not None, "a network with memory has one to begin with"
        fresh, outputs = fresh.to(begins.device), []
        for time, begin in enumerate(begins):
            state = torch.where(begin.view(-1, *(1,) * (state.dim() - 1)), fresh, state)
            *output, state = self.step(_at(inputs, time), state)
            outputs.append(output)
        parameters, values = map(torch.stack, zip(*outputs, strict=True))
        return parameters, values

    # What others ask of it.

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of what it remembers of one column; (0,) of a network without memory."""
        state = self.initial_state(1)
        return (0,) if state is None else tuple(state.shape[1:])

    def inputs(self, observations: Tensor) -> tuple[Inputs, Tensor | None]:
        """Return inputs, and which choices are allowed if any are forbidden, of observations as a batch holds them."""
        return self.inputs_of(self._layout.unpack(observations))

    def inputs_of(self, observations: Inputs) -> tuple[Inputs, Tensor | None]:
        """Do as `inputs` does, of tensors in the form of the observation space, which an exported policy is given."""
        inputs, mask = self._split(observations)
        return (inputs if self.normaliser is None else self.normaliser(inputs)), mask

    def _split(self, observations: Inputs) -> tuple[Inputs, Tensor | None]:
        if not self._is_masked:
            return observations, None
        inputs = dict(observations)
        mask = inputs.pop(ACTION_MASK)
        return inputs, mask.flatten(mask.dim() - self._mask_axes) != 0

    @property
    def value_unit(self) -> Tensor | None:
        """The unit in which the critic's error counts, σ of PopArt; None where it is 1."""
        head = getattr(self, CRITIC_HEAD, None)
        return head.std if isinstance(head, PopArt) else None

    @property
    def keeps_statistics(self) -> bool:
        """Whether it normalises by what `take_in` is given."""
        return self.normaliser is not None or self.value_unit is not None

    def take_in(self, observations: Tensor, value_targets: Tensor) -> None:
        """Have the statistics follow the real steps of an update that has been made.

        Args:
            observations: that were acted on, as a batch holds them, [N, *observation_shape].
            value_targets: of the critic, [N].
        """
        if self.normaliser is not None:
            self.normaliser.update(self._split(self._layout.unpack(observations))[0])
        head = getattr(self, CRITIC_HEAD, None)
        if isinstance(head, PopArt):
            head.update(value_targets)

    def judge(self, observations: Tensor, state: Tensor | None, begins: Tensor | None) -> Judgement:
        """Return what it makes of observations that follow each other.

        Args:
            observations: as a batch holds them, [T, B, *observation_shape].
            state: the memory before the first, [B, *state_shape]; None for that of an episode's begin.
            begins: which are the first of an episode, [T, B]; None for none but what `state` says.
        """
        inputs, mask = self.inputs(observations)
        first = self.initial_state(observations.shape[1])
        if first is None:
            return Judgement((output := self(inputs))[0], mask, output[1])
        if begins is None:
            begins = torch.zeros(observations.shape[:2], dtype=torch.bool, device=observations.device)
        state = first.to(observations.device) if state is None else state
        parameters, values = self.unroll(inputs, state, begins)
        return Judgement(parameters, mask, values)

    def judge_batch(self, batch: RolloutBatch) -> tuple[Distribution, Tensor]:
        """Return the distributions of a batch's actions, [T, B], and the values of its observations, [T+1, B]."""
        remembers = batch.states.shape[-1] > 0
        state, begins = (batch.states[0], batch.begins) if remembers else (None, None)
        parameters, mask, values = self.judge(batch.observations, state, begins)
        return self.actions(parameters[:-1], None if mask is None else mask[:-1]), values


def _without_mask(space: gymnasium.Space[Any], mask_size: int | None) -> tuple[gymnasium.Space[Any], bool]:
    """Return an observation space without its action mask, and whether it has one."""
    if not isinstance(space, spaces.Dict) or ACTION_MASK not in space.spaces:
        return space, False
    rest = {key: part for key, part in space.spaces.items() if key != ACTION_MASK}
    if mask_size is None:
        raise ValueError(
            f"observation_space: got an {ACTION_MASK}, must be without: only Discrete and MultiDiscrete actions, and "
            "those in a Dict or Tuple, can be forbidden"
        )
    size = math.prod(space[ACTION_MASK].shape or ())
    if size != mask_size:
        raise ValueError(f"observation_space: got an {ACTION_MASK} of {size} numbers, must be of {mask_size}")
    if not rest:
        raise ValueError(f"observation_space: got an {ACTION_MASK} alone, must be with observations")
    return spaces.Dict(rest), True


def _at(inputs: Inputs, time: int) -> Inputs:
    """Return the inputs of one time step."""
    if isinstance(inputs, dict):
        return {key: _at(part, time) for key, part in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_at(part, time) for part in inputs)
    return inputs[time]


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
