"""One episode of a fixed policy, step by step: what a video shows and a picture of beliefs is drawn from."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from a3c.envs.wrappers import OWN_REWARDS
from a3c.networks.actor_critic import ActorCritic


class Moment(NamedTuple):
    """One step of an episode, and what the network thought before it.

    Attributes:
        probabilities: π(a|s) of every action, [A], float32.
        value: the critic's value of the state before the step, in the units that it was trained in.
        action: the action taken.
        reward: what a learner is given for it, unscaled.
        own_reward: the environment's own, beneath any reward wrapper.
        terminated: the step ended the episode in a terminal state.
        truncated: the step reached the time limit.
        observation: the state after the step, [1, *shape].
    """

    probabilities: NDArray[np.float32]
    value: float
    action: int
    reward: float
    own_reward: float
    terminated: bool
    truncated: bool
    observation: NDArray[Any]


def begin(env: VectorEnv, seed: int) -> NDArray[Any]:
    """Begin an episode, and return its first observation, [1, *shape]."""
    observation, _ = env.reset(seed=seed % 2**31)
    return np.asarray(observation)


@torch.inference_mode()
def play(
    env: VectorEnv, network: ActorCritic, observation: NDArray[Any], greedy: bool = True, seed: int = 0
) -> Generator[Moment]:
    """Play an episode to its end, as far as it is asked for.

    Args:
        env: one environment, that `begin` has begun an episode of.
        network: the policy and its critic, in evaluation mode.
        observation: what `begin` gave.
        greedy: take the most probable action; False samples.
        seed: of sampled actions.
    """
    generator = torch.Generator().manual_seed(seed)
    ended = False
    while not ended:
        parameters, values = network(torch.from_numpy(observation))
        policy = network.distribution(parameters)
        action = policy.mode() if greedy else policy.sample(policy.noise(parameters.shape, generator))
        observation, reward, terminated, truncated, info = env.step(action.numpy())
        ended = bool(terminated[0] or truncated[0])
        yield Moment(
            policy.log_probabilities[0].exp().numpy(),
            float(values[0]),
            int(action[0]),
            float(reward[0]),
            float(info.get(OWN_REWARDS, reward)[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            observation,
        )
