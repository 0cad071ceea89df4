"""What the returns of a batch's steps turned out to be, once the fragments after it have come.

Fragments of an environment follow each other, so the return of a step whose episode goes on beyond
its batch is put together from the batches that come later. The rest of an episode is played by
newer policies than the step itself: the return is the one that was realised, not one of the policy
at hand.

A step whose episode a time limit cuts has no full return, and counts as unresolved. To complete it by
the critic would put the critic's bias into what that bias is measured against. What remains unknown
may be passed over where it hardly weighs: beyond `NEGLIGIBLE` nothing is waited for.

A batch that is given up before all its episodes have ended speaks of no step: those resolved by then are
the ones whose episodes soon ended, and no fair sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns import linear_recursion, trace_cuts

NEGLIGIBLE = 1e-3  # weight, a product of discounts, of what need not be known of a return
MOST_COLUMNS = 8192  # ends of columns that wait at the same time


class Resolved(NamedTuple):
    """How targets compare with the returns that were realised.

    Attributes:
        bias: mean over the resolved steps of target less realised return, for each set of targets,
            [L]; NaN where no step is resolved, or the batch was given up.
        share: resolved steps, a fraction of the batch's real steps; 0 where it was given up.
    """

    bias: Tensor
    share: float


class _Columns(NamedTuple):
    """Ends of columns whose episodes go on beyond their batches, one a row; N rows.

    Attributes:
        batches: number of the batch that each belongs to, [N].
        env_ids: whose episode it is, [N].
        segment_ids: the segment that comes next, [N].
        weights: product of the discounts since the batch's end, [N].
        rests: discounted rewards since the batch's end, [N].
        steps: steps of the batch that wait for this episode, [N].
        step_weights: sum of the weights with which they count what comes after the batch, [N].
        errors: sums of their targets less the rewards within the batch, [N, L].
        lost: the episode's return cannot be known any more, [N].
    """

    batches: Tensor
    env_ids: Tensor
    segment_ids: Tensor
    weights: Tensor
    rests: Tensor
    steps: Tensor
    step_weights: Tensor
    errors: Tensor
    lost: Tensor

    def at(self, rows: Tensor) -> _Columns:
        return _Columns(*(field[rows] for field in self))


class _Waiting:
    """A batch whose episodes have not all ended: its real steps, those resolved, and the sums of their errors."""

    def __init__(self, real: int, resolved: int, errors: Tensor) -> None:
        self.real, self.resolved, self.errors = real, resolved, errors

    def result(self) -> Resolved:
        return Resolved(self.errors / self.resolved, self.resolved / self.real)  # 0/0 is NaN


class _Stretch:
    """Consecutive fragments of the same environments, of which copies are kept.

    Attributes:
        env_ids: of the columns, [B].
        first: segment ids of the first fragment, [B].
        fragments: number of them.
    """

    def __init__(self, batch: RolloutBatch) -> None:
        self.env_ids, self.first = batch.env_ids.clone(), batch.segment_ids.clone()
        self.fragments = 0
        self._parts: list[tuple[Tensor, ...]] = []

    def goes_on_with(self, batch: RolloutBatch) -> bool:
        """Return whether a batch holds the next fragments of just these environments."""
        return torch.equal(batch.env_ids, self.env_ids) and torch.equal(batch.segment_ids - self.fragments, self.first)

    def add(self, batch: RolloutBatch, reward_scale: float = 1.0) -> None:
        self.fragments += 1
        ends_and_mask = (batch.terminated.clone(), batch.truncated.clone(), batch.mask.clone())
        self._parts.append((batch.rewards * reward_scale, *ends_and_mask))

    def heads(self, discount: float) -> tuple[Tensor, Tensor, Tensor]:
        """Sum each column up to its first episode's end.

        Returns:
            The discounted rewards, the product of the discounts, which is 0 where the episode
            terminated, and whether a time limit ended it, [B] each.
        """
        rewards, terminated, truncated, mask = map(torch.cat, zip(*self._parts, strict=True))
        ended = (terminated | truncated).long()
        belongs = mask & (ended.cumsum(0) == ended)
        steps = belongs.cumsum(0)
        sums = (rewards.where(belongs, 0) * discount ** (steps - 1).double()).sum(0)
        weights = (discount ** steps[-1].double()).masked_fill((terminated & belongs).any(0), 0)
        return sums, weights, (truncated & belongs).any(0)


class RealisedReturns:
    """Compares the value targets of batches with the returns that are realised later.

    Sums wait, not steps: all steps at a column's end wait for the same episode, so memory is a few
    numbers for each column and set of targets. While more than `MOST_COLUMNS` columns wait, and more than
    one batch, the oldest is given up. The fragments that follow are held back and worked off many at a
    time, since each time costs as much as a small network's update.

    Args:
        discount: γ, in [0, 1].
        lineage: environment ids that are equal modulo this number are lives of one environment:
            when a later one appears, the episodes of the one before are lost.
        hold: time steps of fragments that are held back, ≥ 0.
    """

    def __init__(self, discount: float, lineage: int, hold: int = 512) -> None:
        self._discount, self._lineage, self._hold = discount, lineage, hold
        self._waiting: dict[int, _Waiting] = {}
        self._columns: _Columns | None = None  # None before the first batch
        self._count = 0  # batches so far
        self._stretches: list[_Stretch] = []
        self._held = 0  # time steps in them

    def __len__(self) -> int:
        """Number of batches that wait."""
        return len(self._waiting)

    def begin(self, batch: RolloutBatch, discounts: Tensor, value_targets: Tensor) -> list[Resolved]:
        """Take in a batch whose targets are to be compared; it also follows those before it.

        Args:
            batch: transitions with at least one real step, [T, B]; rewards in the targets' units.
            discounts: γ, or 0 where the episode terminated, [T, B].
            value_targets: L sets of targets, [L, T, B].

        Returns:
            The batches that need not wait any longer, or may not, oldest first.
        """
        done = self._work_off()
        cuts = trace_cuts(batch)
        discounts = discounts.double()
        factors = discounts.masked_fill(cuts, 0)
        rewards = linear_recursion(batch.rewards.where(batch.mask, 0).double(), factors)
        weights = linear_recursion(discounts.where(cuts, 0), factors)
        ended = batch.terminated | batch.truncated
        ends_here = ended.flip(0).cumsum(0).flip(0) > 0
        known = batch.mask & (weights <= NEGLIGIBLE)
        open_ = batch.mask & ~known & ~ends_here
        errors = value_targets.double() - rewards
        self._waiting[self._count] = _Waiting(
            int(batch.mask.sum()), int(known.sum()), errors.where(known, 0).sum((1, 2))
        )
        steps = open_.sum(0)
        columns = _Columns(
            torch.full_like(batch.env_ids, self._count),
            batch.env_ids.clone(),
            batch.segment_ids + 1,
            torch.ones(batch.columns, dtype=torch.float64),
            torch.zeros(batch.columns, dtype=torch.float64),
            steps,
            weights.where(open_, 0).sum(0),
            errors.where(open_, 0).sum(1).T,
            torch.zeros(batch.columns, dtype=torch.bool),
        ).at(steps > 0)
        if self._columns is not None:
            columns = _Columns(*map(torch.cat, zip(self._columns, columns, strict=True)))
        self._columns = columns
        self._count += 1
        own = _Stretch(batch)  # which its own columns may wait for too, where it holds two of one environment
        own.add(batch)
        self._advance(own)
        done += self._take_complete()
        while len(self) > 1 and len(self._columns.env_ids) > MOST_COLUMNS:
            done.append(self._give_up(next(iter(self._waiting))))
        return done

    def follow(self, batch: RolloutBatch, reward_scale: float = 1.0) -> list[Resolved]:
        """Take in the next fragments of the run's environments, in their order.

        Args:
            batch: transitions, [T, B].
            reward_scale: factor that brings their rewards to the targets' units.

        Returns:
            The batches that need not wait any longer, oldest first.
        """
        if not self._waiting:
            return []
        stretch = next((each for each in self._stretches if each.goes_on_with(batch)), None)
        if stretch is None:
            stretch = _Stretch(batch)
            self._stretches.append(stretch)
        stretch.add(batch, reward_scale)
        self._held += batch.length
        return self._work_off() if self._held > self._hold else []

    def close(self) -> list[Resolved]:
        """Give up what still waits once all that has come is worked off, oldest first."""
        return self._work_off() + [self._give_up(number) for number in list(self._waiting)]

    def _work_off(self) -> list[Resolved]:
        stretches, self._stretches, self._held = self._stretches, [], 0
        for stretch in stretches:
            self._advance(stretch)
        return self._take_complete()

    def _advance(self, stretch: _Stretch) -> None:
        """Go on with the columns that wait for a stretch; again, where some then wait for another of its columns."""
        heads: tuple[Tensor, Tensor, Tensor] | None = None
        while (columns := self._columns) is not None and len(columns.env_ids):
            env_ids, segment_ids = columns.env_ids[:, None], columns.segment_ids[:, None]
            rows, places = ((env_ids == stretch.env_ids) & (segment_ids == stretch.first)).nonzero(as_tuple=True)
            if not len(rows):
                self._settle(columns._replace(lost=self._broken(columns, stretch)))
                break
            rewards, weights, truncated = heads = heads or stretch.heads(self._discount)
            columns.rests[rows] += columns.weights[rows] * rewards[places]
            columns.weights[rows] *= weights[places]
            columns.segment_ids[rows] += stretch.fragments
            columns.lost[rows] = truncated[places] & (columns.weights[rows] > NEGLIGIBLE)
            self._settle(columns)

    def _take_complete(self) -> list[Resolved]:
        waiting = set() if self._columns is None else set(self._columns.batches.tolist())
        return [self._waiting.pop(number).result() for number in list(self._waiting) if number not in waiting]

    def _broken(self, columns: _Columns, stretch: _Stretch) -> Tensor:
        """Say of which columns a later segment, or a later life, has come without the one that is waited for, [N]."""
        env_ids, ours = stretch.env_ids, columns.env_ids[:, None]
        same = ours % self._lineage == env_ids % self._lineage
        later = (env_ids > ours) | ((env_ids == ours) & (stretch.first > columns.segment_ids[:, None]))
        return (same & later).any(1)

    def _settle(self, columns: _Columns) -> None:
        """Take out the columns whose episodes are known, or lost."""
        known = ~columns.lost & (columns.weights <= NEGLIGIBLE)
        if known.any():
            done = columns.at(known)
            errors = done.errors - (done.step_weights * done.rests)[:, None]
            for number, steps, error in zip(done.batches.tolist(), done.steps.tolist(), errors, strict=True):
                self._waiting[number].resolved += steps
                self._waiting[number].errors += error
        self._columns = columns.at(~(known | columns.lost))

    def _give_up(self, number: int) -> Resolved:
        assert self._columns is not None, "a batch that waits has put its columns there"
        self._columns = self._columns.at(self._columns.batches != number)
        return Resolved(torch.full_like(self._waiting.pop(number).errors, torch.nan), 0.0)
