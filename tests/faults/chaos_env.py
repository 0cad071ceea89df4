"""Environments that each go wrong in a way of their own, drawn from the seed of their first reset."""

import gymnasium

from a3c.envs.faulty import FaultyEnv

KINDS = [
    *("none", "raise", "raise_unpicklable", "raise_reset", "kill", "segfault", "exit"),
    *("hang", "hang_holding_gil", "hang_reset", "hang_close", "ignore_sigterm", "stop"),
    *("nan_observation", "inf_observation", "nan_reward", "slow", "children"),
]  # fmt: skip


class ChaoticEnv(FaultyEnv):
    """A faulty environment whose kind and moment are drawn, after a worker's first rollouts."""

    def __init__(self):
        super().__init__("none", seconds=0.002)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            result = super().reset(seed=seed)
            self.kind = KINDS[self.np_random.integers(len(KINDS))]
            self.at_step = int(200 + self.np_random.exponential(10_000))
            return result
        return super().reset(options=options)


gymnasium.register("Chaos-v0", ChaoticEnv, max_episode_steps=100)
