"""Recurrent cores: what a network remembers from one step of an episode to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn


class Memory(nn.Module, ABC):
    """A core that maps features and a state to features and the next state.

    A core of your own is a subclass with `forward`; a network takes it in its `make_memory`.

    Args:
        features: width of what comes in.
        size: width of what goes out.
        state_size: numbers that are remembered of one column.

    Raises:
        ValueError: a width below 1.
    """

    def __init__(self, features: int, size: int, state_size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"memory_size: got {size}, must be at least 1")
        self.features, self.size, self.state_size = features, size, state_size

    def initial_state(self, columns: int) -> Tensor:
        """Return the state in which episodes begin, [B, state_size]; zeros by default."""
        return torch.zeros(columns, self.state_size)

    @abstractmethod
    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return what goes out, [B, size], and the next state, of features [B, features] and a state [B, ...]."""

    def unroll(self, features: Tensor, state: Tensor, begins: Tensor) -> Tensor:
        """Return what goes out of features that follow each other, [T, B, size].

        Args:
            features: [T, B, features].
            state: before the first, [B, state_size].
            begins: which are the first of an episode, [T, B].
        """
        fresh, outputs = self.initial_state(begins.shape[1]), []
        for row, begin in zip(self.prepare(features), begins.unsqueeze(-1), strict=True):
            output, state = self.advance(row, torch.where(begin, fresh, state))
            outputs.append(output)
        return torch.stack(outputs)

    def prepare(self, features: Tensor) -> Tensor:
        """Return what can be worked out of features [..., features] at once, before the state is known."""
        return features

    def advance(self, prepared: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Do as `forward` does, of what `prepare` gave."""
        return self(prepared, state)  # type: ignore[no-any-return]


class _Gated(Memory):
    """Cores of torch's own formulas, in two products: of all features at once, and of the state step after step.

    Attributes:
        gates: products of the width `size` that a step takes.
        recurrent_bias: the state's product has a bias of its own, which would be one too many where the two
            products are only ever added.
    """

    gates: ClassVar[int]
    recurrent_bias: ClassVar[bool]

    def __init__(self, features: int, size: int, state_size: int) -> None:
        super().__init__(features, size, state_size)
        self.inputs = nn.Linear(features, self.gates * size)
        self.recurrent = nn.Linear(size, self.gates * size, bias=self.recurrent_bias)
        for layer in (self.inputs, self.recurrent):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def prepare(self, features: Tensor) -> Tensor:
        prepared: Tensor = self.inputs(features)
        return prepared

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.advance(self.inputs(features), state)


class LSTM(_Gated):
    """Long short-term memory: Hochreiter & Schmidhuber (1997), with forget gates that begin open (bias 1).

    The gates stand in the order insert, forget, output, new; torch has the last two the other way round.

    Args:
        features: width of what comes in.
        size: width of what goes out; as much again is remembered in its cells.
    """

    gates, recurrent_bias = 4, False

    def __init__(self, features: int, size: int) -> None:
        super().__init__(features, size, 2 * size)
        with torch.no_grad():
            self.inputs.bias[size : 2 * size] = 1.0

    def advance(self, prepared: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, cells = state.chunk(2, -1)
        gates = torch.addmm(prepared, hidden, self.recurrent.weight.t())
        openness, new = gates[:, : 3 * self.size].sigmoid(), gates[:, 3 * self.size :].tanh()
        insert, forget, output = openness.chunk(3, -1)
        cells = forget * cells + insert * new
        hidden = output * cells.tanh()
        return hidden, torch.cat((hidden, cells), -1)


class GRU(_Gated):
    """Gated recurrent unit: Cho et al. (2014), arXiv:1406.1078, as torch has it.

    Args:
        features: width of what comes in.
        size: width of what goes out, which is what is remembered.
    """

    gates, recurrent_bias = 3, True

    def __init__(self, features: int, size: int) -> None:
        super().__init__(features, size, size)

    def advance(self, prepared: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        recurrent = self.recurrent(state)
        size = 2 * self.size
        reset, update = (prepared[:, :size] + recurrent[:, :size]).sigmoid().chunk(2, -1)
        new = (prepared[:, size:] + reset * recurrent[:, size:]).tanh()
        hidden = torch.lerp(new, state, update)
        return hidden, hidden


MEMORIES: dict[str, Callable[[int, int], Memory]] = {"lstm": LSTM, "gru": GRU}  # of features and size
