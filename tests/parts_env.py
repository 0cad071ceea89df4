"""An environment of parts that can be seen, with actions of any kind: for whatever acts, evaluates and draws."""

from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ACTIONS = {
    "discrete": spaces.Discrete(4, start=1),
    "choices": spaces.MultiDiscrete([3, 5, 2], start=[1, 0, -1]),
    "many choices": spaces.MultiDiscrete([[3] * 5, [4] * 5]),
    "switches": spaces.MultiBinary(4),
    "numbers": spaces.Box(np.float32([-1, 5, -2]), np.float32([0.1, 8, 2])),
    "many numbers": spaces.Box(-1, 1, (3, 4)),
    "parts": spaces.Dict(
        gear=spaces.Discrete(3, start=1),
        arm=spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.MultiBinary(3))),
        knobs=spaces.MultiDiscrete([3, 4]),
    ),
}
CHOICES = {"discrete": 4, "choices": 10}  # numbers of a mask


class Parts(gymnasium.Env):
    """Waves: shows a picture and numbers that go up and down; its reward is a wave as well.

    Args:
        actions: which of `ACTIONS`.
        masked: forbid a choice, another one in every step; an action that is forbidden raises.
        length: steps of an episode.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, actions="discrete", masked=False, length=40, render_mode=None):
        self.action_space = ACTIONS[actions]
        self.length, self.render_mode = length, render_mode
        self._choices = CHOICES[actions] if masked else 0
        seen = {
            "camera": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "body": spaces.Tuple((spaces.Discrete(4), spaces.Box(-1, 1, (2,)))),
        }
        if masked:
            seen["action_mask"] = spaces.MultiBinary(self._choices)
        self.observation_space = spaces.Dict(seen)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def _observe(self):
        wave = np.sin(self.steps / 3 + np.arange(192)).astype(np.float32)
        seen = {"camera": (127 * (wave + 1)).astype(np.uint8).reshape(8, 8, 3), "body": (self.steps // 3 % 4, wave[:2])}
        if self._choices:
            seen["action_mask"] = (np.arange(self._choices) != self.steps % self._choices).astype(np.int8)
        self.seen = seen
        return seen

    def step(self, action):
        assert self.action_space.contains(action), action
        if self._choices:
            flat = np.ravel(action) - np.ravel(self.action_space.start)
            sizes = np.ravel(getattr(self.action_space, "nvec", self._choices))
            assert self.seen["action_mask"][np.cumsum(sizes) - sizes + flat].all(), "it was forbidden"
        self.steps += 1
        return self._observe(), float(np.sin(self.steps / 5)), self.steps == self.length, False, {}

    def render(self):
        return np.kron(self.seen["camera"], np.ones((8, 8, 1), np.uint8))


gymnasium.register("Parts-v0", Parts)
