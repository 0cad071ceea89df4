"""Checks of what columns have to do with each other: nothing, but for statistics of the whole batch."""

from __future__ import annotations

from a3c.returns import Targets
from a3c.testing.findings import difference, filled
from a3c.testing.subject import Subject


def knows_no_order_of_columns(subject: Subject) -> str | None:
    """Columns in another order have the same results, whatever statistics of the batch are used."""
    for case in subject.cases:
        order = list(reversed(range(len(case.columns))))
        results = Targets(*(each[:, order] for each in filled(subject.ask(case.taken(order)))))
        found = difference(subject.ask(case), results, case.mask)
        if found is not None:
            return (
                f"with the columns the other way round, {found.within(case)}; expected no change. Likely cause: "
                "something of the column beside (roll, flatten), or of the first one for all"
            )
    return None


def needs_no_company(subject: Subject) -> str | None:
    """A column has the same results without the others, unless their rewards and values are among what it uses."""
    for case in [] if subject.mixes_columns else subject.cases:
        results = filled(subject.ask(case))
        for place in range(len(case.columns)):
            alone = case.taken([place])
            among = Targets(*(each[:, [place]] for each in results))
            found = difference(among, subject.ask(alone), alone.mask)
            if found is not None:
                return (
                    f"asked about column {place} of {list(case.columns)} without the others, {found.within(alone)}; "
                    "expected no change. Likely cause: any(), all() or a length over all columns, or discounts[0, 0]"
                )
    return None
