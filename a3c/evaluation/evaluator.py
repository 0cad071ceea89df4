"""Episodes played by a fixed policy, to say how good it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, pstdev
from typing import NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from a3c.batch import Episode
from a3c.envs.random_states import random_states_kept
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.evaluation.episode import playing
from a3c.networks.actor_critic import ActorCritic

MAX_ENVS = 128  # environments stepped side by side in an evaluation


class Evaluation(NamedTuple):
    """Episodes of one policy.

    Attributes:
        episodes: the episodes, ordered by environment; fewer than asked for where an environment that
            was cut cannot begin anew.
        cut: of each, whether the evaluation's own bound on its steps has cut it.
    """

    episodes: list[Episode]
    cut: Sequence[bool] = ()

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
        max_episode_steps: see `EnvSpec.bounded`.

    Attributes:
        bound: most steps of an episode; None where the environment's own limit rules.

    Raises:
        ValueError: fewer than one episode, or no steps.
    """

    def __init__(self, env: EnvSpec, episodes: int, greedy: bool = True, max_episode_steps: int | None = None) -> None:
        if episodes < 1:
            raise ValueError(f"episodes: got {episodes}, must be at least 1")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps: got {max_episode_steps}, must be at least 1")
        self._spec = env
        self._bounded = env.bounded(max_episode_steps)
        self.bound = None if self._bounded is env else self._bounded.time_limit
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
            with random_states_kept(seed):
                self._env = self._make(count, network)
        bound = math.inf if self.bound is None else self.bound
        quota = np.full(count, self._episodes // count) + (np.arange(count) < self._episodes % count)
        played: list[list[tuple[Episode, bool]]] = [[] for _ in range(count)]
        returns, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
        with playing(self._env, network, seed, self._greedy) as steps:
            while quota.any() and not should_stop():
                step = next(steps)
                returns += np.where(step.real, step.own_rewards, 0)
                lengths += step.real
                ended, too_long = step.ended, lengths >= bound
                for column in np.flatnonzero((ended | too_long) & (quota > 0)):
                    episode = Episode(float(returns[column]), int(lengths[column]))
                    played[column].append((episode, bool(too_long[column] and not step.terminated[column])))
                    quota[column] = quota[column] - 1 if ended[column] else 0  # one that took no limit goes on
                returns[ended], lengths[ended] = 0, 0
        if quota.any():
            return None
        episodes, cut = zip(*(each for column in played for each in column), strict=True)
        return Evaluation(list(episodes), list(cut))

    def _make(self, count: int, network: ActorCritic) -> VectorEnv:
        try:
            return self._bounded.make(count, like=network.spaces)
        except EnvError:  # of some native ones, which take no time limit; of whatever else it is raised again
            return self._spec.make(count, like=network.spaces)

    def close(self) -> None:
        """Close the environments. Idempotent."""
        if self._env is not None:
            self._env.close()
            self._env = None
