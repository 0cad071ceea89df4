"""Convolutional torsos: images → features, for the actor-critics that stand on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ImageFormat:
    """How an image lies in an observation, and by what its numbers are multiplied.

    Attributes:
        height: of the image, in pixels.
        width: of the image, in pixels.
        depth: number of channels C, those of all images of a stack together.
        order: axes of an observation in the order height, width, stack, channel, as far as it has them.
        scale: what brings the numbers to a width of about 1.
    """

    height: int
    width: int
    depth: int
    order: tuple[int, ...]
    scale: float

    @classmethod
    def of(
        cls,
        observation_space: gymnasium.Space[Any],
        channels: Literal["first", "last"] | None = None,
        scale: float | None = None,
    ) -> ImageFormat:
        """Read the format from a space: (H, W), (C, H, W), (H, W, C), or a stack of N: (N, C, H, W), (N, H, W, C).

        Channels of a stack are folded: channel c of image n is channel n·C + c. A stack of grey images
        is (C, H, W) or (H, W, C). Numbers are divided by the distance between the space's bounds, bytes
        by 255. They are taken as they are where the bounds lie within [−1, 1], and where there is no bound
        on one side or none in effect (2³¹ apart or more).

        Args:
            observation_space: a Box of 2, 3 or 4 axes.
            channels: whether they are the first or the last of an image's three axes. None takes
                whichever of the two is smaller than both other axes.
            scale: multiplies the numbers instead, > 0.

        Raises:
            ValueError: the space holds no images; or channels is another word, or None and neither end is the
                smallest; or scale is out of its range.
        """
        shape = observation_space.shape
        if not isinstance(observation_space, spaces.Box) or shape is None or not 2 <= len(shape) <= 4:
            raise ValueError(
                f"observation_space: got shape {shape}, must be an image of axes (H, W), (C, H, W) or (H, W, C), "
                "or a stack (N, ...) of coloured ones; a vector takes MLPActorCritic"
            )
        if channels not in (None, "first", "last"):
            raise ValueError(f"channels: got {channels!r}, must be first, last or None")
        if scale is not None and not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"image_scale: got {scale}, must be above 0 and finite, or None")
        if len(shape) == 2:
            order: tuple[int, ...] = (0, 1)
        else:
            stack = tuple(range(len(shape) - 3))
            a, b, c = range(len(stack), len(shape))
            order = (b, c, *stack, a) if _channels_come_first(shape, channels) else (a, b, *stack, c)
        height, width, *depths = (shape[axis] for axis in order)
        return cls(height, width, math.prod(depths), order, scale or _scale(observation_space))

    def planes(self, observations: Tensor) -> Tensor:
        """Return observations [N, *shape] as [N, C, H, W] in float32, not scaled, in channels-last memory.

        Images whose channels are last in memory already are only converted. Others are put into that
        order first, which costs least in the space's own dtype: bytes are a quarter of floats.
        """
        rows = observations.permute(0, *(axis + 1 for axis in self.order)).contiguous()
        pixels = rows.view(rows.shape[0], self.height, self.width, self.depth)
        return pixels.to(torch.float32).permute(0, 3, 1, 2)


def _channels_come_first(shape: tuple[int, ...], channels: Literal["first", "last"] | None) -> bool:
    first, middle, last = shape[-3:]
    if channels is not None:
        return channels == "first"
    if first < min(middle, last) or last < min(first, middle):
        return first < last
    raise ValueError(f"channels: got None, must be first or last for images of shape {shape}, whose order is not clear")


def _scale(space: spaces.Box) -> float:
    low, high = float(space.low.min()), float(space.high.max())
    within = low >= -1 and high <= 1
    return 1 / (high - low) if not within and 0 < high - low < 2**31 else 1.0


class Window(NamedTuple):
    """A layer that slides over an image: so many filters, each of kernel × kernel pixels."""

    filters: int
    kernel: int
    stride: int
    padding: int = 0


class Torso(nn.Module):
    """Convolutions, each with a ReLU, then one linear layer with a ReLU.

    Weights start orthogonal with gain √2, biases at 0; with gain ½ where a residual block ends, since with √2 fifteen
    layers make features twenty times as large as another torso's. The image's scale is multiplied into the first
    convolution's weights, as they are few, and not into the pixels.

    Args:
        image: format of the observations.

    Attributes:
        windows: the layers that make the image smaller.
        features: numbers that come out for each observation.

    Raises:
        ValueError: a side of the image is too short for the windows.
    """

    windows: ClassVar[tuple[Window, ...]]
    features: int

    def __init__(self, image: ImageFormat) -> None:
        super().__init__()
        self.image = image
        height, width = image.height, image.width
        smallest = self.smallest_side()
        if min(height, width) < smallest:
            raise ValueError(
                f"observation_space: got images of {height}x{width}, {type(self).__name__} needs "
                f"{smallest}x{smallest} or more; the torso 'small' takes any"
            )
        for window in self.windows:
            height, width = (
                (side + 2 * window.padding - window.kernel) // window.stride + 1 for side in (height, width)
            )
        first, *rest = self._convolutions(image.depth)
        assert isinstance(first, nn.Conv2d), "it is the one that scales"
        self.first, self.rest = first, nn.Sequential(*rest)
        self.linear = nn.Linear(self.windows[-1].filters * height * width, self.features)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.orthogonal_(parameter, 0.5 if name.endswith("outer.weight") else math.sqrt(2))

    @classmethod
    def smallest_side(cls) -> int:
        """Return the shortest side of an image, in pixels, of which the last window still sees all it needs."""
        side = 1
        for window in reversed(cls.windows):
            side = (side - 1) * window.stride + window.kernel - 2 * window.padding
        return side

    def _convolutions(self, channels: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for filters, kernel, stride, padding in self.windows:
            layers += [nn.Conv2d(channels, filters, kernel, stride, padding), nn.ReLU(inplace=True)]
            channels = filters
        return layers

    def forward(self, observations: Tensor, normalised: bool = False) -> Tensor:
        """Return features [N, F] in float32.

        Args:
            observations: in the space's dtype, [N, *shape]; or normalised, in float32.
            normalised: they are of a width of about 1 already.
        """
        weight = self.first.weight if normalised else self.first.weight * self.image.scale
        maps = self.first._conv_forward(self.image.planes(observations), weight, self.first.bias)
        return F.relu(self.linear(self.rest(maps).flatten(1)))


class A3CTorso(Torso):
    """16 filters of 8 × 8, 32 of 4 × 4, 256 features: Mnih et al. 2016, arXiv:1602.01783."""

    windows, features = (Window(16, 8, 4), Window(32, 4, 2)), 256


class NatureTorso(Torso):
    """32 filters of 8 × 8, 64 of 4 × 4, 64 of 3 × 3, 512 features: Mnih et al. 2015, doi:10.1038/nature14236."""

    windows, features = (Window(32, 8, 4), Window(64, 4, 2), Window(64, 3, 1)), 512


class SmallTorso(Torso):
    """16 and 32 filters of 3 × 3 that keep the image's size, 128 features: for grid worlds and images of few pixels."""

    windows, features = (Window(16, 3, 1, 1), Window(32, 3, 1, 1)), 128


class ImpalaTorso(Torso):
    """15 convolutions with residual connections, 256 features: Espeholt et al. 2018, arXiv:1802.01561, figure 3 right.

    Each of three sections is a convolution, a max-pooling (the window, which halves the image) and two residual blocks.
    """

    windows, features = (Window(16, 3, 2, 1), Window(32, 3, 2, 1), Window(32, 3, 2, 1)), 256

    def _convolutions(self, channels: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for filters, kernel, stride, padding in self.windows:
            pool = nn.MaxPool2d(kernel, stride, padding)
            layers += [nn.Conv2d(channels, filters, 3, padding=1), pool, _Residual(filters), _Residual(filters)]
            channels = filters
        return [*layers, nn.ReLU(inplace=True)]


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), of one size all through."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(filters, filters, 3, padding=1)
        self.outer = nn.Conv2d(filters, filters, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        change: Tensor = self.outer(F.relu_(self.inner(F.relu(maps))))
        return maps + change


TORSOS: dict[str, type[Torso]] = {"a3c": A3CTorso, "nature": NatureTorso, "impala": ImpalaTorso, "small": SmallTorso}
