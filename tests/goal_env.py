"""An environment that must be normalised to be told apart, with wrappers that it is registered with."""

import gymnasium
import numpy as np
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TransformReward


class Goal(gymnasium.Env):
    """Shows 1000 + 10·goal, with goal 0 or 1 fixed in an episode of 20 steps; 1 for each action that equals it."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.steps = int(self.np_random.integers(2)), 0
        return self.observation(), {}

    def observation(self):
        return np.array([1000 + 10 * self.goal], np.float32)

    def step(self, action):
        self.steps += 1
        return self.observation(), float(action == self.goal), False, self.steps == 20, {}


class OwnMeans(gymnasium.ObservationWrapper):
    """Keeps statistics of a make of its own."""

    class Running:
        mean, var = 0.0, 1.0

        def update(self, value):
            self.mean = value

    def __init__(self, env):
        super().__init__(env)
        self.running = self.Running()

    def observation(self, observation):
        return observation


def negated():
    return TransformReward(Goal(), lambda reward: -7 * reward)


gymnasium.register("Goal-v0", Goal, additional_wrappers=(NormalizeObservation.wrapper_spec(),))
gymnasium.register("Scaled-v0", Goal, additional_wrappers=(NormalizeReward.wrapper_spec(),))
gymnasium.register("Negated-v0", negated)
gymnasium.register("Plain-v0", Goal)
