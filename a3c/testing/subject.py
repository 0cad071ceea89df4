"""The estimator that is checked: how it is asked, and what kind it is by what it does."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from a3c.returns import ReturnEstimator, Targets
from a3c.testing.columns import LEGEND, Case, Columns, make_case, rows_from
from a3c.testing.findings import difference
from a3c.testing.layouts import layouts_for


class Subject:
    """An estimator under examination; it itself is never called, only copies of it.

    Which kind it is shows in what it does, so that nobody has to declare it, and nobody can declare it wrongly.

    Args:
        estimator: the estimator.
    """

    def __init__(self, estimator: ReturnEstimator) -> None:
        self.estimator = estimator

    def fresh(self) -> ReturnEstimator:
        """Return a copy in the state in which the estimator was given."""
        return deepcopy(self.estimator)

    def ask(self, case: Case, estimator: ReturnEstimator | None = None) -> Targets:
        """Return the results of an estimator, or of a fresh copy of ours, for a copy of a case, without gradients."""
        with torch.no_grad():
            return Targets(*self.call(case.copy(), estimator))

    def call(self, case: Case, estimator: ReturnEstimator | None = None) -> Any:
        """Return whatever it returns; what it raises goes on with a note of the columns."""
        try:
            return (estimator or self.fresh())(*case[1:])
        except Exception as error:
            error.add_note(self._note(case))
            raise

    def take_in(self, case: Case, estimator: ReturnEstimator) -> None:
        """Have an estimator's statistics follow a case; what it raises goes on with a note of the columns."""
        try:
            with torch.no_grad():
                estimator.take_in(*case[1:])
        except Exception as error:
            error.add_note(self._note(case))
            raise

    def _note(self, case: Case) -> str:
        return f"{type(self.estimator).__name__} raised it for columns drawn as {list(case.columns)} ({LEGEND})."

    @cached_property
    def layouts(self) -> list[Columns]:
        """Columns as it would be given them."""
        return layouts_for(self.estimator)

    @cached_property
    def cases(self) -> list[Case]:
        """A case of each layout with a policy that has moved on, and one with the policy that acted."""
        moved_on = [make_case(columns, seed) for seed, columns in enumerate(self.layouts)]
        return moved_on + [make_case(columns, 100 + seed, on_policy=True) for seed, columns in enumerate(self.layouts)]

    @property
    def mixes(self) -> bool:
        """Whether it uses statistics of the column or the batch."""
        return self.mixes_columns or self.mixes_steps

    @cached_property
    def mixes_columns(self) -> bool:
        """Whether a step's results depend on other columns; no recursion goes there."""
        case = next(each for each in self.cases if len(each.columns) > 1)
        other = rows_from(0, 1, case.mask)
        changed = case.changed(other).changed(rows_from(0, 1, case.values), ["values"])
        return self._differ(case, changed, case.mask & ~other)

    @cached_property
    def mixes_steps(self) -> bool:
        """Whether a step's results depend on earlier ones in its column; recursions run backwards."""
        case, rows = (self.cases[0], 1) if self.estimator.needs_segments else (make_case(("..T-.....",)), 3)
        first = ~rows_from(rows, 0, case.mask)
        states = ~rows_from(rows + (rows > 1), 0, case.values)  # with that which the end led to
        return self._differ(case, case.changed(first, ["rewards"]).changed(states, ["values"]), case.mask & ~first)

    @cached_property
    def uses_critic(self) -> bool:
        """Whether its advantages depend on the critic at all."""
        return any(self._advantages_follow_values(case) for case in self.cases)

    @cached_property
    def measures_against_critic(self) -> bool:
        """Whether V of the state acted in is what an advantage is measured against, nothing being bootstrapped."""
        case = make_case(("T", "T", "T"), seed=7)
        return self._advantages_follow_values(case)

    def _differ(self, one: Case, other: Case, where: Tensor) -> bool:
        return difference(self.ask(one), self.ask(other), where) is not None

    def _advantages_follow_values(self, case: Case) -> bool:
        changed = case.changed(torch.ones_like(case.values, dtype=torch.bool), ["values"])
        found = difference(self.ask(case), self.ask(changed), case.mask)
        return found is not None and found.field == "advantages"
