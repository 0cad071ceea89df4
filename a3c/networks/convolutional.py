"""Actor-critic for images, alone or among other observations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

from a3c.networks.actor_critic import Inputs
from a3c.networks.flat import Flat
from a3c.networks.torsos import TORSOS, ImageFormat, Torso
from a3c.networks.trunk import TrunkActorCritic

VECTOR_FEATURES = 64  # of what stands beside images


class ConvActorCritic(TrunkActorCritic):
    """Convolutions for each image of the observations, one layer for all the rest of them, then a memory and two heads.

    Where there are several parts, a layer more over all of them: what one part means may depend on another.

    Args:
        observation_space: an image (`ImageFormat` says which shapes), or a Dict or Tuple with at least one.
        action_space: any that is supported.
        torso: the convolutions: "a3c" (Mnih et al., 2016), "nature" (2015), "impala" (Espeholt et al., 2018,
            residual), "small" for images of few pixels.
        channels: whether an image's channels are its "first" or its "last" axis; None takes the smallest.
        image_scale: multiplies the numbers of images, > 0; None divides them by the distance between their bounds.
        memory: "lstm" or "gru" above the features; None for none.
        memory_size: width of the memory, ≥ 1.
        squash: bring continuous actions within their bounds by tanh; False clips them.
        free_std: the standard deviations of continuous actions are parameters of the network; False has
            them depend on the observation.
        initial_std: with which they begin, in half the width of the actions' bounds, > 0.

    Raises:
        ValueError: there is no image, or one too small for the torso; an unknown torso or memory; or a scale out of
            its range.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        torso: str = "a3c",
        channels: Literal["first", "last"] | None = None,
        image_scale: float | None = None,
        memory: str | None = None,
        memory_size: int = 256,
        squash: bool = False,
        free_std: bool = True,
        initial_std: float = 1.0,
    ) -> None:
        super().__init__(observation_space, action_space, memory, memory_size, squash, free_std, initial_std)
        if torso not in TORSOS:
            raise ValueError(f"torso: got {torso!r}, must be one of {', '.join(TORSOS)}")
        self.torso, self.channels, self.image_scale = torso, channels, image_scale
        self.encoder = _encoder(self.input_space, TORSOS[torso], channels, image_scale)
        features = self.encoder.features
        self.joint: nn.Linear | None = None
        if isinstance(self.encoder, _Joined):
            features = TORSOS[torso].features
            self.joint = _layer(self.encoder.features, features)
        self.make_heads(features)

    def encode(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.encoder(inputs, self.normaliser is not None)
        return features if self.joint is None else self.joint(features).relu()


def _layer(inputs: int, features: int) -> nn.Linear:
    """Build a layer that a ReLU follows."""
    layer = nn.Linear(inputs, features)
    nn.init.orthogonal_(layer.weight, math.sqrt(2))
    nn.init.zeros_(layer.bias)
    return layer


class _Image(nn.Module):
    """An image through a torso, with any axes in front."""

    features: int

    def __init__(self, torso: Torso, axes: int) -> None:
        super().__init__()
        self.torso, self._axes = torso, axes
        self.features = torso.features

    def forward(self, inputs: Tensor, normalised: bool) -> Tensor:
        front = inputs.shape[: inputs.dim() - self._axes]
        features: Tensor = self.torso(inputs.reshape(-1, *inputs.shape[len(front) :]), normalised)
        return features.view(*front, -1)


class _Vector(nn.Module):
    """Whatever is no image through one layer."""

    features = VECTOR_FEATURES

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        super().__init__()
        self._flat = Flat(space)
        self.linear = _layer(self._flat.width, self.features)

    def forward(self, inputs: Inputs, normalised: bool) -> Tensor:
        return self.linear(self._flat(inputs)).relu()  # type: ignore[no-any-return]


class _Joined(nn.Module):
    """The parts of a Dict or Tuple, each through an encoder of its own."""

    features: int

    def __init__(self, parts: dict[Any, _Image | _Vector | _Joined]) -> None:
        super().__init__()
        self._keys = list(parts)
        self.parts = nn.ModuleList(parts.values())
        self.features = sum(part.features for part in parts.values())

    def forward(self, inputs: Inputs, normalised: bool) -> Tensor:
        return torch.cat([part(inputs[key], normalised) for key, part in zip(self._keys, self.parts, strict=True)], -1)


def _encoder(
    space: gymnasium.Space[Any],
    torso: type[Torso],
    channels: Literal["first", "last"] | None,
    scale: float | None,
) -> _Image | _Vector | _Joined:
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return _Image(torso(ImageFormat.of(space, channels, scale)), len(space.shape or ()))
    parts: dict[Any, gymnasium.Space[Any]] = (
        dict(space.spaces) if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))
    )
    if not any(map(_has_image, parts.values())):
        raise ValueError(
            f"observation_space: got {space}, must have an image (a Box of two axes or more) for ConvActorCritic; "
            "other observations take MLPActorCritic"
        )
    return _Joined(
        {
            key: _encoder(part, torso, channels, scale) if _has_image(part) else _Vector(part)
            for key, part in parts.items()
        }
    )


def images_of(space: gymnasium.Space[Any]) -> Iterator[spaces.Box]:
    """Yield the images among the parts of a space, which may be one itself."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
            yield from images_of(part)
    elif isinstance(space, spaces.Box) and len(space.shape) >= 2:
        yield space


def _has_image(space: gymnasium.Space[Any]) -> bool:
    return any(True for _ in images_of(space))
