"""Environments that sleep instead of computing, to try many workers on few cores."""

from __future__ import annotations

import math
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

NUMBERS = 4  # of an observation

Array = NDArray[Any]


class SleepingVectorEnv(VectorEnv[Array, Array, Array]):
    """Environments without ends or rewards whose step takes a given time, for all of them together, and no core.

    Args:
        num_envs: environments, ≥ 1.
        seconds: of a step, > 0.

    Raises:
        ValueError: a value outside its range.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012  # Gymnasium's own

    def __init__(self, num_envs: int = 1, seconds: float = 0.01, **_: Any) -> None:
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds: got {seconds}, must be above 0 and finite")
        self.num_envs, self.seconds = num_envs, seconds
        self.single_observation_space = spaces.Box(-1.0, 1.0, (NUMBERS,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._observation = np.zeros((num_envs, NUMBERS), np.float32)
        self._rewards, self._no = np.zeros(num_envs), np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed if isinstance(seed, int) else None)
        return self._observation, {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        time.sleep(self.seconds)
        return self._observation, self._rewards, self._no, self._no, {}


gymnasium.register("Sleeping-v0", vector_entry_point="throughput.sleeping_env:SleepingVectorEnv")
