"""An environment that draws from the process's own random generators and its space's, and writes down what it drew."""

import os
import random
from pathlib import Path

import gymnasium
import numpy as np
import torch


class Drawing(gymnasium.Env):
    """Draws in its constructor and in every reset; with `die_after`, its process then ends for good, once.

    Args:
        path: a folder, in which each process writes what it draws into a file of its own.
        die_after: resets after which the process is killed, unless another one has been before.
    """

    def __init__(self, path, die_after=None):
        self._folder, self._die_after, self._resets, self._steps = Path(path), die_after, 0, 0
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._draw()

    def _draw(self, *more):
        drawn = (random.random(), np.random.rand(), torch.rand(()).item(), *more)
        with (self._folder / str(os.getpid())).open("a") as file:
            file.write(" ".join(map(str, drawn)) + "\n")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._resets, self._steps = self._resets + 1, 0
        self._draw(self.observation_space.sample()[0])
        if self._die_after == self._resets and not (self._folder / "died").exists():
            (self._folder / "died").touch()
            os._exit(3)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._steps += 1
        return np.zeros(2, np.float32), 1.0, self._steps == 5, False, {}


gymnasium.register("Drawing-v0", Drawing)
