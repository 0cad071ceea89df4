"""A vector environment and a policy, stepped together into rollouts; knows no process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from a3c.batch import Episode, RolloutBatch
from a3c.envs.checks import EnvCheck
from a3c.envs.layouts import action_layout, observation_layout
from a3c.envs.random_states import derived_seed, seed_global_generators
from a3c.envs.single import EnvironmentFaultError
from a3c.envs.spec import EnvSpec
from a3c.envs.state import get_env_state, set_env_state
from a3c.envs.wrappers import OWN_ENDS, OWN_REWARDS
from a3c.networks.actor_critic import ActorCritic
from a3c.networks.policy import Policy
from a3c.rollouts.weights import WeightSource

MAX_BUFFERS = 16  # whose rows a collector keeps at hand
LINEAGE = 2**32  # apart are the ids of environments that were begun anew
LIVES = 2**16  # of those, for each worker that has died
CARRIED_NUMBERS = ("segment", "steps")  # from one fragment to the next
CARRIED_ARRAYS = ("observation", "ended", "episode_returns", "episode_lengths")


class Fragment(NamedTuple):
    """What one call of `Collector.collect` wrote.

    Attributes:
        length: time steps written; below the buffer's only where a fragment ends with its episodes.
        episodes: the episodes that ended within it, in time order.
        is_last: the collector's episode budget is used up.
        discarded: what was wrong with it, if it must not be used; the environments begin anew then.
    """

    length: int
    episodes: list[Episode]
    is_last: bool
    discarded: str | None = None


@dataclass(frozen=True)
class CollectRules:
    """How a collector cuts its fragments, and what it puts up with.

    Attributes:
        end_with_episodes: end a fragment early when all episodes have ended; with one environment
            that is at each episode's end.
        max_episodes: episode budget, or None.
        discard_bad_values: discard a fragment with NaN or infinity in it, instead of raising.
        check_bounds: raise when an observation lies outside its space.
    """

    end_with_episodes: bool = False
    max_episodes: int | None = None
    discard_bad_values: bool = False
    check_bounds: bool = True


class Life(NamedTuple):
    """One of the processes that have a worker's number, one after another.

    Attributes:
        worker: the number, from 0.
        restarts: workers that had it before, and died: each life has other seeds and other identities
            of its environments.
        episodes: those that they have used of the episode budget.
    """

    worker: int = 0
    restarts: int = 0
    episodes: int = 0


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
        rules: how fragments are cut, and what is put up with.
        on_step: called after each time step with the number of those that stand in the fragment.

    Attributes:
        version: version of the weights that act, -1 before the first fragment.
        env_seed: seed of the environments.

    Raises:
        EnvironmentFaultError: the environments give what they must not give.
    """

    def __init__(
        self,
        env: VectorEnv,
        network: ActorCritic,
        weights: WeightSource,
        *,
        seed: int,
        first_env_id: int = 0,
        rules: CollectRules | None = None,
        on_step: Callable[[int], None] = lambda written: None,
    ) -> None:
        self.env = env
        self.network = network
        self.weights = weights
        env_seed, action_seed = np.random.SeedSequence(seed).generate_state(2)
        self._generator = torch.Generator().manual_seed(int(action_seed))
        self._policy = Policy(network, generator=self._generator)
        self._policy.begin_episodes(env.num_envs)
        self.env_seed = int(env_seed) % 2**31
        self._steps = 0  # time steps so far
        self._rules = rules = rules or CollectRules()
        self._check = EnvCheck(env, rules.check_bounds)
        self._pack = observation_layout(env.single_observation_space).pack
        self._reset_action = action_layout(env.single_action_space).some(env.num_envs)
        self._on_step = on_step
        try:
            self._observation = self._pack(env.reset(seed=self.env_seed)[0])
            self._check.shapes(self._observation, np.zeros(env.num_envs))
        except Exception as error:
            error.add_note(f"environment seed {self.env_seed}, in its reset")
            raise
        self._ended = np.zeros(env.num_envs, dtype=np.bool_)
        self._env_ids = torch.arange(first_env_id, first_env_id + env.num_envs)
        self._episodes_left = rules.max_episodes
        self._segment = 0
        self.version = -1
        self._rows_of_buffer: dict[tuple[int, torch.Size], tuple[torch.Tensor, ...]] = {}
        self._episode_returns = np.zeros(env.num_envs)
        self._episode_lengths = np.zeros(env.num_envs, dtype=np.int64)

    @torch.inference_mode()
    def collect(self, out: RolloutBatch) -> Fragment:
        """Pull the newest weights and write one fragment into `out`, [T, B].

        A fragment with NaN or infinity in it is discarded, if that is asked for: it is described,
        but must not be used, and the environments begin anew under new identities.

        Raises:
            TimeoutError: the weights cannot be read.
            EnvironmentFaultError: the environments gave what they must not give.
        """
        try:
            return self._collect(out)
        except Exception as error:
            error.add_note(f"environment seed {self.env_seed}, step {self._steps} of its environments")
            raise

    def _collect(self, out: RolloutBatch) -> Fragment:
        if self.weights.version != self.version:
            self.version = self.weights.pull(self.network)
        episodes = self._step_past_resets()

        np.logical_not(self._ended, out=out.mask[0].numpy())  # first: of an unfinished fragment it is read
        length, own_rewards, own_ends = self._step_through(out)

        ended = (out.terminated[:length] | out.truncated[:length]).numpy()
        mask = out.mask[:length].numpy()
        np.logical_not(ended[:-1], out=mask[1:])
        discarded = self._look_at(out.first(length))
        if discarded is not None:
            self._begin_anew()
            return Fragment(length, [], False, discarded)
        out.policy_versions.fill_(self.version)
        out.env_ids.copy_(self._env_ids)
        out.segment_ids.fill_(self._segment)
        self._segment += 1
        episodes += self._whole_episodes(own_rewards, ended, mask, own_ends)
        if self._episodes_left is not None:
            self._episodes_left = max(0, self._episodes_left - len(episodes))
        return Fragment(length, episodes, self._episodes_left == 0)

    def _look_at(self, fragment: RolloutBatch) -> str | None:
        """Describe what is wrong with a fragment's values, if it is to be discarded for it."""
        observations = fragment.observations.numpy()
        self._check.masks(observations, fragment.mask.numpy())
        wrong = self._check.values(observations, fragment.rewards.numpy())
        if wrong is not None and not self._rules.discard_bad_values:
            raise EnvironmentFaultError(wrong)
        return wrong

    def _begin_anew(self) -> None:
        """Start new episodes in all environments, which count as other ones from now on."""
        self._observation = self._pack(self.env.reset()[0])
        self._policy.begin_episodes(self.env.num_envs)
        self._ended[:] = False
        self._env_ids += LINEAGE
        self._segment = 0
        self._episode_returns[:], self._episode_lengths[:] = 0, 0

    def _step_past_resets(self) -> list[Episode]:
        """Step environments that all wait for their reset; return the episodes that ended meanwhile.

        Of a game that ended for a learner alone, with a life, this is a step like any other.
        """
        episodes: list[Episode] = []
        while self._ended.all():
            observation, reward, terminated, truncated, info = self.env.step(self._reset_action)
            self._observation = self._pack(observation)
            self._policy.restart(self._ended)
            self._ended = terminated | truncated
            own_reward = info.get(OWN_REWARDS, reward)
            if own_reward.any() or self._ended.any():
                no_steps = np.zeros((1, len(reward)), np.bool_)
                own_ends = {0: info[OWN_ENDS]} if OWN_ENDS in info else {}
                episodes += self._whole_episodes(own_reward[None], self._ended[None], no_steps, own_ends)
        return episodes

    def _step_through(self, out: RolloutBatch) -> tuple[int, NDArray[np.float64], dict[int, NDArray[np.bool_]]]:
        """Step until `out` is full.

        Returns:
            The length; the environments' own rewards, [T, B]; and which own episodes ended, [B], of
            the steps where they are others than a learner is told.
        """
        policy, step = self._policy, self.env.step
        choose, for_env = policy.choose, self.network.actions.for_env
        check, on_step, pack = self._check, self._on_step, self._pack
        shape, dtype, reward_shape = check.shape, check.dtype, check.reward_shape
        observations, actions, rewards, terminated, truncated = (field.numpy() for field in out[:5])
        rows = self._rows(out.observations)
        policy.begin_fragment(out.length, out.columns)
        own_rewards = np.zeros(rewards.shape)
        own_ends = {}
        length = out.length
        for t in range(out.length):
            observations[t] = self._observation
            if policy.state is not None:
                out.states[t] = policy.state
            action = choose(rows[t])
            observation, reward, terminated[t], truncated[t], info = step(for_env(action))
            self._observation = observation = pack(observation)
            if policy.state is not None:
                policy.restart(terminated[t - 1] | truncated[t - 1] if t else self._ended)  # this was their reset
            if observation.shape != shape or observation.dtype != dtype or reward.shape != reward_shape:
                check.shapes(observation, reward)  # a call less in each step
            rewards[t], actions[t] = reward, action
            own_rewards[t] = info.get(OWN_REWARDS, reward)
            if OWN_ENDS in info:
                own_ends[t] = info[OWN_ENDS]
            self._steps += 1
            on_step(t + 1)
            if self._rules.end_with_episodes and (terminated[t] | truncated[t]).all():
                length = t + 1
                break
        observations[length] = self._observation
        self._ended = terminated[length - 1] | truncated[length - 1]
        out.behaviour_log_probs[:length] = policy.log_probs(out.actions[:length])
        return length, own_rewards[:length], own_ends

    def _rows(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a buffer's rows; to make them anew for each fragment would take longer than short episodes do."""
        key = (observations.data_ptr(), observations.shape)  # a kept row keeps its memory, so no other has its address
        if key not in self._rows_of_buffer:
            if len(self._rows_of_buffer) == MAX_BUFFERS:
                self._rows_of_buffer.clear()
            self._rows_of_buffer[key] = observations.unbind(0)
        return self._rows_of_buffer[key]

    def _whole_episodes(
        self,
        rewards: NDArray[np.float64],
        ended: NDArray[np.bool_],
        mask: NDArray[np.bool_],
        own_ends: dict[int, NDArray[np.bool_]],
    ) -> list[Episode]:
        """Return the episodes that ended, and carry the sums of the unfinished ones; all arrays [T, B]."""
        steps = mask
        if own_ends:
            ended, told = ended.copy(), ended
            for t, ends in own_ends.items():
                ended[t] = ends
            steps = mask + (told & ~ended).astype(np.int64)  # the next one, which no learner sees, is one of the game
        returns = self._episode_returns + rewards.cumsum(axis=0)
        lengths = self._episode_lengths + steps.cumsum(axis=0)
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

    def state_dict(self) -> dict[str, Any]:
        """Return what a collector that goes on from here needs, but for the weights, as plain values.

        Raises:
            EnvStateError: the environments' state cannot be had.
        """
        return {
            "env": get_env_state(self.env),
            "generator": self._generator.get_state(),
            "env_seed": self.env_seed,
            "env_ids": self._env_ids.clone(),
            "memory": None if self._policy.state is None else self._policy.state.clone(),
            **{name: getattr(self, f"_{name}") for name in CARRIED_NUMBERS},
            **{name: torch.from_numpy(getattr(self, f"_{name}").copy()) for name in CARRIED_ARRAYS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what another one of the same environments gave; the weights are pulled anew.

        Raises:
            EnvStateError: the state is that of other environments.
        """
        set_env_state(self.env, state["env"])
        self._generator.set_state(state["generator"])
        self.env_seed = state["env_seed"]
        self._env_ids = state["env_ids"].clone()
        self._policy.state = None if state["memory"] is None else state["memory"].clone()
        for name in CARRIED_NUMBERS:
            setattr(self, f"_{name}", state[name])
        for name in CARRIED_ARRAYS:
            setattr(self, f"_{name}", state[name].numpy().copy())

    def close(self) -> None:
        """Close the environments."""
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
        rules: see `Collector`.
    """

    env: EnvSpec
    num_envs: int
    network: bytes
    weights: WeightSource
    seed: int
    rules: CollectRules = field(default_factory=CollectRules)

    def build(self, life: Life, on_step: Callable[[int], None] = lambda written: None) -> Collector:
        """Make the environments and the network of one worker, and seed this process's own random generators.

        Args:
            life: whose they are.
            on_step: see `Collector`.
        """
        worker, restarts, episodes = life
        seed = derived_seed(*((self.seed, worker, restarts) if restarts else (self.seed, worker)))
        seed_global_generators(seed)  # first: a constructor may draw
        budget = self.rules.max_episodes
        network: ActorCritic = pickle.loads(self.network)
        return Collector(
            self.env.make(self.num_envs, like=network.spaces, learns=True),
            network,
            self.weights,
            seed=seed,
            first_env_id=worker * self.num_envs + restarts * LIVES * LINEAGE,
            rules=replace(self.rules, max_episodes=None if budget is None else max(1, budget - episodes)),
            on_step=on_step,
        )
