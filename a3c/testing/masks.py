"""Checks that reset steps and padding count nowhere."""

from __future__ import annotations

import torch

from a3c.returns import Targets
from a3c.testing.columns import Case, states_that_count
from a3c.testing.findings import Difference, difference, filled
from a3c.testing.subject import Subject

FIELDS = ("rewards", "log_probs", "behaviour_log_probs", "values")


def ignores_masked_steps(subject: Subject) -> str | None:
    """Other numbers at masked steps, and other values of states that no real step knows, change no real step."""
    for case in subject.cases:
        found = {name: _difference(subject, case, name) for name in FIELDS}
        counting = [name for name, each in found.items() if each is not None]
        if counting:
            first = next(each for each in found.values() if each is not None)
            return (
                f"with other {' and '.join(counting)} at masked steps, {first.within(case)}; expected no change. "
                "Likely cause: a trace that is not cut before a masked step (trace_cuts does), or a sum, mean or "
                "norm over all steps instead of those of batch.mask"
            )
    return None


def ignores_nan_at_masked_steps(subject: Subject) -> str | None:
    """A reward that is NaN at a masked step changes no real step."""
    for case in subject.cases:
        poisoned = case.put("rewards", case.batch.rewards.where(case.mask, torch.nan))
        found = difference(subject.ask(case), subject.ask(poisoned), case.mask)
        if found is not None:
            return (
                f"with NaN as reward at masked steps, {found.within(case)}; expected no change. Likely cause: masked "
                "rewards are multiplied by 0, and 0 · NaN is NaN; begin with batch.rewards.where(batch.mask, 0)"
            )
    return None


def ignores_padding(subject: Subject) -> str | None:
    """The same columns with more padding below have the same results."""
    for case in subject.cases:
        longer = Targets(*(each[: case.batch.length] for each in filled(subject.ask(case.padded(3)))))
        found = difference(subject.ask(case), longer, case.mask)
        if found is not None:
            return (
                f"with 3 masked rows more below, {found.within(case)}; expected no change. Likely cause: what belongs "
                "to the last row is read from row T − 1, or values[-1], and not after each column's last real step; "
                "or a mean over all rows"
            )
    return None


def _difference(subject: Subject, case: Case, name: str) -> Difference | None:
    where = ~states_that_count(case) if name == "values" else ~case.mask
    return difference(subject.ask(case), subject.ask(case.changed(where, [name])), case.mask)
