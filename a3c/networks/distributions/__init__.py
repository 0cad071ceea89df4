"""Action distributions, a class and a file for each kind of action space."""

from __future__ import annotations

from typing import Any

import gymnasium

from a3c.networks.distributions.base import Distribution
from a3c.networks.distributions.categorical import Categorical

__all__ = ["DISTRIBUTIONS", "Categorical", "Distribution", "distribution_for"]

DISTRIBUTIONS: tuple[type[Distribution], ...] = (Categorical,)  # the first that supports a space is its own


def distribution_for(action_space: gymnasium.Space[Any]) -> type[Distribution]:
    """Return the class of distributions over the actions of a space.

    Raises:
        ValueError: there is none; says what is supported.
    """
    for kind in DISTRIBUTIONS:
        if kind.layout.supports(action_space):
            return kind
    supported = ", ".join(kind.layout.words for kind in DISTRIBUTIONS)
    raise ValueError(f"action_space: got {action_space}, must be one of: {supported}")
