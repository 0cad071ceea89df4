"""The state of a vector environment as plain values, which a checkpoint may hold, and back.

Gymnasium has no way to ask an environment for its state. Known here are its classic-control
and toy-text environments, native CartPole among them, its wrappers, and every environment or wrapper whose class
has both methods of this protocol:

    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...

A state may be a number, a string, None, an array, a tensor, a `numpy.random.Generator`, or a list,
tuple or dict of such; `set_state` is given the same back, after a `reset`. It speaks of the object's
own part alone: not of what a wrapper wraps, and not of `np_random` and the spaces' generators, which are kept anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import attrgetter
from typing import Any, Protocol, TypeGuard

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch import Tensor

from a3c.envs.random_states import generator_state, set_generator_state
from a3c.envs.wrappers import layers_of

# What objects of Gymnasium's own classes hold that their constructor does not say. By name, since
# importing them all would cost a worker time; and of exactly these classes, since a child may hold more.
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gymnasium.envs.classic_control.cartpole.CartPoleVectorEnv": ("state", "steps", "prev_done"),
    "gymnasium.envs.classic_control.cartpole.CartPoleEnv": ("state", "steps_beyond_terminated"),
    "gymnasium.envs.classic_control.acrobot.AcrobotEnv": ("state",),
    "gymnasium.envs.classic_control.mountain_car.MountainCarEnv": ("state",),
    "gymnasium.envs.classic_control.continuous_mountain_car.Continuous_MountainCarEnv": ("state",),
    "gymnasium.envs.classic_control.pendulum.PendulumEnv": ("state", "last_u"),
    "gymnasium.envs.toy_text.frozen_lake.FrozenLakeEnv": ("s", "lastaction"),
    "gymnasium.envs.toy_text.cliffwalking.CliffWalkingEnv": ("s", "lastaction"),
    "gymnasium.envs.toy_text.taxi.TaxiEnv": ("s", "lastaction", "fickle_step"),
    "gymnasium.envs.toy_text.blackjack.BlackjackEnv": ("dealer", "player"),
    "gymnasium.vector.sync_vector_env.SyncVectorEnv": ("_autoreset_envs",),  # all else is overwritten by a step
    "gymnasium.wrappers.common.TimeLimit": ("_elapsed_steps",),
    "gymnasium.wrappers.common.OrderEnforcing": (),  # only that there was a reset
    "gymnasium.wrappers.common.PassiveEnvChecker": (),  # only what it has checked
    "gymnasium.wrappers.stateful_observation.NormalizeObservation": (
        "obs_rms.mean",
        "obs_rms.var",
        "obs_rms.count",
        "_update_running_mean",
    ),
    "gymnasium.wrappers.stateful_reward.NormalizeReward": (
        "return_rms.mean",
        "return_rms.var",
        "return_rms.count",
        "discounted_reward",
        "_update_running_mean",
    ),
    "a3c.envs.wrappers.OwnReward": (),
    "a3c.envs.wrappers.OwnRewards": (),
    "a3c.envs.wrappers.TerminalReward": (),
    "a3c.envs.wrappers.PartialObservation": (),
    "a3c.envs.wrappers.MaskFromInfo": (),
    "a3c.envs.wrappers.NormaliseReward": ("_returns", "_ended"),  # the run keeps its statistics
    "a3c.envs.wrappers.ClipReward": (),
} | {
    f"gymnasium.wrappers.{name}": ()
    for name in (
        "transform_observation.FilterObservation",
        "transform_observation.FlattenObservation",
        "transform_observation.GrayscaleObservation",
        "transform_observation.ResizeObservation",
        "transform_observation.ReshapeObservation",
        "transform_observation.RescaleObservation",
        "transform_observation.DtypeObservation",
        "transform_action.RescaleAction",
        "transform_action.ClipAction",
        "transform_reward.ClipReward",
    )
}


class EnvStateError(Exception):
    """An environment's state cannot be had, or does not fit: says whose, and why."""


class Stateful(Protocol):
    """An environment or wrapper that can say its state."""

    def get_state(self) -> Any:
        """Return the state of the object's own part."""

    def set_state(self, state: Any) -> None:
        """Go on from a state that `get_state` gave."""


def get_env_state(env: VectorEnv) -> dict[str, Any]:
    """Return what environments and their wrappers hold, with their generators, as plain values.

    Raises:
        EnvStateError: one of them cannot say it.
    """
    layers = layers_of(env)
    inner = layers[-1].envs if isinstance(layers[-1], SyncVectorEnv) else []
    return {"layers": _get(layers), "envs": [_get(layers_of(env)) for env in inner]}


