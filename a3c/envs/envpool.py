"""Environments of EnvPool, as a vector environment of Gymnasium.

Ids are "envpool:" and one of EnvPool's, such as "envpool:Ant-v4"; arguments are those that EnvPool's
`make_gymnasium` takes for it.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from a3c.envs.wrappers import OWN_ENDS, OWN_REWARDS

PREFIX = "envpool:"
ENTRY_POINT = "a3c.envs.envpool:PooledEnvs"
# What is said otherwise, or is of no use where all environments are stepped together.
NOT_FOR_USERS = {"num_envs", "batch_size", "seed", "env_seed", "max_episode_steps", "reward_threshold"} | {
    "max_num_players",
    "gym_reset_return_info",
    "base_path",
}


def registered(name: str, arguments: Mapping[str, Any]) -> gymnasium.envs.registration.EnvSpec:
    """Return how environments of EnvPool are made, one as well as several.

    Args:
        name: the id, with `PREFIX`.
        arguments: EnvPool's own for it.

    Raises:
        ValueError: EnvPool is not installed, or has no such environment, or that has no such argument.
    """
    try:
        import envpool
    except ImportError as error:
        raise ValueError(f"env: {name} needs EnvPool: pip install 'a3c[envpool]' ({error})") from error
    task = name.removeprefix(PREFIX)
    tasks = envpool.list_all_envs()
    if task not in tasks:
        near = ", ".join(PREFIX + each for each in difflib.get_close_matches(task, tasks, n=3, cutoff=0.3))
        raise ValueError(f"env: got {name!r}, must be an id that EnvPool knows; nearest: {near or 'none'}")
    config = envpool.make_spec(task).config
    allowed = set(config._fields) - NOT_FOR_USERS
    if unknown := sorted(arguments.keys() - allowed):
        raise ValueError(f"env_kwargs: got {unknown[0]!r}, must be of {', '.join(sorted(allowed))}")
    return gymnasium.envs.registration.EnvSpec(
        name,
        vector_entry_point=ENTRY_POINT,
        max_episode_steps=config.max_episode_steps,
        reward_threshold=getattr(config, "reward_threshold", None),
        kwargs={"task": task},
    )


class PooledEnvs(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """B environments of one pool, which reset themselves in the step after an end.

    EnvPool takes its seeds when the pool is made: a reset with a seed makes another one. Where its
    Atari games clip rewards, or end an episode with a life, `info` keeps what is the game's. An
    episode that reaches a terminal state in the very step of its time limit counts as cut by it,
    since EnvPool says no more; its Atari games do.

    Args:
        num_envs: B.
        task: EnvPool's id.
        max_episode_steps: time limit in steps.
        num_threads: of the pool.
        arguments: EnvPool's own.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 - as Gymnasium has it

    def __init__(
        self, num_envs: int, task: str, max_episode_steps: int, *, num_threads: int = 1, **arguments: Any
    ) -> None:
        import envpool

        self._arguments = {
            "num_envs": num_envs,
            "num_threads": num_threads,
            "max_episode_steps": max_episode_steps,
            **arguments,
        }
        self._task = task
        self._pool: Any = None
        with _without_warnings():
            spec = envpool.make_spec(task, **self._arguments)
            self.single_observation_space = _observation_space(spec.gymnasium_observation_space)
            self.single_action_space = spec.gymnasium_action_space
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        import envpool

        super().reset(seed=seed)
        if seed is not None or self._pool is None:
            self.close_extras()  # first: two pools would take twice the memory
            seeds = self.np_random.integers(2**31, size=self.num_envs).tolist()
            self._pool = envpool.make_gymnasium(self._task, seed=seeds, **self._arguments)
        with _without_warnings():
            observations, info = self._pool.reset()
        return observations, info

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        observations, rewards, terminated, truncated, info = self._pool.step(
            np.asarray(actions, self.single_action_space.dtype)
        )
        if "reward" in info and "terminated" in info:  # Atari: of the game
            over = info["terminated"].astype(np.bool_)
            info[OWN_REWARDS], info[OWN_ENDS] = info["reward"], over | truncated
            terminated, truncated = terminated | over, truncated & ~over
        return observations, rewards, terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None  # ends its threads


def _observation_space(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """Put right bounds that EnvPool takes for the lowest number, which C++ calls otherwise."""
    if not isinstance(space, gymnasium.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return space
    low = np.where(space.low == np.finfo(space.dtype).tiny, -np.inf, space.low)
    return gymnasium.spaces.Box(low, space.high, space.shape, space.dtype)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep Gymnasium from speaking of the bounds of a space, which are no user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
