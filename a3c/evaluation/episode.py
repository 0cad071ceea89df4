"""Environments stepped by a fixed policy: what an evaluation counts, a video shows and a picture is drawn from."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from a3c.envs.layouts import observation_layout
from a3c.envs.random_states import random_states_kept
from a3c.envs.spec import MAX_EPISODE_STEPS, suited
from a3c.envs.wrappers import OWN_REWARDS
from a3c.networks.actor_critic import ActorCritic, evaluating
from a3c.networks.policy import Policy


class Step(NamedTuple):
    """One step of B environments.

    Attributes:
        observations: the states before it, as a batch holds them, [B, *observation_shape].
        actions: those taken, as a batch holds them, [B, *action_shape].
        rewards: what a learner is given for it, unscaled, [B].
        own_rewards: the environments' own, beneath any reward wrapper, [B].
        terminated: it ended an episode in a terminal state, [B].
        truncated: it reached a time limit, [B].
        real: it is a transition; False where an environment was reset after an episode's end, [B].
        following: the states after it, as a batch holds them, [B, *observation_shape].
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    own_rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    real: NDArray[np.bool_]
    following: NDArray[Any]

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Whether an episode ended with it, [B]."""
        return self.terminated | self.truncated


@contextmanager
def playing(env: VectorEnv, network: ActorCritic, seed: int, greedy: bool = True) -> Iterator[Generator[Step]]:
    """Begin episodes in environments, and yield their steps, one episode after the other, without an end.

    Meanwhile the network is in evaluation mode, and this process's own random generators, from which an
    environment may draw, begin with the seed; both are put back afterwards.

    Args:
        env: the environments.
        network: the policy.
        seed: of the environments and, if sampled, of the actions.
        greedy: take the most probable actions; False samples.

    Raises:
        EnvError: the policy was made for other spaces.
    """
    env = suited(network.spaces, env)
    with random_states_kept(seed), evaluating(network):
        observations, _ = env.reset(seed=seed % 2**31)
        with closing(_steps(env, network, observations, seed, greedy)) as steps:
            yield steps


@torch.inference_mode()
def _steps(
    env: VectorEnv, network: ActorCritic, observations: NDArray[Any], seed: int, greedy: bool
) -> Generator[Step]:
    policy = Policy(network, greedy, torch.Generator().manual_seed(seed))
    policy.begin_episodes(env.num_envs)
    real = np.ones(env.num_envs, dtype=np.bool_)
    layout = observation_layout(network.observation_space)
    observations = np.array(layout.pack(observations), layout.dtype)  # which a native environment may not keep to
    while True:
        actions = policy.choose(torch.from_numpy(observations))
        following, rewards, terminated, truncated, info = env.step(network.actions.for_env(actions))
        policy.restart(~real)
        following = np.array(layout.pack(following), layout.dtype)
        own_rewards = info.get(OWN_REWARDS, rewards)
        step = Step(observations, actions, rewards, own_rewards, terminated, truncated, real, following)
        yield step
        observations, real = following, ~step.ended


def first_episode(steps: Iterable[Step], most: int = MAX_EPISODE_STEPS) -> Iterator[Step]:
    """Yield the steps of a single environment up to its first episode's end, at most so many."""
    for step in islice(steps, most):
        yield step
        if step.ended[0]:
            return