def set_env_state(env: VectorEnv, state: dict[str, Any]) -> None:
    """Go on from a state that `get_env_state` gave, in environments that have been reset.

    Raises:
        EnvStateError: the state is that of other environments or wrappers.
    """
    layers = layers_of(env)
    inner = layers[-1].envs if isinstance(layers[-1], SyncVectorEnv) else []
    if len(inner) != len(state["envs"]):
        raise EnvStateError(f"the state is that of {len(state['envs'])} environments, not of {len(inner)}")
    for one, own in zip(inner, state["envs"], strict=True):
        _set(layers_of(one), own)
    _set(layers, state["layers"])


def _get(layers: Sequence[Any]) -> list[dict[str, Any]]:
    states = [{"class": _name(layer), "own": _own_state(layer), "generators": []} for layer in layers]
    # The property `np_random` would make one where there is none.
    generators = [getattr(holder, "_np_random", None) for holder in _drawing(layers[-1])]
    states[-1]["generators"] = [None if each is None else generator_state(each) for each in generators]
    return states


def _set(layers: Sequence[Any], states: Sequence[dict[str, Any]]) -> None:
    ours, theirs = [_name(layer) for layer in layers], [state["class"] for state in states]
    if ours != theirs:
        raise EnvStateError(f"the state is that of {' of '.join(theirs)}, not of {' of '.join(ours)}")
    for layer, state in zip(reversed(layers), reversed(states), strict=True):  # a wrapper's word is the last
        _set_own_state(layer, state["own"])
        for holder, generator in zip(_drawing(layer), state["generators"], strict=False):
            if generator is not None:
                set_generator_state(holder.np_random, generator)


def _drawing(env: Any) -> tuple[Any, ...]:
    """Return what holds a generator that an environment may draw from: itself, and a single one's spaces."""
    if isinstance(env, VectorEnv):
        return (env,)
    return (env, *(each for space in (env.action_space, env.observation_space) for each in _with_parts(space)))


def _with_parts(space: gymnasium.Space[Any]) -> Iterator[gymnasium.Space[Any]]:
    """Yield a space, and those within it."""
    yield space
    parts = space.spaces if isinstance(space, spaces.Dict | spaces.Tuple) else ()
    for part in parts.values() if isinstance(parts, Mapping) else parts:
        yield from _with_parts(part)


def _own_state(layer: Any) -> Any:
    name = _name(layer)
    try:
        if name in _ATTRIBUTES:
            return to_plain({path: attrgetter(path)(layer) for path in _ATTRIBUTES[name]})
        if _is_stateful(layer):
            return to_plain(layer.get_state())
    except Exception as error:  # a user's: it must not cost the checkpoint
        raise EnvStateError(f"the state of {name} cannot be had: {type(error).__name__}: {error}") from error
    raise EnvStateError(f"{name} has no get_state() and set_state(state)")


def _set_own_state(layer: Any, state: Any) -> None:
    value = from_plain(state)
    name = _name(layer)
    if name not in _ATTRIBUTES:
        layer.set_state(value)
        return
    for path in _ATTRIBUTES[name]:
        *parents, attribute = path.split(".")
        setattr(reduce(getattr, parents, layer), attribute, value[path])


def _is_stateful(layer: Any) -> TypeGuard[Stateful]:
    # Of the class: a wrapper that hands on whatever it lacks would speak for what it wraps.
    return all(callable(getattr(type(layer), method, None)) for method in ("get_state", "set_state"))


def _name(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def to_plain(value: Any) -> Any:
    """Return a copy of a value that `torch.load(weights_only=True)` accepts, with its types written down.

    Raises:
        TypeError: a value of another type than the protocol allows.
    """
    # The exact type: a NumPy float is a float too, and arithmetic tells them apart.
    if value is None or type(value) in (bool, int, float, str):
        return value
    match value:
        case np.ndarray():
            return "array", torch.from_numpy(value.copy(order="K"))
        case np.bool_() | np.number():
            return "number", torch.from_numpy(np.array(value))
        case np.random.Generator():
            return "generator", (type(value.bit_generator).__name__, generator_state(value))
        case Tensor():
            return "tensor", value.detach().clone()
    if type(value) in (list, tuple):
        return type(value).__name__, [to_plain(item) for item in value]
    if type(value) is dict:
        return "dict", [(to_plain(key), to_plain(item)) for key, item in value.items()]
    raise TypeError(
        f"got {type(value).__name__}, must be a number, string, None, array, tensor, generator, list, tuple or dict"
    )


def from_plain(plain: Any) -> Any:
    """Return the value that `to_plain` was given."""
    if not isinstance(plain, tuple):
        return plain
    kind, content = plain
    match kind:
        case "array":
            return content.numpy().copy(order="K")
        case "number":
            return content.numpy()[()]
        case "generator":
            name, state = content
            generator = np.random.Generator(getattr(np.random, name)())
            set_generator_state(generator, state)
            return generator
        case "tensor":
            return content.clone()
        case "list":
            return [from_plain(item) for item in content]
        case "tuple":
            return tuple(from_plain(item) for item in content)
    return {from_plain(key): from_plain(item) for key, item in content}
