"""Checks of what an estimator learns itself: only `take_in` changes it, and a checkpoint brings it back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from a3c.returns import ReturnEstimator
from a3c.testing.columns import Case, make_case, states_that_count
from a3c.testing.findings import difference
from a3c.testing.subject import Subject


def trained(subject: Subject) -> ReturnEstimator | None:
    """Return a copy that has taken all cases in; None if that changes nothing."""
    copy = _taken_in(subject, *subject.cases)
    return copy if _changed(subject.estimator.state_dict(), copy.state_dict()) else None


def keeps_its_state_in_a_call(subject: Subject) -> str | None:
    """A call changes no statistic: it may be one of several on the same batch."""
    estimator = subject.fresh()
    before = _copied(estimator.state_dict())
    for case in subject.cases:
        subject.ask(case, estimator)
    changed = _changed(before, estimator.state_dict())
    if changed:
        return f"a call changed {', '.join(changed)} of its state; expected no change: statistics follow in take_in"
    return None


def takes_in_any_batch(subject: Subject) -> str | None:
    """After `take_in`, of a batch without a real step too, the statistics are finite."""
    estimator = subject.fresh()
    for case in subject.cases:
        subject.take_in(case.copy(), estimator)
        for name, value in estimator.state_dict().items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                return (
                    f"after take_in of the columns {list(case.columns)}, {name} is {value.tolist()}, expected finite "
                    "numbers. Likely cause: a division by the number of real steps, which may be 0, or of the deviation"
                )
    return None


def takes_in_no_masked_step(subject: Subject) -> str | None:
    """What stands at masked steps changes no statistic, and neither does NaN there."""
    for case in subject.cases:
        other = case.changed(~case.mask).changed(~states_that_count(case), ["values"])
        poisoned = case.put("rewards", case.batch.rewards.where(case.mask, torch.nan))
        plain = _taken_in(subject, case).state_dict()
        for words, each in (("other numbers", other), ("NaN as reward", poisoned)):
            changed = _changed(plain, _taken_in(subject, each).state_dict())
            if changed:
                return (
                    f"with {words} at masked steps of the columns {list(case.columns)}, take_in made other "
                    f"{', '.join(changed)}; expected no change. Likely cause: a mean over all steps; take [batch.mask]"
                )
    return None


def takes_in_without_changing_it(subject: Subject) -> str | None:
    """`take_in` leaves its arguments as they are."""
    for case in subject.cases:
        shown = case.copy()
        subject.take_in(shown, subject.fresh())
        for name in (*case.batch._fields, "values", "log_probs", "discounts"):
            if not torch.equal(case.get(name), shown.get(name)):
                return f"take_in changed {name}, which others use as well. Likely cause: an operation in place"
    return None


def keeps_its_statistics_in_place(subject: Subject) -> str | None:
    """The statistics stay the same tensors, which workers that learn share."""
    estimator = subject.fresh()
    before = dict(estimator.statistics)
    for words in ("take_in", "load_state_dict"):
        if words == "take_in":
            subject.take_in(_some(subject), estimator)
        else:
            estimator.load_state_dict(estimator.state_dict())
        for name, statistic in estimator.statistics.items():
            if name not in before or statistic.data_ptr() != before[name].data_ptr():
                return (
                    f"{words} put another tensor in the place of statistics[{name!r}], expected the same one, changed "
                    "in place (copy_, add_, lerp_), since workers share its memory"
                )
    return None


def restores_its_state(subject: Subject) -> str | None:
    """One that loads the state of another gives the same results."""
    trained = _taken_in(subject, *subject.cases)
    restored = subject.fresh()
    restored.load_state_dict(trained.state_dict())
    for case in subject.cases:
        found = difference(subject.ask(case, trained), subject.ask(case, restored), case.mask)
        if found is not None:
            return (
                f"loaded into a fresh one, state_dict() does not bring back the same results: {found.within(case)}. "
                "Likely cause: something that take_in changes is no part of statistics or state_dict()"
            )
    return None


def gives_copies_of_its_state(subject: Subject) -> str | None:
    """A state that was given does not follow what is taken in later."""
    estimator = subject.fresh()
    state = estimator.state_dict()
    before = _copied(state)
    for case in subject.cases:
        subject.take_in(case.copy(), estimator)
    changed = _changed(before, state)
    return f"take_in changed {', '.join(changed)} of a state_dict() that was given before: clone()" if changed else None


def refuses_another_state(subject: Subject) -> str | None:
    """The state of another estimator is refused with a ValueError."""
    estimator = subject.fresh()
    try:
        estimator.load_state_dict({"no_such_statistic": torch.zeros(1)})
    except ValueError:
        return None
    except Exception as error:
        return (
            f"it refused the state of another estimator with {error!r}, expected a ValueError that names what it keeps"
        )
    return "it took a state with no_such_statistic, of another estimator; expected a ValueError"


def _taken_in(subject: Subject, *cases: Case) -> ReturnEstimator:
    estimator = subject.fresh()
    for case in cases:
        subject.take_in(case.copy(), estimator)
    return estimator


def _some(subject: Subject) -> Case:
    """Return a case that none of the statistics has seen."""
    return make_case(subject.layouts[0], seed=50)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if not _same(before.get(name), after.get(name)))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)
    return bool(one == other)
