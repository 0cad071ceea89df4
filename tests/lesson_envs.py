"""Environments that can be learned within seconds, each of which needs one thing; workers import this module."""

import gymnasium
import numpy as np
from gymnasium import spaces

IMAGE = spaces.Box(0, 255, (6, 6, 1), np.uint8)


def dot(rng):
    """Gives an image with a bright dot somewhere, and whether it is in the right half."""
    image = np.zeros(IMAGE.shape, np.uint8)
    row, column = rng.integers(6, size=2)
    image[row, column] = 255
    return image, int(column >= 3)


class Shown(gymnasium.Env):
    """Each of the 8 steps of an episode shows what is to be done in it; the reward is how much of that is done.

    Args:
        kind: which of `KINDS`.
    """

    COPIED = {  # noqa: RUF012 - never changed
        "discrete": spaces.Discrete(4, start=3),
        "choices": spaces.MultiDiscrete([2, 3]),
        "switches": spaces.MultiBinary(3),
        "parts": spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(1)))),
    }
    KINDS = (*COPIED, "pixels", "image and number", "target", "highest allowed")

    def __init__(self, kind):
        self.kind = kind
        two = spaces.Discrete(2)
        if kind in self.COPIED:
            self.observation_space = self.action_space = self.COPIED[kind]
        elif kind == "pixels":
            self.observation_space, self.action_space = IMAGE, two
        elif kind == "image and number":
            self.observation_space = spaces.Dict(image=IMAGE, number=spaces.Box(-1, 1, (1,)))
            self.action_space = two
        elif kind == "target":
            self.observation_space, self.action_space = spaces.Box(-1, 1, (2,)), spaces.Box(-4, 4, (2,))
        else:
            self.observation_space = spaces.Dict(x=spaces.Box(-1, 1, (1,)), action_mask=spaces.MultiBinary(5))
            self.action_space = spaces.Discrete(5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._show(), {}

    def _show(self):
        rng = self.np_random
        if self.kind in self.COPIED:
            self.wanted = self.observation_space.sample()
            return self.wanted
        if self.kind == "pixels":
            image, self.wanted = dot(rng)
            return image
        if self.kind == "image and number":
            image, right = dot(rng)
            sign = int(rng.integers(2))
            self.wanted = right ^ sign
            return {"image": image, "number": np.float32([2 * sign - 1])}
        if self.kind == "target":
            shown = rng.uniform(-0.7, 0.7, 2).astype(np.float32)
            self.wanted = 4 * shown[::-1]
            return shown
        mask = np.zeros(5, np.int8)
        mask[rng.choice(5, 2, replace=False)] = 1
        self.wanted = int(mask.nonzero()[0].max())
        return {"x": np.zeros(1, np.float32), "action_mask": mask}

    def step(self, action):
        if self.kind == "target":
            reward = 1 - np.abs(action - self.wanted).mean() / 4
        else:
            ours, theirs = spaces.flatten(self.action_space, action), spaces.flatten(self.action_space, self.wanted)
            wrong = np.abs(ours.astype(int) - theirs.astype(int)).sum()
            reward = 1 - wrong / len(ours) if self.kind in self.COPIED else float(wrong == 0)
        self.steps += 1
        return self._show(), float(reward), False, self.steps == 8, {}


class Recall(gymnasium.Env):
    """Shows a bit in the first step, and asks for it four steps later: the only step that has a reward."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bit, self.steps = int(self.np_random.integers(2)), 0
        return np.float32([2 * self.bit - 1, 0]), {}

    def step(self, action):
        self.steps += 1
        asked = self.steps == 5
        reward = float(asked and int(action) == self.bit)
        return np.float32([0, self.steps == 4]), reward, asked, False, {}


gymnasium.register("Shown-v0", Shown)
gymnasium.register("Recall-v0", Recall)
