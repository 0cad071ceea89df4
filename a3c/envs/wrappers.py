"""Wrappers around environments: those of this project, and how others are named and put on.

A reward wrapper changes what a learner is given. What is logged stays the environment's own: beneath
all wrappers, those with which it is registered included, its rewards are kept in ``info["own_rewards"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import (
    SyncVectorEnv,
    VectorActionWrapper,
    VectorEnv,
    VectorObservationWrapper,
    VectorWrapper,
)
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from gymnasium.wrappers.utils import RunningMeanStd
from numpy.typing import NDArray

from a3c.envs.masks import ACTION_MASK, action_choices
from a3c.envs.packages import INSTALL
from a3c.envs.single import EnvironmentFaultError

OBSERVATION = "observation"  # key of an environment's own observations beside its masks
OWN_REWARDS = "own_rewards"  # where, in `info`, the environments' own rewards stand
OWN_ENDS = "own_ends"  # and, in a step where they are others than a learner is told, which own episodes ended
NORMALISE_REWARD = "a3c.NormaliseReward"  # the wrapper that is told the learner's discount
EPSILON = 1e-8  # below a square root


class OwnReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps the reward of one environment in `info`, for whoever is above the wrappers around it."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {OWN_REWARDS: np.asarray(reward, float).item(), **info}


class OwnRewards(VectorWrapper):
    """Keeps the rewards [B] of B environments in `info`, for whoever is above the wrappers around them."""

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = super().step(actions)
        # A copy, since wrappers of Gymnasium change rewards in place; and one beneath has the first word.
        return observations, rewards, terminated, truncated, {OWN_REWARDS: np.array(rewards), **info}


class TerminalReward(VectorWrapper):
    """Replaces the reward for the step that terminates an episode by another; a time limit is no such step.

    The book gives −10 where its pole falls (programs 5.7 and 5.9).

    Args:
        env: the environments.
        reward: instead of the environment's own.
    """

    def __init__(self, env: VectorEnv, reward: float) -> None:
        super().__init__(env)
        self._reward = reward

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = super().step(actions)
        return observations, np.where(terminated, self._reward, rewards), terminated, truncated, info


class PartialObservation(VectorObservationWrapper):
    """Shows some numbers of the observations alone, so that a policy must remember what the others would say.

    CartPole without its velocities is `keep` [0, 2].

    Args:
        env: environments whose observations are vectors.
        keep: places of the numbers that are shown, at least one.

    Raises:
        ValueError: the observations are no vectors, or have no such places.
    """

    def __init__(self, env: VectorEnv, keep: Sequence[int]) -> None:
        super().__init__(env)
        space = env.single_observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"PartialObservation: got observations {space}, must be vectors")
        if not keep or not all(isinstance(place, int) and 0 <= place < space.shape[0] for place in keep):
            raise ValueError(f"keep: got {list(keep)}, must be places from 0 to {space.shape[0] - 1}, one or more")
        self._keep = list(keep)
        dtype: Any = space.dtype
        self.single_observation_space = gymnasium.spaces.Box(space.low[self._keep], space.high[self._keep], dtype=dtype)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def observations(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return the numbers that are shown, [B, n], of observations [B, m]."""
        return observations[:, self._keep]


