"""A vector environment and a policy, stepped together into rollouts; knows no process."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from a3c.batch import Episode, RolloutBatch
from a3c.envs import OWN_REWARDS, EnvSpec
from a3c.networks.actor_critic import ActorCritic
from a3c.rollouts.weights import WeightSource

MAX_BUFFERS = 16  # whose rows a collector keeps at hand


class Fragment(NamedTuple):
    """What one call of `Collector.collect` wrote.

    Attributes:
        length: time steps written; below the buffer's only where a fragment ends with its episodes.
        episodes: the episodes that ended within it, in time order.
        is_last: the collector's episode budget is used up.
    """

    length: int
    episodes: list[Episode]
    is_last: bool


class Collector:
    """Steps B environments with one batched forward a step.

    A pending reset is carried from one fragment to the next. Where every environment waits for
    its reset the fragment starts after it, so that none consists of reset steps alone.

    Args:
        env: a vector environment in Gymnasium's NEXT_STEP autoreset mode.
        network: local copy of the policy; overwritten by every pull.
        weights: where the newest parameters come from, before each fragment.
        seed: of the environments and of the actions.
        first_env_id: identity of column 0's environment in the run; the others count on from it.
        end_with_episodes: end a fragment early when all episodes have ended; with one environment
            that is at each episode's end.
        max_episodes: episode budget, or None.

    Attributes:
        version: version of the weights that act, -1 before the first fragment.
    """

    def __init__(
        self,
        env: VectorEnv,
        network: ActorCritic,
        weights: WeightSource,
        *,
        seed: int,
        first_env_id: int = 0,
        end_with_episodes: bool = False,
        max_episodes: int | None = None,
    ) -> None:
        self.env = env
        self.network = network
        self.weights = weights
        env_seed, action_seed = np.random.SeedSequence(seed).generate_state(2)
        self._generator = torch.Generator().manual_seed(int(action_seed))
        self._observation, _ = env.reset(seed=int(env_seed) % 2**31)
        self._ended = np.zeros(env.num_envs, dtype=np.bool_)
        self._env_ids = torch.arange(first_env_id, first_env_id + env.num_envs)
        self._end_with_episodes = end_with_episodes
        self._episodes_left = max_episodes
        self._segment = 0
        self.version = -1
        self._rows_of_buffer: dict[tuple[int, torch.Size], tuple[torch.Tensor, ...]] = {}
        self._episode_returns = np.zeros(env.num_envs)
        self._episode_lengths = np.zeros(env.num_envs, dtype=np.int64)

    @torch.inference_mode()
    def collect(self, out: RolloutBatch) -> Fragment:
        """Pulls the newest weights and writes one fragment into `out`, [T, B].

        Raises:
            TimeoutError: the weights cannot be read.
        """
        if self.weights.version != self.version:
            self.version = self.weights.pull(self.network)
        if self._ended.all():
            self._observation, *_ = self.env.step(np.zeros(self.env.num_envs, dtype=np.int64))
            self._ended[:] = False

        carried_reset = self._ended
        length, own_rewards = self._step_through(out)

        ended = (out.terminated[:length] | out.truncated[:length]).numpy()
        mask = out.mask[:length].numpy()
        np.logical_not(carried_reset, out=mask[0])
        np.logical_not(ended[:-1], out=mask[1:])
        out.policy_versions.fill_(self.version)
        out.env_ids.copy_(self._env_ids)
        out.segment_ids.fill_(self._segment)
        self._segment += 1
        episodes = self._whole_episodes(own_rewards, ended, mask)
        if self._episodes_left is not None:
            self._episodes_left = max(0, self._episodes_left - len(episodes))
        return Fragment(length, episodes, self._episodes_left == 0)

    def _step_through(self, out: RolloutBatch) -> tuple[int, NDArray[np.float64]]:
        """Steps until `out` is full; gives the length and the environments' own rewards, [T, B]."""
        distribution, actor, step = self.network.distribution, self.network.actor, self.env.step
        observations, actions, rewards, terminated, truncated = (field.numpy() for field in out[:5])
        rows = self._rows(out.observations)
        parameters = [actor(self._write_observation(observations, rows, 0))]
        noise = distribution.noise((out.length, *parameters[0].shape), self._generator)
        own_rewards = np.zeros(actions.shape)
        length = out.length
        for t in range(out.length):
            if t > 0:
                parameters.append(actor(self._write_observation(observations, rows, t)))
            action = distribution(parameters[t]).sample(noise[t]).numpy()
            self._observation, rewards[t], terminated[t], truncated[t], info = step(action)
            actions[t] = action
            own_rewards[t] = info.get(OWN_REWARDS, rewards[t])
            if self._end_with_episodes and (terminated[t] | truncated[t]).all():
                length = t + 1
                break
        observations[length] = self._observation
        self._ended = terminated[length - 1] | truncated[length - 1]
        policy = distribution(torch.stack(parameters))
        out.behaviour_log_probs[:length] = policy.log_prob(out.actions[:length])
        return length, own_rewards[:length]

    def _rows(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gives a buffer's rows; to make them anew for each fragment would take longer than short episodes do."""
        key = (observations.data_ptr(), observations.shape)  # a kept row keeps its memory, so no other has its address
        if key not in self._rows_of_buffer:
            if len(self._rows_of_buffer) == MAX_BUFFERS:
                self._rows_of_buffer.clear()
            self._rows_of_buffer[key] = observations.unbind(0)
        return self._rows_of_buffer[key]

    def _write_observation(
        self, observations: NDArray[np.generic], rows: tuple[torch.Tensor, ...], t: int
    ) -> torch.Tensor:
        observations[t] = self._observation
        return rows[t]

    def _whole_episodes(
        self, rewards: NDArray[np.float64], ended: NDArray[np.bool_], mask: NDArray[np.bool_]
    ) -> list[Episode]:
        """Gives the episodes that ended, and carries the sums of the unfinished ones."""
        returns = self._episode_returns + rewards.cumsum(axis=0)
        lengths = self._episode_lengths + mask.cumsum(axis=0)
        times, columns = np.nonzero(ended)
        episodes = []
        return_before = np.zeros(len(self._episode_returns))  # sums up to each column's last end
        length_before = np.zeros(len(self._episode_lengths), dtype=np.int64)
        for t, column in zip(times.tolist(), columns.tolist(), strict=True):
            episode_return, length = returns[t, column], lengths[t, column]
            episodes.append(Episode(float(episode_return - return_before[column]), int(length - length_before[column])))
            return_before[column], length_before[column] = episode_return, length
        self._episode_returns = returns[-1] - return_before
        self._episode_lengths = lengths[-1] - length_before
        return episodes

    def close(self) -> None:
        """Closes the environments."""
        self.env.close()


@dataclass(frozen=True)
class CollectorSpec:
    """All that a process needs to build its own collector; pickles small.

    Attributes:
        env: which environment.
        num_envs: environments of one collector.
        network: the pickled network; bytes, so that no tensor of it is shared by handle.
        weights: where its parameters come from.
        seed: the run's seed; each worker derives its own.
        end_with_episodes: see `Collector`.
        max_episodes: see `Collector`.
    """

    env: EnvSpec
    num_envs: int
    network: bytes
    weights: WeightSource
    seed: int
    end_with_episodes: bool = False
    max_episodes: int | None = None

    def build(self, worker: int) -> Collector:
        """Makes the environments and the network of one worker."""
        seed = int(np.random.SeedSequence((self.seed, worker)).generate_state(1)[0])
        return Collector(
            self.env.make(self.num_envs),
            pickle.loads(self.network),
            self.weights,
            seed=seed,
            first_env_id=worker * self.num_envs,
            end_with_episodes=self.end_with_episodes,
            max_episodes=self.max_episodes,
        )
