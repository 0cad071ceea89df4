"""What a check found, in words: where results differ that should not, and all findings as one error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from a3c.returns import Targets
from a3c.testing.columns import LEGEND, Case

TOLERANCE = 1e-4  # of numbers of about 1, and relative to those above; rounding in 32 bits stays far below


class Finding(NamedTuple):
    """One check that an estimator failed.

    Attributes:
        check: its name.
        text: what was asked, what was expected, what was got, and the likely cause.
    """

    check: str
    text: str


class EstimatorError(AssertionError):
    """An estimator that does not keep to what training takes for granted.

    Attributes:
        findings: all of them.
    """

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        lines = [f"{number}. {check}: {text}" for number, (check, text) in enumerate(findings, 1)]
        failed = f"{len(findings)} check{'s' * (len(findings) > 1)} failed"
        super().__init__("\n".join([f"{name}: {failed}. In the columns that are drawn: {LEGEND}.", *lines]))


class Difference(NamedTuple):
    """One number of a result that became another.

    Attributes:
        field: advantages, value_targets or weights.
        t: its row.
        column: its column.
        before: what it was.
        after: what it became.
    """

    field: str
    t: int
    column: int
    before: float
    after: float

    def within(self, case: Case) -> str:
        """Say it in words, of a case whose numbers it is about."""
        change = f"{self.before:.4g} became {self.after:.4g}"
        return f"{self.field} {place(case, self.t, self.column)}: {change}"


def difference(before: Targets, after: Targets, where: Tensor) -> Difference | None:
    """Return the first difference at the marked steps, or None; where one has no weights, they are 1."""
    for field, old, new in zip(Targets._fields, filled(before), filled(after), strict=True):
        differ = differing(old, new) & where
        if differ.any():
            t, column = differ.nonzero()[0].tolist()
            return Difference(field, t, column, old[t, column].item(), new[t, column].item())
    return None


def filled(targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Return advantages, value targets and weights, those that are not there as 1."""
    advantages, value_targets, weights = targets
    return advantages, value_targets, torch.ones_like(advantages) if weights is None else weights


def differing(old: Tensor, new: Tensor) -> Tensor:
    """Mark where two tensors differ by more than rounding; a NaN is like another."""
    return ~torch.isclose(old.double(), new.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def place(case: Case, t: int, column: int) -> str:
    """Say where a step is."""
    return f'at step {t} of column {column}, "{drawn(case, t, column)}"'


def drawn(case: Case, t: int, column: int) -> str:
    """Draw a column with a step between brackets; a long one from a little before the step to a little after."""
    text = case.columns[column]
    start, stop = max(0, t - 15), t + 16
    left = "…" if start else ""
    right = "…" if stop < len(text) else ""
    return f"{left}{text[start:t]}[{text[t : t + 1]}]{text[t + 1 : stop]}{right}"
