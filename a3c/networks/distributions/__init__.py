"""Action distributions, a file for each kind of action space."""

from __future__ import annotations

from typing import Any

import gymnasium

from a3c.networks.distributions.base import ActionFamily, Distribution
from a3c.networks.distributions.bernoulli import Bernoulli, BernoulliFamily
from a3c.networks.distributions.categorical import Categorical, CategoricalFamily
from a3c.networks.distributions.composite import Composite, CompositeFamily, DictFamily, TupleFamily
from a3c.networks.distributions.gaussian import Gaussian, GaussianFamily, TanhGaussian, TanhGaussianFamily
from a3c.networks.distributions.multi_categorical import MultiCategorical, MultiCategoricalFamily

__all__ = [
    "FAMILIES",
    "ActionFamily",
    "Bernoulli",
    "BernoulliFamily",
    "Categorical",
    "CategoricalFamily",
    "Composite",
    "CompositeFamily",
    "DictFamily",
    "Distribution",
    "Gaussian",
    "GaussianFamily",
    "MultiCategorical",
    "MultiCategoricalFamily",
    "TanhGaussian",
    "TanhGaussianFamily",
    "TupleFamily",
    "family_for",
]

FAMILIES: list[type[ActionFamily]] = [  # the first that supports a space is its own
    CategoricalFamily,
    MultiCategoricalFamily,
    BernoulliFamily,
    GaussianFamily,
    TanhGaussianFamily,
    DictFamily,
    TupleFamily,
]


def family_for(action_space: gymnasium.Space[Any], squash: bool = False) -> ActionFamily:
    """Return the family of distributions over the actions of a space.

    Args:
        action_space: the environment's.
        squash: bring continuous actions within their bounds by tanh; False clips them.

    Raises:
        ValueError: there is none; says what is supported.
    """
    for kind in FAMILIES:
        if kind.layout.supports(action_space) and kind.squashes in (None, squash):
            return kind(action_space, squash)
    supported = ", ".join(dict.fromkeys(kind.layout.words for kind in FAMILIES))
    given = " ".join(str(action_space).split())  # large arrays come in several lines
    raise ValueError(f"action_space: got {given}, must be one of: {supported}")
