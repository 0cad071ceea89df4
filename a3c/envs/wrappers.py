"""Wrappers around vector environments."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

OWN_REWARDS = "own_rewards"  # where a reward wrapper leaves, in `info`, what the environment gave


class TerminalReward(VectorWrapper):
    """Replaces the reward for the step that terminates an episode by another; a time limit is no such step.

    The book gives −10 where its pole falls (programs 5.7 and 5.9). The environment's own rewards
    stay in ``info["own_rewards"]``, [B]: what is logged is made of them.

    Args:
        env: the environments.
        reward: instead of the environment's own.
    """

    def __init__(self, env: VectorEnv, reward: float) -> None:
        super().__init__(env)
        self._reward = reward

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = super().step(actions)
        info = {OWN_REWARDS: rewards, **info}  # a wrapper beneath has the first word
        return observations, np.where(terminated, self._reward, rewards), terminated, truncated, info
