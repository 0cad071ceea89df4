"""Random generators: seeds derived from a run's, and states as plain values, which a checkpoint may hold."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derived_seed(*words: int) -> int:
    """Return a seed of 32 bits that depends on all of these whole numbers ≥ 0, and on their order."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def seed_global_generators(seed: int) -> None:
    """Seed this process's own generators, from which environments, wrappers and dropout may draw.

    Python's, NumPy's and torch's on the CPU; each with a seed of its own, and none with that of the
    environments or the actions of a collector that has the same seed.
    """
    python, numpy, pytorch = (int(word) for word in np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(3))
    random.seed(python)
    np.random.seed(numpy)
    torch.default_generator.manual_seed(pytorch)


def generator_state(generator: np.random.Generator) -> str:
    """Return a NumPy generator's state as JSON: it has integers of 128 bits."""
    return _to_json(generator.bit_generator.state)


def set_generator_state(generator: np.random.Generator, state: str) -> None:
    """Put a generator into a state, in place: whatever else draws from it goes on from there too.

    Raises:
        ValueError: the state is that of another kind of generator.
    """
    generator.bit_generator.state = json.loads(state)


def global_states() -> dict[str, Any]:
    """Return the states of this process's own generators: Python's, NumPy's and torch's on the CPU."""
    return {
        "python": _to_json(random.getstate()),
        "numpy": _to_json(np.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
    }


def set_global_states(states: dict[str, Any]) -> None:
    """Put this process's own generators into the states that `global_states` gave."""
    version, words, gauss = json.loads(states["python"])
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(json.loads(states["numpy"]))
    torch.set_rng_state(states["torch"])


@contextmanager
def random_states_kept(seed: int | None = None) -> Iterator[None]:
    """Have training go on as if nothing had been drawn from this process's own generators.

    Args:
        seed: with which they begin inside; None leaves them as they are.
    """
    states = global_states()
    try:
        if seed is not None:
            seed_global_generators(seed)
        yield
    finally:
        set_global_states(states)


def _to_json(state: Any) -> str:
    return json.dumps(state, default=lambda array: array.tolist())
