"""Action distributions, a class for each kind of action space."""

from a3c.networks.distributions.categorical import Categorical

__all__ = ["Categorical"]
