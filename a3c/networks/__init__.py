"""Actor-critic networks, one file a kind, and the distributions that they parametrise."""

from a3c.networks.actor_critic import ActorCritic
from a3c.networks.book import BookActorCritic
from a3c.networks.convolutional import ConvActorCritic
from a3c.networks.distributions import ActionFamily, Categorical, Distribution
from a3c.networks.fitting import FittingActorCritic
from a3c.networks.memory import Memory
from a3c.networks.mlp import MLPActorCritic

__all__ = [
    "ActionFamily",
    "ActorCritic",
    "BookActorCritic",
    "Categorical",
    "ConvActorCritic",
    "Distribution",
    "FittingActorCritic",
    "MLPActorCritic",
    "Memory",
]
