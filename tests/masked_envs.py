"""Environments in which some actions are forbidden, and raise; workers import this module."""

import gymnasium
import numpy as np
from gymnasium import spaces

from a3c.envs.masks import action_choices

ACTIONS = {
    "discrete": spaces.Discrete(5, start=10),
    "choices": spaces.MultiDiscrete([3, 2, 4], start=[1, 0, -1]),
    "parts": spaces.Dict(
        gear=spaces.Discrete(3, start=2),
        arm=spaces.Box(-1, 1, (2,)),
        deep=spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
    ),
    "numbers": spaces.Box(-1, 1, (2,)),
}
HOW = ("observation", "info", "info of several parts")  # the last one by itself, as `space.sample` takes it


def chosen(space, action):
    """Gives the places of the choices that an action makes, among all those of a space."""
    match space:
        case spaces.Discrete():
            return [int(action) - int(space.start)]
        case spaces.MultiDiscrete():
            return (np.ravel(action) - np.ravel(space.start)).tolist()
        case spaces.Dict():
            return [choice for key, part in space.spaces.items() for choice in chosen(part, action[key])]
        case spaces.Tuple():
            return [choice for part, own in zip(space.spaces, action, strict=True) for choice in chosen(part, own)]
    return []


class Masked(gymnasium.Env):
    """Shows a choice for each part of an action, which is always allowed; the reward is the share of those taken.

    What is forbidden changes with every step, and raises if it is done. In a final state nothing is allowed.

    Args:
        actions: which of `ACTIONS`.
        how: where the mask stands, one of `HOW`.
        nothing_at: a step from which on everything is forbidden, and nothing raises.
        size: of the mask, if it is to be another one than the actions have.
        seldom: give no mask, and forbid nothing, in each second step.
    """

    def __init__(self, actions="discrete", how="observation", nothing_at=None, size=None, seldom=False):
        self.action_space = ACTIONS[actions]
        self.how, self.nothing_at, self.seldom = how, nothing_at, seldom
        self.choices = action_choices(self.action_space)
        self.size = sum(self.choices) or 2
        shown = spaces.Box(0, 1, (self.size,), np.float32)
        self.given = size or self.size
        masked = spaces.Dict(shown=shown, action_mask=spaces.MultiBinary(self.given))
        self.observation_space = masked if how == "observation" else shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.length = 0, int(self.np_random.integers(3, 9))
        return self._look()

    def _look(self):
        self.mask = (self.np_random.random(self.size) < 0.4).astype(np.int8)
        self.shown = np.zeros(self.size, np.float32)
        first = 0
        for choices in self.choices:
            self.shown[first + self.np_random.integers(choices)] = 1
            first += choices
        self.mask[self.shown > 0] = 1
        if self.nothing_at is not None and self.steps >= self.nothing_at:
            self.mask[:] = 0
        if self.steps == self.length:
            self.mask[:] = 0
        mask = np.resize(self.mask, self.given)
        if self.how == "observation":
            return {"shown": self.shown, "action_mask": mask}, {}
        if self.seldom and self.steps % 2:
            self.mask[:] = 1
            return self.shown, {}
        if self.how == "info of several parts":
            mask = tuple(np.split(mask, np.cumsum(self.choices)[:-1]))
        return self.shown, {"action_mask": mask}

    def step(self, action):
        assert self.action_space.contains(action), action
        choices = chosen(self.action_space, action)
        places = np.cumsum(self.choices, dtype=np.int64) - self.choices + choices if self.choices else np.zeros(0, int)
        if self.mask.any() and not self.mask[places].all():
            raise ValueError(f"{action} was forbidden")
        reward = float(self.shown[places].mean()) if self.choices else 0.0
        self.steps += 1
        return (*self._look_after(reward),)

    def _look_after(self, reward):
        observation, info = self._look()
        return observation, reward, self.steps == self.length, False, info

    def get_state(self):
        return {name: getattr(self, name) for name in ("mask", "shown", "steps", "length")}

    def set_state(self, state):
        for name, value in state.items():
            setattr(self, name, value)


gymnasium.register("Masked-v0", Masked, max_episode_steps=50)
