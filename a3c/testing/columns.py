"""Made-up batches, drawn as text: a letter a row, a word a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from a3c.batch import TIME_FIELDS, BatchShape, RolloutBatch, empty_batch

LEGEND = ". a step, T one that terminates, t one at a time limit, b both at once, - a reset step, _ padding"
DISCOUNT = 0.9
STEP_FIELDS = ("rewards", "log_probs", "behaviour_log_probs")  # of a case, one number a step each

Columns = tuple[str, ...]  # drawn as the legend says, all of one length


class Case(NamedTuple):
    """What an estimator is asked, as training asks it.

    Attributes:
        columns: the batch as drawn.
        batch: transitions, [T, B].
        values: of all observations, [T+1, B].
        log_probs: of the taken actions, [T, B].
        discounts: γ, or 0 where the episode terminated, [T, B].
    """

    columns: Columns
    batch: RolloutBatch
    values: Tensor
    log_probs: Tensor
    discounts: Tensor

    @property
    def mask(self) -> Tensor:
        """Real steps, [T, B]."""
        return self.batch.mask

    def copy(self) -> Case:
        """Return the same case in memory of its own."""
        return Case(self.columns, self.batch.copy(), *(tensor.clone() for tensor in self[2:]))

    def get(self, name: str) -> Tensor:
        """Return one of its tensors, or one of its batch's."""
        found = getattr(self, name) if name in self._fields else getattr(self.batch, name)
        assert isinstance(found, Tensor)
        return found

    def put(self, name: str, tensor: Tensor) -> Case:
        """Return the case with another tensor in the place of one of its own, or of its batch's."""
        if name in self.batch._fields:
            return self._replace(batch=self.batch._replace(**{name: tensor}))
        return Case(**{**self._asdict(), name: tensor})

    def changed(self, where: Tensor, names: Sequence[str] = STEP_FIELDS) -> Case:
        """Return the case with other numbers in some places: each moved by 3 or more, its sign at random.

        Args:
            where: the places, [T, B], or [T+1, B] for values.
            names: which tensors.
        """
        case, generator = self, torch.Generator().manual_seed(1)
        for name in names:
            old = case.get(name)
            sign = torch.where(torch.rand(old.shape, generator=generator) < 0.5, -1.0, 1.0)
            moved = old + sign * (3 + torch.rand(old.shape, generator=generator))
            case = case.put(name, moved.where(where, old))
        return case

    def taken(self, order: Sequence[int]) -> Case:
        """Return a case of some of its columns, in an order of their own."""
        tensors = {
            name: tensor[:, order] if name in TIME_FIELDS else tensor[order]
            for name, tensor in self.batch._asdict().items()
        }
        steps = [tensor[:, order] for tensor in self[2:]]
        return Case(tuple(self.columns[place] for place in order), RolloutBatch(**tensors), *steps)

    def doubled(self) -> Case:
        """Return the case with its numbers in 64 bits."""
        tensors = {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in self.batch._asdict().items()
        }
        return Case(self.columns, RolloutBatch(**tensors), *(tensor.double() for tensor in self[2:]))

    def padded(self, rows: int) -> Case:
        """Return the case with padding below: masked zeros, of which the critic and the policy say something."""
        columns = tuple(column + "_" * rows for column in self.columns)
        longer = make_case(columns, seed=2)
        for name in (*TIME_FIELDS, "values", "log_probs"):
            there = self.get(name)
            longer.get(name)[: len(there)] = there
        return longer


def make_case(columns: Columns, seed: int = 0, on_policy: bool = False) -> Case:
    """Make a batch of columns as they are drawn, with random numbers, and zeros where training has them.

    Args:
        columns: all of one length.
        seed: of the random numbers.
        on_policy: the policy is the one that acted.
    """
    length, width = len(columns[0]), len(columns)
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int = length) -> Tensor:
        return torch.randn(rows, width, generator=generator)

    mask = ~_drawn(columns, "-_")
    batch = empty_batch(BatchShape(length, width, (1,), torch.float32))._replace(
        observations=normal(length + 1)[..., None],
        actions=torch.randint(2, (length, width), generator=generator),
        rewards=normal().where(mask, 0),
        terminated=_drawn(columns, "Tb"),
        truncated=_drawn(columns, "tb"),
        mask=mask,
        behaviour_log_probs=(-normal().abs()).masked_fill(_drawn(columns, "_"), 0),
        env_ids=torch.arange(width),
    )
    log_probs = batch.behaviour_log_probs + (0 if on_policy else 0.4) * normal()
    discounts = DISCOUNT * (~batch.terminated).to(torch.float32)
    return Case(columns, batch, normal(length + 1), log_probs, discounts)


def with_exact_critic(case: Case, columns: Sequence[int]) -> Case:
    """Return the case with a critic that is right in some columns: Vₜ = rₜ + γₜ·Vₜ₊₁ at every real step."""
    values = case.values.clone()
    for column in columns:
        for t in range(case.batch.length - 1, -1, -1):
            if case.mask[t, column]:
                following = case.discounts[t, column] * values[t + 1, column]
                values[t, column] = case.batch.rewards[t, column] + following
    return case._replace(values=values)


def following(steps: Tensor) -> Tensor:
    """Mark in [T+1, B] the states that the marked steps [T, B] led to."""
    return torch.cat((torch.zeros_like(steps[:1]), steps))


def states_that_count(case: Case) -> Tensor:
    """Mark the states that are acted in, or that a step leads to, [T+1, B]; terminal ones are among them."""
    acted_in = torch.cat((case.mask, torch.zeros_like(case.mask[:1])))
    return acted_in | following(case.mask)


def open_ends(case: Case) -> Tensor:
    """Mark the steps after which the fragment ends in the middle of an episode, [T, B]."""
    goes_on = torch.cat((case.mask[1:], torch.zeros_like(case.mask[:1])))
    return case.mask & ~goes_on & ~case.batch.terminated & ~case.batch.truncated


def at(t: int, column: int, like: Tensor) -> Tensor:
    """Mark one place in a tensor of the same shape."""
    where = torch.zeros_like(like, dtype=torch.bool)
    where[t, column] = True
    return where


def rows_from(t: int, column: int, like: Tensor) -> Tensor:
    """Mark a column from row t on, in a tensor of the same shape."""
    where = torch.zeros_like(like, dtype=torch.bool)
    where[t:, column] = True
    return where


def below(columns: Sequence[str]) -> Columns:
    """Pad columns to one length."""
    length = max(map(len, columns))
    return tuple(column.ljust(length, "_") for column in columns)


def places(marked: Tensor) -> list[tuple[int, int]]:
    """Return what is marked as pairs of row and column."""
    return [(t, column) for t, column in marked.nonzero().tolist()]


def _drawn(columns: Columns, letters: str) -> Tensor:
    return torch.tensor([[letter in letters for letter in row] for row in zip(*columns, strict=True)])
