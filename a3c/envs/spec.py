"""Vector environments: how they are made, and what is refused before any is stepped."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv

from a3c.envs.spaces import SUPPORTED, Spaces, are_supported
from a3c.envs.wrappers import TerminalReward

SUPPORTED_API = (
    "reset(seed=…, options=…) → observation, info; step(action) → observation, reward, terminated, truncated, info"
)


class EnvError(ValueError):
    """An environment that does not exist, cannot be made, or is of a kind not supported."""

    fatal = True  # a worker that ends with it is not replaced


@dataclass(frozen=True)
class EnvSpec:
    """Which environment, so that every process can make its own.

    Attributes:
        id: Gymnasium's id; "module:Name-v0" imports the module first.
        kwargs: arguments of its constructor.
        max_episode_steps: time limit in steps, or None for the environment's own.
        terminal_reward: see `TerminalReward`; None leaves rewards alone.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    terminal_reward: float | None = None

    def make(self, num_envs: int, render_mode: str | None = None) -> VectorEnv:
        """Make `num_envs` environments as one; several are native where there is a native version.

        Args:
            num_envs: how many, ≥ 1.
            render_mode: how they draw themselves, one of their own `render_modes`; None for not at all.

        Raises:
            EnvError: the id is unknown, or the environment is not supported.
        """
        kwargs = dict(self.kwargs)
        if self.max_episode_steps is not None:
            kwargs["max_episode_steps"] = self.max_episode_steps
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        registered = self._registered()
        try:
            mode = "sync" if num_envs == 1 else None  # for one, native arrays cost more than they save
            env = gymnasium.make_vec(registered, num_envs=num_envs, vectorization_mode=mode, **kwargs)
            if env.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
                # A native version that resets in the same step hides the final observation.
                env.close()
                env = gymnasium.make_vec(registered, num_envs=num_envs, vectorization_mode="sync", **kwargs)
        except (gymnasium.error.Error, TypeError) as error:  # a TypeError is an argument it does not take
            raise EnvError(f"env: {self.id} cannot be made: {error}") from error
        try:
            self._check_spaces(env)
        except EnvError:
            env.close()
            raise
        for name in ("reset", "step"):
            _explain_first_call(env, name, self.id)
        return env if self.terminal_reward is None else TerminalReward(env, self.terminal_reward)

    @property
    def module(self) -> str:
        """The module that is imported before the environment is made; empty if there is none."""
        return self.id.rpartition(":")[0]

    def _registered(self) -> gymnasium.envs.registration.EnvSpec:
        module, _, name = self.id.rpartition(":")
        try:
            if module:
                import_module(module)
            return gymnasium.spec(name)
        except (gymnasium.error.Error, ImportError) as error:
            near = difflib.get_close_matches(self.id, gymnasium.registry, n=1, cutoff=0.3)
            nearest = f"; nearest: {near[0]}" if near else ""
            raise EnvError(
                f"env: got {self.id!r}, must be an id that Gymnasium knows (module:Name-v0 imports the module){nearest}"
            ) from error

    def _check_spaces(self, env: VectorEnv) -> None:
        given = Spaces(env.single_observation_space, env.single_action_space)
        if not are_supported(given):
            raise EnvError(
                f"env: {self.id} has observations {given.observation} and actions {given.action}; "
                f"supported: {SUPPORTED}"
            )

    @property
    def time_limit(self) -> int | None:
        """Most steps of an episode, or None where nothing limits it."""
        return self.max_episode_steps or self._registered().max_episode_steps

    @property
    def reward_threshold(self) -> float | None:
        """Mean episode return at which Gymnasium calls the environment solved, if it says."""
        return self._registered().reward_threshold


def _explain_first_call(env: VectorEnv, name: str, env_id: str) -> None:
    """Have the first call of a method say so if it fails over Gym's old API; later ones cost nothing."""
    method = getattr(env, name)

    def first(*args: Any, **kwargs: Any) -> Any:
        vars(env).pop(name, None)  # the class's own is behind it
        try:
            return method(*args, **kwargs)
        except (ValueError, TypeError, AttributeError) as error:
            if _is_of_old_api(error):
                raise EnvError(
                    f"env: {env_id} has the old API of Gym ({name}: {error}); supported: {SUPPORTED_API}"
                ) from error
            raise

    setattr(env, name, first)


def _is_of_old_api(error: Exception) -> bool:
    """Return whether Gymnasium, and not the environment, failed over what a method takes or return."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    pattern = r"values to unpack|unexpected keyword argument '(seed|options)'|has no attribute 'items'"
    return raised_in.is_relative_to(Path(gymnasium.__file__).parent) and bool(re.search(pattern, str(error)))
