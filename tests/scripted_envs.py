"""Environments with a known course, registered by importing this module (in workers too)."""

import os
import random
import signal
import time
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation, NormalizeReward


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


class Wander(gymnasium.Env):
    """A random walk with generators and counts of its own, which it can say.

    It draws from the process's generators too, as no environment should; and of its rewards a
    share is NaN, if asked for. Its spaces are its own: they have generators, which are part of its state.
    """

    def __init__(self, bad=0.0):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.bad = bad

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.wind = np.random.Generator(np.random.SFC64(seed))
            self.place = {"height": np.float32(0), "episodes": 0}
        self.place["episodes"] += 1
        self.path = np.zeros(2)
        return self._observation(), {}

    def _observation(self):
        return np.array([self.path[0], self.place["height"] / self.place["episodes"]], np.float32)

    def step(self, action):
        self.path += self.np_random.normal(size=2) + action - 1
        self.place["height"] = np.float32(self.wind.normal()) / np.float32(3)
        reward = float(self.path[1]) + random.gauss(0, 1) + np.random.normal()
        if self.wind.random() < self.bad:
            reward = np.nan
        return self._observation(), reward, bool(abs(self.path[0]) > 4), False, {}

    def get_state(self):
        return {"wind": self.wind, "place": (self.place, self.path)}

    def set_state(self, state):
        self.wind, (self.place, self.path) = state["wind"], state["place"]


class Elusive(Wander):
    """Says its state by something that no checkpoint may hold."""

    def get_state(self):
        return {"walk": self}


class Drawn(Countdown):
    """Draws itself, of odd height and width, in a grey that grows with the steps."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, lengths=(5,), truncate=False, render_mode=None):
        super().__init__(lengths, truncate)
        self.render_mode = render_mode

    def render(self):
        return np.full((33, 147, 3), 20 * self.step_count, np.uint8)


class DrawnWander(Wander):
    """Draws itself, and from the process's generators too."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.random.randint(0, 255, (32, 64, 3), np.uint8)


class Sluggish(Countdown):
    """Takes its time in each constructor, reset and step."""

    def __init__(self, seconds, lengths=(2,)):
        self.seconds = seconds
        time.sleep(seconds)
        super().__init__(lengths)

    def reset(self, **kwargs):
        time.sleep(self.seconds)
        return super().reset(**kwargs)

    def step(self, action):
        time.sleep(self.seconds)
        return super().step(action)


class Careless(Countdown):
    """Says one thing of what it gives, and gives another.

    Args:
        dtype, shape: of the observations that it gives.
        space: what it says of them: dtype and shape.
        reward: which of `KINDS` its rewards are; with "array" the flags of an end are arrays too.
        as_list: give observations as lists.
    """

    KINDS: ClassVar = {
        "number": float,
        "array": lambda value: np.array([value]),
        "numpy": np.float32,
        "pair": lambda value: np.array([value, value]),
    }

    def __init__(self, dtype="float32", shape=(2,), space=("float32", (2,)), reward="number", as_list=False):
        super().__init__((4,))
        kind, size = space
        low, high = (0, 1) if kind == "bool" else (0, 9)
        self.observation_space = spaces.Box(low, high, tuple(size), np.dtype(kind).type)
        self.given, self.kind, self.as_list = (np.dtype(dtype), tuple(shape)), self.KINDS[reward], as_list

    def _say(self):
        dtype, shape = self.given
        observation = np.full(shape, self.step_count % 2, dtype)
        return observation.tolist() if self.as_list else observation

    def reset(self, **kwargs):
        super().reset(**kwargs)
        return self._say(), {}

    def step(self, action):
        _, reward, terminated, truncated, info = super().step(action)
        if self.kind is self.KINDS["array"]:
            terminated, truncated = np.array([terminated]), np.array([truncated])
        return self._say(), self.kind(reward), terminated, truncated, info


gymnasium.register("Careless-v0", Careless)
gymnasium.register("Sluggish-v0", Sluggish)
gymnasium.register("Countdown-v0", Countdown)
gymnasium.register("Wander-v0", Wander, max_episode_steps=13)
gymnasium.register("Normalised-v0", lambda: NormalizeReward(NormalizeObservation(Wander())), max_episode_steps=13)
gymnasium.register("Elusive-v0", Elusive)
gymnasium.register("Limited-v0", Countdown, max_episode_steps=50)
gymnasium.register("Broken-v0", Broken)
gymnasium.register("Drawn-v0", Drawn)
gymnasium.register("DrawnWander-v0", DrawnWander, max_episode_steps=13)


class Lonely(Countdown):
    """Of which only one may be open at a time, in one process."""

    is_open = False

    def __init__(self, lengths=(3,)):
        if Lonely.is_open:
            raise RuntimeError("the simulator is open already")
        Lonely.is_open = True
        super().__init__(lengths)

    def close(self):
        Lonely.is_open = False


gymnasium.register("Lonely-v0", Lonely)
