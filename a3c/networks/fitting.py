"""A network that fits an environment, for who does not want to choose one."""

from __future__ import annotations

from typing import Any

import gymnasium

from a3c.networks.actor_critic import ActorCritic
from a3c.networks.convolutional import ConvActorCritic, images_of
from a3c.networks.mlp import MLPActorCritic
from a3c.networks.torsos import A3CTorso, ImageFormat


class FittingActorCritic(ActorCritic):
    """Whichever network of this project fits an environment's spaces: building it builds that one.

    Where there is an image among the observations that is a `ConvActorCritic`, with the torso of A3C's paper or, where
    an image has too few pixels for that, the small one; and else an `MLPActorCritic` with tanh. A run's checkpoints
    name what was built.

    Args:
        observation_space: any that is supported.
        action_space: any that is supported.
        memory: "lstm" or "gru" above the features; None for none.
        memory_size: width of the memory, ≥ 1.
        squash: bring continuous actions within their bounds by tanh; False clips them.
        initial_std: standard deviation that continuous actions begin with, in half the width of their bounds, > 0.
    """

    def __new__(  # Python calls no __init__ of this class, as what is built is not of it
        cls,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        memory: str | None = None,
        memory_size: int = 128,
        squash: bool = False,
        initial_std: float = 1.0,
    ) -> Any:
        spaces = observation_space, action_space
        images = [ImageFormat.of(image) for image in images_of(observation_space)]
        if not images:
            return MLPActorCritic(
                *spaces, (64, 64), "tanh", False, True, memory, memory_size, squash, True, initial_std
            )
        is_small = any(min(image.height, image.width) < A3CTorso.smallest_side() for image in images)
        torso = "small" if is_small else "a3c"
        return ConvActorCritic(*spaces, torso, None, None, memory, memory_size, squash, True, initial_std)
