"""Environments that leak, each something else; imported in workers."""

import os

import gymnasium

from a3c.envs.faulty import FaultyEnv
from a3c.rollouts.workers.shared_memory import shared_zeros


class LeakyEnv(FaultyEnv):
    """Keeps some more of a resource with every step."""

    def __init__(self, leak="none", every=1):
        super().__init__("none")
        self._leak, self._every, self._count, self._kept = leak, every, 0, []

    def step(self, action):
        self._count += 1
        if self._count % self._every == 0 and self._leak != "none":
            self._kept.append(self._take())
        return super().step(action)

    def _take(self):
        if self._leak == "memory and files":
            return bytearray(os.urandom(1)) * 20_000, os.open("/dev/null", os.O_RDONLY)
        import torch

        return shared_zeros(100_000, dtype=torch.uint8)


gymnasium.register("Leaky-v0", LeakyEnv, max_episode_steps=100)