class NormaliseReward(VectorWrapper):
    """Divides rewards by the running standard deviation of discounted returns, Rₜ = γ·Rₜ₋₁ + rₜ.

    Engstrom et al. (2020), "Implementation matters in deep policy gradients", arXiv:2005.12729, algorithm 1.
    Gymnasium's own `NormalizeReward` takes γ·Rₜ₋₁ away in a step that terminates, and lets what is left, or after
    a truncation all of R, into the next episode. Here R begins from 0 in each episode, whatever ended the last one.
    A reward that is not finite is not taken in, since the statistics would never be finite again.

    Args:
        env: the environments, in Gymnasium's NEXT_STEP autoreset mode.
        discount: γ, in [0, 1].

    Attributes:
        return_rms: the statistics, which a run's environments share.
        update_running_mean: whether they follow what is seen.
    """

    def __init__(self, env: VectorEnv, discount: float = 0.99) -> None:
        super().__init__(env)
        self._discount = discount
        self.return_rms = RunningMeanStd(shape=())  # type: ignore[no-untyped-call]
        self.update_running_mean = True
        self._returns = np.zeros(env.num_envs)
        self._ended = np.zeros(env.num_envs, np.bool_)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._returns[:], self._ended[:] = 0, False
        return super().reset(**kwargs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = super().step(actions)
        self._returns = np.where(self._ended, 0, self._discount * self._returns + rewards)  # 0 in the reset step
        if self.update_running_mean:
            seen = self._returns[~self._ended & np.isfinite(self._returns)]
            if len(seen):
                self.return_rms.update(seen)  # type: ignore[no-untyped-call]
        self._ended = terminated | truncated
        return observations, rewards / np.sqrt(self.return_rms.var + EPSILON), terminated, truncated, info


class ClipReward(VectorWrapper):
    """Clips rewards to ±limit: Mnih et al. (2015), "Human-level control through deep reinforcement learning", at 1.

    Gymnasium's own for vectors clips one number after another, which takes several times as long as a step of
    native environments.

    Args:
        env: the environments.
        limit: > 0.
    """

    def __init__(self, env: VectorEnv, limit: float) -> None:
        super().__init__(env)
        self._limit = limit

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = super().step(actions)
        return observations, np.clip(rewards, -self._limit, self._limit), terminated, truncated, info


class MaskFromInfo(VectorWrapper):
    """Puts the ``action_mask`` that environments give in `info` beside their observations, where a policy heeds it.

    An observation is then a Dict of the environment's own, as "observation", and its mask. What gives none in a step
    allows everything.

    Args:
        env: environments whose actions, or parts of them, are Discrete or MultiDiscrete.

    Raises:
        EnvironmentFaultError: no part of an action can be forbidden.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self._choices = sum(action_choices(env.single_action_space))
        if not self._choices:
            raise EnvironmentFaultError(
                f"info: got an {ACTION_MASK}, must be without: only Discrete and MultiDiscrete actions can be forbidden"
            )
        mask = gymnasium.spaces.MultiBinary(self._choices)
        self.single_observation_space = gymnasium.spaces.Dict(
            {OBSERVATION: env.single_observation_space, ACTION_MASK: mask}
        )
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def observation(self, observations: Any, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return observations [B, ...] with the masks of `info`, [B, n]."""
        masks = np.ones((self.num_envs, self._choices), np.int8)
        given = info.get(ACTION_MASK)
        if isinstance(given, Mapping):
            raise EnvironmentFaultError(
                f"info: got an {ACTION_MASK} of names, must be of {self._choices} numbers, those of the parts in a row"
            )
        present = info.get(f"_{ACTION_MASK}", np.full(self.num_envs, given is not None))  # so Gymnasium says of each
        for column in np.flatnonzero(present):
            own = given[column]  # type: ignore[index]
            parts = own if isinstance(own, tuple | list) else [own]  # of a MultiDiscrete one for each number
            row = np.concatenate([np.ravel(part) for part in parts])
            if len(row) != self._choices:
                raise EnvironmentFaultError(
                    f"info: environment {column} gave an {ACTION_MASK} of {len(row)} numbers, must be {self._choices}"
                )
            masks[column] = row != 0
        return {OBSERVATION: observations, ACTION_MASK: masks}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observations, info = super().reset(**kwargs)
        return self.observation(observations, info), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = super().step(actions)
        return self.observation(observations, info), rewards, terminated, truncated, info


class Wrapping(NamedTuple):
    """A wrapper by its import path, with its arguments.

    Attributes:
        class_path: of a class derived from Gymnasium's `Wrapper`, or from its `VectorWrapper`.
        init_args: its constructor's arguments but for the environment.
    """

    class_path: str
    init_args: Mapping[str, Any]

    @classmethod
    def read(cls, given: Any) -> Wrapping:
        """Read "module.Class", or class_path and init_args.

        Raises:
            ValueError: it is neither.
        """
        match given:
            case str():
                return cls(given, {})
            case {"class_path": str(), **rest} if set(rest) <= {"init_args"}:
                return cls(given["class_path"], dict(given.get("init_args") or {}))
            case [str(), Mapping()]:  # as a description has it
                return cls(given[0], dict(given[1]))
        raise ValueError(f"wrappers: got {given!r}, must be module.Class, or its class_path with its init_args")

    def load(self) -> type[gymnasium.Wrapper[Any, Any, Any, Any]] | type[VectorWrapper]:
        """Import the class.

        Raises:
            ValueError: it cannot be imported, or is no wrapper.
        """
        module, _, name = self.class_path.rpartition(".")
        try:
            cls = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            package = module.partition(".")[0]
            missing = isinstance(error, ModuleNotFoundError) and error.name == package
            why = INSTALL.get(package, error) if missing else error
            raise ValueError(f"wrappers: got {self.class_path!r}, which cannot be imported: {why}") from error
        if not (isinstance(cls, type) and issubclass(cls, (gymnasium.Wrapper, VectorWrapper))):
            raise ValueError(
                f"wrappers: got {self.class_path!r}, must be a class derived from gymnasium.Wrapper or "
                "gymnasium.vector.VectorWrapper"
            )
        return cls


class Wrappers(NamedTuple):
    """Wrappers ready to be put on, each kind from the innermost on.

    Attributes:
        single: what is put around each environment by itself.
        vector: what is put around all of them together, and so around the single ones.
    """

    single: Sequence[Callable[[Any], Any]]
    vector: Sequence[Callable[[Any], Any]]

    @classmethod
    def load(cls, wrappings: Iterable[Wrapping]) -> Wrappers:
        """Import wrappers.

        Raises:
            ValueError: one cannot be imported, or is no wrapper.
        """
        single: list[Callable[[Any], Any]] = []
        vector: list[Callable[[Any], Any]] = []
        for wrapping in wrappings:
            wrapper = wrapping.load()
            kind = vector if issubclass(wrapper, VectorWrapper) else single
            kind.append(partial(wrapper, **wrapping.init_args))
        return cls(single, vector)


def layers_of(env: Any) -> list[Any]:
    """Return an environment's wrappers from the outermost on, and the environment itself at the end."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper | VectorWrapper):
        layers.append(layers[-1].env)
    return layers


def keep_own_rewards(env: VectorEnv) -> VectorEnv:
    """Put what keeps the environments' own rewards beneath all wrappers, where one of them may change rewards.

    Returns:
        The environments.
    """
    layers = layers_of(env)
    kept = False
    if isinstance(layers[-1], SyncVectorEnv):
        for single in layers[-1].envs:
            inner = layers_of(single)
            if len(inner) > 1 and (any(map(_may_change_rewards, inner[:-1])) or len(layers) > 1):
                inner[-2].env = OwnReward(inner[-1])
                kept = True
    if len(layers) > 1 and not kept and any(map(_may_change_rewards, layers[:-1])):
        layers[-2].env = OwnRewards(layers[-1])
    return env


def _may_change_rewards(wrapper: Any) -> bool:
    step = getattr(type(wrapper), "step", None)
    return step not in STEPS_THAT_LEAVE_REWARDS


STEPS_THAT_LEAVE_REWARDS = {
    cls.step
    for cls in (
        gymnasium.Wrapper,
        gymnasium.ActionWrapper,
        gymnasium.ObservationWrapper,
        VectorWrapper,
        VectorActionWrapper,
        VectorObservationWrapper,
        OrderEnforcing,
        PassiveEnvChecker,
        TimeLimit,
    )
}
