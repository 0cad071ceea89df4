"""What stands around each single environment of several: signs of life, and results as its spaces say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from a3c.envs.layouts import OBSERVATIONS, Layout, RecordLayout, observation_layout
from a3c.envs.random_states import derived_seed
from a3c.envs.watchdog import sign_of_life


class EnvironmentFaultError(ValueError):
    """An environment gave what it must not give; to start it anew would not help."""

    fatal = True  # a worker that ends with it is not replaced


def check_cast(field: str, given: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """Refuse what would be broadcast, or lose its meaning, on its way into memory.

    Returns:
        What is cast, in words; None if nothing is.

    Raises:
        EnvironmentFaultError: another shape, or a dtype of another kind.
    """
    if given.shape == shape and given.dtype == dtype:
        return None
    if given.shape != shape or not np.can_cast(given.dtype, dtype, "same_kind"):
        raise EnvironmentFaultError(f"{field}: got {given.dtype} {given.shape}, must be {dtype} {shape}")
    return f"{field}: {given.dtype} {given.shape}, cast to {dtype}"


class Attendant:
    """Takes care of the environments of one vector, one after another as they are made.

    Each constructor, reset and step is a sign of life by itself: those of all may take long. A reward
    of shape (1,), and an observation of another dtype that loses no meaning, are cast. Its spaces, which
    may be drawn from (`action_space.sample()`), are seeded with it. It works on the object: a wrapper more
    would cost a quick environment as much again.

    Attributes:
        casts: what has been cast, in words.
        made: environments around which it stands.
    """

    def __init__(self) -> None:
        self.casts: set[str] = set()
        self.made = 0

    def __call__(self, env: Any) -> Any:
        """Put itself around a new environment, and return it."""
        sign_of_life()
        number, self.made = self.made, self.made + 1
        supported = any(layout.supports(env.observation_space) for layout in OBSERVATIONS)
        if not supported:  # which is said once all are made
            return env
        layout = observation_layout(env.observation_space)
        shape, dtype, reset, step = layout.shape, layout.dtype, env.reset, env.step
        field = f"observations of environment {number}"

        def cast(observation: Any) -> Any:
            if type(observation) is np.ndarray and observation.dtype == dtype and observation.shape == shape:
                return observation
            return self._cast_parts(field, observation, layout)

        def attended_reset(**kwargs: Any) -> Any:
            if (seed := kwargs.get("seed")) is not None:  # with which an environment seeds its own, and nobody theirs
                for place, space in enumerate((env.action_space, env.observation_space)):
                    space.seed(derived_seed(seed, place))  # of a Dict or Tuple, its parts' as well
            result = reset(**kwargs)
            sign_of_life()
            if type(result) is not tuple or len(result) != 2:  # Gym's old API, of which the vector has the say
                return result
            observation, info = result
            return cast(observation), info

        def attended_step(action: Any) -> Any:
            result = step(action)
            sign_of_life()
            if len(result) != 5:
                return result
            observation, *others, info = result
            for place, value in enumerate(others):
                if getattr(value, "ndim", 0):
                    name = ("rewards", "terminated", "truncated")[place]
                    kind = np.dtype(np.bool_ if place else np.float64)
                    others[place] = self._cast(f"{name} of environment {number}", np.ravel(value), (1,), kind)[0]
            return cast(observation), *others, info

        env.reset, env.step = attended_reset, attended_step
        return env

    def _cast_parts(self, field: str, value: Any, layout: Layout) -> Any:
        """Return a value as its space says, cast part by part."""
        if not isinstance(layout, RecordLayout):
            return self._cast(field, value, layout.shape, layout.dtype)
        try:
            values = layout.values(value)
        except (KeyError, TypeError, IndexError) as error:
            raise EnvironmentFaultError(f"{field}: got {value!r}, must have {', '.join(layout.parts)}") from error
        if len(values) != len(layout.parts):
            raise EnvironmentFaultError(f"{field}: got {len(values)} parts, must be {len(layout.parts)}")
        return layout.joined(
            [
                self._cast_parts(f"{field}.{key}", each, part)
                for (key, part), each in zip(layout.parts.items(), values, strict=True)
            ]
        )

    def _cast(self, field: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        array = np.asarray(value)
        if (words := check_cast(field, array, shape, dtype)) is not None:
            self.casts.add(words)
        return array.astype(dtype)
