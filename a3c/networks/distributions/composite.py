"""Actions of several parts, each with a distribution of its own: those of Dict and Tuple spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import gymnasium
import torch
from numpy.typing import NDArray
from torch import Tensor

from a3c.envs.layouts import ActionDictLayout, ActionTupleLayout, RecordLayout
from a3c.networks.distributions.base import ActionFamily, Distribution


class Composite(Distribution):
    """Independent parts side by side in one record of bytes, as a batch holds them.

    Args:
        parts: the distributions of the parts by their keys.
        layout: where each part lies in a record.
        noise_shapes: of each part's noise for one action.
        lead: first axes of all parameters.
    """

    def __init__(
        self,
        parts: dict[str, Distribution],
        layout: RecordLayout,
        noise_shapes: Sequence[torch.Size],
        lead: torch.Size,
    ) -> None:
        self.parts = parts
        self._layout, self._noise_shapes, self._lead = layout, noise_shapes, lead

    def sample(self, noise: Tensor) -> Tensor:
        """Sample each part by its share of the noise, [..., n]: records [..., bytes], uint8."""
        shares = torch.split(noise, [shape.numel() for shape in self._noise_shapes], -1)
        each = zip(self.parts.values(), shares, self._noise_shapes, strict=True)
        return self._packed([part.sample(own.reshape(*own.shape[:-1], *shape)) for part, own, shape in each])

    def mode(self) -> Tensor:
        return self._packed([part.mode() for part in self.parts.values()])

    def _packed(self, actions: Sequence[Tensor]) -> Tensor:
        records = actions[0].new_zeros((*self._lead, *self._layout.shape), dtype=torch.uint8)
        for key, action in zip(self.parts, actions, strict=True):
            self._layout.part(key, records).copy_(action)
        return records

    def _total(self, of_part: Callable[[str, Any], Tensor]) -> Tensor:
        return torch.stack([of_part(key, part) for key, part in self.parts.items()]).sum(0)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self._total(lambda key, part: part.log_prob(self._layout.part(key, actions)))

    def entropy(self) -> Tensor:
        return self._total(lambda key, part: part.entropy())

    def kl(self, other: Composite) -> Tensor:
        return self._total(lambda key, part: part.kl(other.parts[key]))


class CompositeFamily(ActionFamily):
    """Actions of several parts, each of a family of its own.

    Parameters, noise and masks are those of one part after those of another, in the order of the space; in a
    mask, parts that cannot be masked have no place.

    Attributes:
        parts: the families of the parts by their keys.
    """

    layout: ClassVar[type[RecordLayout]]

    def __init__(self, space: gymnasium.Space[Any], squash: bool = False) -> None:
        from a3c.networks.distributions import family_for  # which knows these classes

        super().__init__(space, squash)
        self._layout = self.layout(space)
        self.parts = {key: family_for(part, squash) for key, part in self.layout.parts_of(space).items()}
        families = list(self.parts.values())
        self._counts = [family.parameter_count for family in families]
        self._mask_sizes = [family.mask_size or 0 for family in families]
        self._noise_shapes = [family.noise((), torch.Generator()).shape for family in families]
        self.parameter_count = sum(self._counts)
        self.mask_size = sum(self._mask_sizes) or None
        self.free = [
            first + place
            for family, first in zip(families, accumulate(self._counts, initial=0), strict=False)
            for place in family.free
        ]

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        drawn = [family.noise(shape, generator) for family in self.parts.values()]
        return torch.cat(
            [noise.reshape(*shape, own.numel()) for noise, own in zip(drawn, self._noise_shapes, strict=True)], -1
        )

    def __call__(self, parameters: Tensor, mask: Tensor | None = None) -> Composite:
        masks = [None] * len(self.parts) if mask is None else torch.split(mask, self._mask_sizes, -1)
        each = zip(self.parts.items(), torch.split(parameters, self._counts, -1), masks, strict=True)
        parts = {key: family(own, allowed if family.mask_size else None) for (key, family), own, allowed in each}
        return Composite(parts, self._layout, self._noise_shapes, parameters.shape[:-1])

    def for_env(self, actions: NDArray[Any]) -> Any:
        """Return a dict or a tuple of the arrays of each part, for records [B, bytes]."""
        parts = [family.for_env(self._layout.part(key, actions)) for key, family in self.parts.items()]
        return self._layout.joined(parts)


class DictFamily(CompositeFamily):
    """Actions of a Dict space."""

    layout = ActionDictLayout


class TupleFamily(CompositeFamily):
    """Actions of a Tuple space."""

    layout = ActionTupleLayout
