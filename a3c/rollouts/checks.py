"""What an environment must give: its space's shape and dtype, values within its bounds, finite numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray


class EnvironmentFaultError(ValueError):
    """An environment gave what it must not give; to start it anew would not help."""

    fatal = True  # a worker that ends with it is not replaced


class EnvCheck:
    """Looks at what a vector of B environments gives: shapes at every step, values once a fragment.

    Args:
        env: the environments, with a Box of observations.
        check_bounds: look whether observations lie within their space, which some environments of
            Gymnasium do not keep to.

    Attributes:
        shape: that an observation of all environments must have.
        dtype: that it must have.
        reward_shape: that their rewards must have.
    """

    def __init__(self, env: VectorEnv, check_bounds: bool = True) -> None:
        space = env.single_observation_space
        assert isinstance(space, spaces.Box), "other spaces have been refused"
        self._env = env
        self.shape, self.dtype = (env.num_envs, *space.shape), space.dtype
        self.reward_shape = (env.num_envs,)
        self._is_float = np.issubdtype(space.dtype, np.floating)
        self._low, self._high = self._bounds(space, env.num_envs) if check_bounds else (None, None)

    def _bounds(self, space: spaces.Box, columns: int) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Gives the bounds of B observations in a row, [B·n]; None where no value could be outside."""
        least, most = -np.inf, np.inf
        if not self._is_float:
            info: Any = np.iinfo(space.dtype)
            least, most = info.min, info.max
        low = None if (space.low <= least).all() else np.tile(space.low.ravel(), columns)
        high = None if (space.high >= most).all() else np.tile(space.high.ravel(), columns)
        return low, high

    def shapes(self, observation: NDArray[Any], reward: NDArray[Any]) -> None:
        """Refuses what would be broadcast or converted in silence on its way into the shared memory.

        Args:
            observation: of one step, should be [B, *shape].
            reward: should be [B].

        Raises:
            EnvironmentFaultError: another shape or dtype.
        """
        if observation.shape != self.shape or observation.dtype != self.dtype:
            raise EnvironmentFaultError(
                f"observations: got {observation.dtype} {observation.shape}, must be {self.dtype} {self.shape}"
            )
        if reward.shape != self.reward_shape:
            raise EnvironmentFaultError(f"rewards: got shape {reward.shape}, must be {self.reward_shape}")

    def values(self, observations: NDArray[Any], rewards: NDArray[Any]) -> str | None:
        """Says what is not finite, and refuses what lies outside its space or has another dtype.

        Infinity is no matter of bounds: whoever discards rollouts with it wants these discarded as well.

        Args:
            observations: [T+1, B, *shape].
            rewards: [T, B].

        Returns:
            The field, the first environment, the value and the step in words; None if all are finite.

        Raises:
            EnvironmentFaultError: which environment, where, the value and its bounds; or its dtype.
        """
        for column, single in enumerate(getattr(self._env.unwrapped, "_env_obs", ())):  # of Gymnasium's sync vector
            dtype = getattr(single, "dtype", self.dtype)
            if dtype != self.dtype:
                raise EnvironmentFaultError(f"observations: environment {column} gave {dtype}, must be {self.dtype}")
        wrong = _not_finite("observations", observations) if self._is_float else None
        wrong = wrong or _not_finite("rewards", rewards)
        if wrong is None:
            self._refuse_outside(observations)
        return wrong

    def _refuse_outside(self, observations: NDArray[Any]) -> None:
        flat = observations.reshape(len(observations), -1)  # a reduction over few long rows is quick
        for bound, reduction, outside in ((self._low, np.minimum, np.less), (self._high, np.maximum, np.greater)):
            if bound is None:
                continue
            beyond = outside(reduction.reduce(flat, axis=0), bound)
            if beyond.any():
                self._refuse_value(observations, int(beyond.argmax()), outside, bound)

    def _refuse_value(self, observations: NDArray[Any], place: int, outside: np.ufunc, bound: NDArray[Any]) -> None:
        values = observations.reshape(len(observations), -1)[:, place]
        step = int(outside(values, bound[place]).argmax())
        column, index = divmod(place, int(np.prod(self.shape[1:], dtype=int)))
        side = "at least" if outside is np.less else "at most"
        raise EnvironmentFaultError(
            f"observations: environment {column} gave {values[step]} for number {index} in step {step} of the "
            f"fragment, must be {side} {bound[place]}, as its space says; --data.check_bounds false lets it pass"
        )


def _not_finite(name: str, values: NDArray[Any]) -> str | None:
    """Says where the first number is that is not finite, [T, B, *shape]; None if there is none."""
    if math.isfinite(np.vdot(values, values)):  # a quarter of the time of a look at each number; large ones overflow
        return None
    finite = np.isfinite(values)
    if finite.all():
        return None
    step, column, *rest = (int(number) for number in np.argwhere(~finite)[0])
    value = values[(step, column, *rest)]
    return f"{name}: environment {column} gave {value} in step {step} of the fragment, must be finite"
