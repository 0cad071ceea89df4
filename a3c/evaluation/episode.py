"""Environments stepped by a fixed policy: what an evaluation counts, a video shows and a picture is drawn from."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from a3c.envs.spec import check_agreement
from a3c.envs.wrappers import OWN_REWARDS
from a3c.networks.actor_critic import ActorCritic
from a3c.networks.policy import Policy


class Step(NamedTuple):
    """One step of B environments.

    Attributes:
        observations: the states before it, [B, *observation_shape].
        actions: those taken, as the environments take them, [B, *action_shape].
        rewards: what a learner is given for it, unscaled, [B].
        own_rewards: the environments' own, beneath any reward wrapper, [B].
        terminated: it ended an episode in a terminal state, [B].
        truncated: it reached a time limit, [B].
        real: it is a transition; False where an environment was reset after an episode's end, [B].
        following: the states after it, [B, *observation_shape].
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


def begin(env: VectorEnv, seed: int) -> NDArray[Any]:
    """Begin episodes, and return their first observations, [B, *observation_shape]."""
    observations, _ = env.reset(seed=seed % 2**31)
    return np.array(observations)


@torch.inference_mode()
def play(
    env: VectorEnv, network: ActorCritic, observations: NDArray[Any], greedy: bool = True, seed: int = 0
) -> Generator[Step]:
    """Play one episode after the other, as long as steps are asked for.

    Args:
        env: the environments, in which `begin` has begun episodes.
        network: the policy, in evaluation mode.
        observations: what `begin` gave.
        greedy: take the most probable actions; False samples.
        seed: of sampled actions.

    Raises:
        EnvError: the policy was made for other spaces.
    """
    check_agreement(network.spaces, env)
    policy = Policy(network, greedy, torch.Generator().manual_seed(seed))
    policy.begin_episodes(env.num_envs)
    real = np.ones(env.num_envs, dtype=np.bool_)
    while True:
        actions = policy.act(observations)
        following, rewards, terminated, truncated, info = env.step(actions)
        policy.restart(~real)
        step = Step(
            observations, actions, rewards, info.get(OWN_REWARDS, rewards), terminated, truncated, real, following
        )
        yield step
        observations, real = np.array(following), ~step.ended


def play_one(
    env: VectorEnv, network: ActorCritic, observations: NDArray[Any], greedy: bool = True, seed: int = 0
) -> Generator[Step]:
    """Play the first episode of a single environment to its end; arguments as those of `play`."""
    for step in play(env, network, observations, greedy, seed):
        yield step
        if step.ended[0]:
            return
