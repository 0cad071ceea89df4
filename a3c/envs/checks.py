"""What an environment must give: its space's shape and dtype, values within its bounds, finite numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from a3c.envs.layouts import Leaf, observation_layout
from a3c.envs.masks import ACTION_MASK, action_choices
from a3c.envs.single import EnvironmentFaultError, check_cast


class EnvCheck:
    """Looks at what a vector of B environments gives: shapes at every step, values once a fragment.

    Args:
        env: the environments.
        check_bounds: look whether observations lie within their space, which some environments of
            Gymnasium do not keep to.

    Attributes:
        shape: that the observations of all environments have in memory.
        dtype: that they have there.
        reward_shape: that their rewards must have.
    """

    def __init__(self, env: VectorEnv, check_bounds: bool = True) -> None:
        layout = observation_layout(env.single_observation_space)
        self.shape, self.dtype = (env.num_envs, *layout.shape), layout.dtype
        self.reward_shape = (env.num_envs,)
        leaves = list(layout.leaves())
        self._leaves = [_LeafCheck(leaf, env.num_envs, check_bounds) for leaf in leaves]
        self._mask = next((leaf for leaf in leaves if leaf.path == ACTION_MASK), None)
        self._choices = [] if self._mask is None else action_choices(env.single_action_space)

    def shapes(self, observation: NDArray[Any], reward: NDArray[Any]) -> None:
        """Refuse what would be broadcast, or lose its meaning, on its way into the shared memory.

        Args:
            observation: of one step, as it is going to lie in memory, should be [B, *shape].
            reward: should be [B].

        Raises:
            EnvironmentFaultError: another shape, or a dtype of another kind.
        """
        check_cast("observations", observation, self.shape, self.dtype)
        if reward.shape != self.reward_shape:
            raise EnvironmentFaultError(f"rewards: got shape {reward.shape}, must be {self.reward_shape}")

    def values(self, observations: NDArray[Any], rewards: NDArray[Any]) -> str | None:
        """Describe what is not finite, and refuse what lies outside its space.

        Infinity is no matter of bounds: whoever discards rollouts with it wants these discarded as well.

        Args:
            observations: as they lie in memory, [T+1, B, *shape].
            rewards: [T, B].

        Returns:
            The field, the first environment, the value and the step in words; None if all are finite.

        Raises:
            EnvironmentFaultError: which environment, where, the value and its bounds.
        """
        wrong = None
        for leaf in self._leaves:
            wrong = wrong or leaf.values(observations)
        return wrong or _not_finite("rewards", rewards)

    def masks(self, observations: NDArray[Any], real: NDArray[np.bool_]) -> None:
        """Refuse action masks, if there are any, that forbid everything where an action is taken.

        Args:
            observations: as they lie in memory, [T+1, B, *shape].
            real: the steps in which an action was taken, [T, B].

        Raises:
            EnvironmentFaultError: which environment, and where.
        """
        if self._mask is None:
            return
        flat, start = self._mask.of(observations[:-1]).reshape(*real.shape, -1) != 0, 0
        for choices in self._choices:
            nothing = real & ~flat[..., start : start + choices].any(-1)
            start += choices
            if nothing.any():
                step, column = (int(number) for number in np.argwhere(nothing)[0])
                raise EnvironmentFaultError(
                    f"{ACTION_MASK}: environment {column} forbade everything in step {step} of the fragment, must "
                    "allow one action where an episode goes on"
                )


class _LeafCheck:
    """Looks at one array of observations of B environments.

    Args:
        leaf: which one.
        columns: number B of environments.
        check_bounds: look whether it lies within its space.
    """

    def __init__(self, leaf: Leaf, columns: int, check_bounds: bool) -> None:
        self._leaf, self._columns = leaf, columns
        self._name = f"observations.{leaf.path}" if leaf.path else "observations"
        self._is_float = np.issubdtype(leaf.layout.dtype, np.floating)
        self._low = self._high = None  # of B observations in a row, [B·n]; None if no finite value could be outside
        if check_bounds and (bounds := leaf.layout.bounds()) is not None:
            self._low, self._high = (np.tile(bound, columns) for bound in bounds)

    def values(self, observations: NDArray[Any]) -> str | None:
        """Describe what is not finite, and refuse what lies outside."""
        values = self._leaf.of(observations)
        if self._is_inside(values):
            return None
        wrong = _not_finite(self._name, values)
        if wrong is None:
            self._refuse_outside(values)
        return wrong

    def _is_inside(self, values: NDArray[Any]) -> bool:
        """Return whether all are finite and within their bounds."""
        if self._low is None or self._high is None:
            return not self._is_float or _seems_finite(values)
        flat = values.reshape(len(values), -1)  # a reduction over few long rows is quick
        lowest, highest = np.minimum.reduce(flat, axis=0), np.maximum.reduce(flat, axis=0)
        inside = (lowest >= self._low) & (highest <= self._high)  # NaN is not
        return bool(np.logical_and.reduce(inside))

    def _refuse_outside(self, values: NDArray[Any]) -> None:
        flat = values.reshape(len(values), -1)
        for bound, outside in ((self._low, np.less), (self._high, np.greater)):
            if bound is None:  # then it was a number too large for a look at all at once
                return
            beyond = outside(flat, bound)
            if beyond.any():
                self._refuse_value(flat, int(beyond.any(axis=0).argmax()), outside, bound)

    def _refuse_value(self, flat: NDArray[Any], place: int, outside: np.ufunc, bound: NDArray[Any]) -> None:
        step = int(outside(flat[:, place], bound[place]).argmax())
        column, index = divmod(place, flat.shape[1] // self._columns)
        side = "at least" if outside is np.less else "at most"
        raise EnvironmentFaultError(
            f"{self._name}: environment {column} gave {flat[step, place]} for number {index} in step {step} of the "
            f"fragment, must be {side} {bound[place]}, as its space says; --data.check_bounds false lets it pass"
        )


def _seems_finite(values: NDArray[Any]) -> bool:
    """Return whether all numbers are finite; of very large ones it says that they are not."""
    return math.isfinite(np.vdot(values, values))  # in a quarter of the time of a look at each


def _not_finite(name: str, values: NDArray[Any]) -> str | None:
    """Describe where the first number is that is not finite, [T, B, *shape]; None if there is none."""
    if _seems_finite(values):
        return None
    finite = np.isfinite(values)
    if finite.all():
        return None
    step, column, *rest = (int(number) for number in np.argwhere(~finite)[0])
    value = values[(step, column, *rest)]
    return f"{name}: environment {column} gave {value} in step {step} of the fragment, must be finite"
