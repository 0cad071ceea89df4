"""Environments with a known course, registered by importing this module (in workers too)."""

import os
import signal

import gymnasium
import numpy as np
from gymnasium import spaces


class Countdown(gymnasium.Env):
    """Episode k of an environment lasts `lengths[k % n]` steps; observation: (episode, step).

    The reward of step t (from 0) is t + 1. The last step terminates, or truncates if asked to.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, lengths=(3, 1, 4), truncate=False):
        self.lengths, self.truncate = tuple(lengths), truncate
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_count = self.episode + 1, 0
        return self._observation(), {}

    def _observation(self):
        return np.array([self.episode, self.step_count], np.float32)

    def step(self, action):
        assert self.action_space.contains(action)
        self.step_count += 1
        ended = self.step_count >= self.lengths[self.episode % len(self.lengths)]
        terminated, truncated = ended and not self.truncate, ended and self.truncate
        return self._observation(), float(self.step_count), terminated, truncated, {}


class Broken(Countdown):
    """Misbehaves in a chosen way: raises, dies or fails in its constructor."""

    def __init__(self, kind="raise", at_step=20):
        if kind == "constructor":
            raise RuntimeError("no such simulator here")
        super().__init__(lengths=(10,))
        self.kind, self.at_step, self.total = kind, at_step, 0

    def step(self, action):
        self.total += 1
        if self.total == self.at_step:
            if self.kind == "raise":
                raise ZeroDivisionError("the pole went through the floor")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


gymnasium.register("Countdown-v0", Countdown)
gymnasium.register("Limited-v0", Countdown, max_episode_steps=50)
gymnasium.register("Broken-v0", Broken)
