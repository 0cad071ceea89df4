"""Episodes played by a fixed policy, to say how good it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from statistics import fmean, pstdev
from typing import NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from a3c.batch import Episode
from a3c.envs.spec import EnvSpec
from a3c.evaluation.episode import begin, play
from a3c.networks.actor_critic import ActorCritic, evaluating

MAX_ENVS = 128  # environments stepped side by side in an evaluation


class Evaluation(NamedTuple):
    """Episodes of one policy.

    Attributes:
        episodes: the episodes, ordered by environment.
    """

    episodes: list[Episode]

    @property
    def return_mean(self) -> float:
        """Mean episode return."""
        return fmean(episode.episode_return for episode in self.episodes)

    @property
    def return_std(self) -> float:
        """Standard deviation of the episode returns."""
        return pstdev(episode.episode_return for episode in self.episodes)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean return."""
        return self.return_std / math.sqrt(len(self.episodes))

    @property
    def length_mean(self) -> float:
        """Mean episode length in steps."""
        return fmean(episode.length for episode in self.episodes)


class Evaluator:
    """Plays episodes on environments of its own, made once.

    Args:
        env: which environment.
        episodes: episodes of one evaluation, ≥ 1.
        greedy: take the most probable action; False samples.

    Raises:
        ValueError: fewer than one episode.
    """

    def __init__(self, env: EnvSpec, episodes: int, greedy: bool = True) -> None:
        if episodes < 1:
            raise ValueError(f"episodes: got {episodes}, must be at least 1")
        self._spec = env
        self._episodes = episodes
        self._greedy = greedy
        self._env: VectorEnv | None = None

    def __call__(
        self, network: ActorCritic, seed: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Play the episodes, with the environments seeded anew.

        Every environment plays a number of episodes that is fixed beforehand: to take those that
        end first would favour short ones.

        Args:
            network: the policy.
            seed: of environments and, if sampled, of actions.
            should_stop: asked at every step.

        Returns:
            The episodes; None if it was stopped.

        Raises:
            EnvError: the environments cannot be made, or are not those that the policy was made for.
        """
        count = min(self._episodes, MAX_ENVS)
        if self._env is None:
            self._env = self._spec.make(count, like=network.spaces)
        quota = np.full(count, self._episodes // count) + (np.arange(count) < self._episodes % count)
        played: list[list[Episode]] = [[] for _ in range(count)]
        returns, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
        steps = play(self._env, network, begin(self._env, seed), self._greedy, seed)
        with evaluating(network), closing(steps):
            while quota.any() and not should_stop():
                step = next(steps)
                ended = step.ended
                returns += np.where(step.real, step.own_rewards, 0)
                lengths += step.real
                for column in np.flatnonzero(ended & (quota > 0)):
                    played[column].append(Episode(float(returns[column]), int(lengths[column])))
                    quota[column] -= 1
                returns[ended], lengths[ended] = 0, 0
        if quota.any():
            return None
        return Evaluation([episode for column in played for episode in column])

    def close(self) -> None:
        """Close the environments. Idempotent."""
        if self._env is not None:
            self._env.close()
            self._env = None
