"""What a run collects, as one value that is handed on whole; and refusals in one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from a3c.batch import BatchShape
from a3c.envs.random_states import derived_seed
from a3c.envs.spaces import Spaces, batch_shape
from a3c.envs.spec import EnvSpec

AUTO: Literal["auto"] = "auto"  # workers by the machine's cores
Workers = int | Literal["auto"] | None


@dataclass(frozen=True)
class Collection:
    """Which environments are stepped, how their steps become updates, and until when.

    The attributes are the flags of `RolloutDataModule`, which explains them.

    Raises:
        ValueError: a value outside its range, or no budget at all.
    """

    env: EnvSpec
    spaces: Spaces
    envs_per_worker: int = 64
    rollouts_per_update: int = 1
    fragment_steps: int = 32
    max_env_steps: int | None = 500_000
    max_episodes_per_worker: int | None = None
    max_lag: int | None = None
    inject_lag: int | None = None
    discard_bad_values: bool = False
    check_bounds: bool = True
    seed: int = 1

    def seed_after(self, env_steps: int) -> int:
        """Return the seed of environments and actions; a resumed run does not repeat its beginning."""
        if env_steps == 0:
            return self.seed
        return derived_seed(self.seed, env_steps)

    def shape(self, length: int, columns: int, state_shape: Sequence[int] = (0,)) -> BatchShape:
        """Return what a batch of so many time steps and columns looks like in memory, of a network's memory as well."""
        return batch_shape(length, columns, self.spaces)._replace(state_shape=state_shape)


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse what is not among the names.

    Raises:
        ValueError: it is not.
    """
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, must be one of {', '.join(allowed)}")


def check_counts(least: int, **counts: int | None) -> None:
    """Refuse numbers below the least, or that are not whole; None stands for no number.

    Raises:
        ValueError: the first such one.
    """
    for name, value in counts.items():
        if value is not None:
            check_whole(name, value, least)


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or one below the least.

    Raises:
        ValueError: the name, what was given, and what is allowed.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):  # whatever the annotation says
        raise ValueError(f"{name}: got {value!r}, must be a whole number, at least {least}")
    if value < least:
        raise ValueError(f"{name}: got {value}, must be at least {least}")


def check_finite(least: float = -math.inf, **numbers: float | None) -> None:
    """Refuse numbers that are not finite, or not above the least; None stands for no number.

    Raises:
        ValueError: the first such one.
    """
    for name, value in numbers.items():
        if value is not None and not (value > least and math.isfinite(value)):
            above = "" if least == -math.inf else f"above {least:g} and "
            raise ValueError(f"{name}: got {value}, must be {above}finite")
