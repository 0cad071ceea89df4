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
        fresh, outputs = self.initial_state(begins.shape[1]).to(begins.device), []
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

    @abstractmethod
    def kernel(self, features: Tensor, state: Tensor) -> Tensor:
        """Return what goes out, [T, B, size], by torch's own loop, which knows no resets."""

    def unroll(self, features: Tensor, state: Tensor, begins: Tensor) -> Tensor:
        """Do as `Memory.unroll` by torch's own loop, in half the time where episodes are long.

        Each piece of an episode within a column becomes a column of its own. These are as long as the longest of them,
        padded at their ends; where that makes more than twice the work, and in a subclass, which may have formulas of
        its own, steps are taken one after another.
        """
        if type(self) not in MEMORIES.values():
            return super().unroll(features, state, begins)
        first = begins.clone()
        first[0] = True  # of its piece
        rows = torch.arange(len(begins), device=begins.device).unsqueeze(1)
        start = torch.where(first, rows, 0).cummax(0).values
        piece = (first.flatten().cumsum(0) - 1).view(begins.shape).gather(0, start)
        place = rows - start
        pieces, length = int(piece.max()) + 1, int(place.max()) + 1
        if pieces * length > 2 * begins.numel():
            return super().unroll(features, state, begins)
        padded = features.new_zeros(length, pieces, self.features).index_put((place, piece), features)
        fresh, columns = self.initial_state(pieces).to(begins.device), len(state)
        held = torch.where(begins[0].unsqueeze(-1), fresh[:columns], state)  # by the first B pieces, of the first row
        return self.kernel(padded, torch.cat((held, fresh[columns:])))[place, piece]


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

    def kernel(self, features: Tensor, state: Tensor) -> Tensor:
        def in_torchs_order(gates: Tensor) -> Tensor:
            insert, forget, output, new = gates.chunk(4)
            return torch.cat((insert, forget, new, output))

        bias = self.inputs.bias
        parts = (self.inputs.weight, self.recurrent.weight, bias, torch.zeros_like(bias))  # torch has a bias more
        states = tuple(part.contiguous() for part in state.unsqueeze(0).chunk(2, -1))
        weights = [in_torchs_order(part) for part in parts]
        outputs: Tensor = torch.lstm(features, states, weights, True, 1, 0.0, self.training, False, False)[0]
        return outputs

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

    def kernel(self, features: Tensor, state: Tensor) -> Tensor:
        weights = (self.inputs.weight, self.recurrent.weight, self.inputs.bias, self.recurrent.bias)
        outputs: Tensor = torch.gru(features, state.unsqueeze(0), weights, True, 1, 0.0, self.training, False, False)[0]
        return outputs

    def advance(self, prepared: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        recurrent = self.recurrent(state)
        size = 2 * self.size
        reset, update = (prepared[:, :size] + recurrent[:, :size]).sigmoid().chunk(2, -1)
        new = (prepared[:, size:] + reset * recurrent[:, size:]).tanh()
        hidden = torch.lerp(new, state, update)
        return hidden, hidden


MEMORIES: dict[str, Callable[[int, int], Memory]] = {"lstm": LSTM, "gru": GRU}  # of features and size
