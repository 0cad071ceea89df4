"""What arguments may be: refusals that name the argument, what was given and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse what is not among the names.

    Raises:
        ValueError: it is not.
    """
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, must be one of {', '.join(allowed)}")


def check_counts(least: int, **counts: int | None) -> None:
    """Refuse numbers below the least; None stands for no number.

    Raises:
        ValueError: the first one that is below.
    """
    for name, value in counts.items():
        if value is not None and value < least:
            raise ValueError(f"{name}: got {value}, must be at least {least}")


def check_seconds(**seconds: float) -> None:
    """Refuse times that are not above 0 and finite.

    Raises:
        ValueError: the first such one.
    """
    for name, value in seconds.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: got {value}, must be above 0 and finite")


def check_lags(mode: str, max_lag: int | None, inject_lag: int | None) -> None:
    """Refuse bounds of staleness that a mode does not know, or that leave nothing to train on.

    Raises:
        ValueError: which one, and why.
    """
    check_counts(0, max_lag=max_lag, inject_lag=inject_lag)
    if inject_lag is None:
        return
    if mode == "hogwild":
        raise ValueError(
            f"inject_lag: got {inject_lag} in mode hogwild, must be none there: a worker learns from its own "
            "rollouts at once; take async or sync"
        )
    if max_lag is not None and max_lag < inject_lag:
        raise ValueError(f"max_lag: got {max_lag}, must be at least inject_lag, {inject_lag}: nothing is trained on")
