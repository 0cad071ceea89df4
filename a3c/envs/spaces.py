"""The two spaces of an environment together: whether they are supported, agree, and can be described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from a3c.batch import BatchShape
from a3c.envs.layouts import ACTIONS, OBSERVATIONS, Space, action_layout, observation_layout

_DESCRIBED = {layout.kind: layout for layout in OBSERVATIONS}
KINDS = tuple(_DESCRIBED)  # that a description can hold


class Spaces(NamedTuple):
    """The spaces of one environment, or those that a network was made for."""

    observation: Space
    action: Space

    @property
    def words(self) -> str:
        """What they are, in one line."""
        return " ".join(f"observations {self.observation} and actions {self.action}".split())


def are_supported(given: Spaces) -> bool:
    """Return whether both spaces of an environment are supported."""
    return any(layout.supports(given.observation) for layout in OBSERVATIONS) and any(
        layout.supports(given.action) for layout in ACTIONS
    )


def agree(one: Spaces, other: Spaces) -> bool:
    """Return whether a policy for the one can act in the other: bounds of observations may differ."""
    ours, theirs = (
        [(leaf.path, leaf.layout.shape, leaf.layout.dtype) for leaf in observation_layout(each.observation).leaves()]
        for each in (one, other)
    )
    return ours == theirs and one.action == other.action


def batch_shape(length: int, columns: int, given: Spaces) -> BatchShape:
    """Return the memory of a batch of T steps and B columns of these spaces."""
    observation, action = observation_layout(given.observation), action_layout(given.action)
    return BatchShape(length, columns, observation.shape, observation.torch_dtype, action.shape, action.torch_dtype)


def space_arguments(space: Space) -> dict[str, Any]:
    """Return the arguments from which `build_space` makes a space of one of `KINDS` again.

    Raises:
        KeyError: it is of another kind.
    """
    return _DESCRIBED[type(space)](space).arguments()


def build_space(kind: type[Space], arguments: Mapping[str, Any]) -> Space:
    """Build a space of one of `KINDS` from its arguments."""
    return _DESCRIBED[kind].build(arguments)
