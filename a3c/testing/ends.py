"""Checks of what a step's results know: nothing of another episode, and V of the right state at the trace's end."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.returns import ReturnEstimator, Targets
from a3c.testing.columns import STEP_FIELDS, Case, at, following, make_case, open_ends, places, rows_from
from a3c.testing.findings import Difference, difference, differing, filled, place
from a3c.testing.layouts import leak_layouts
from a3c.testing.subject import Subject

SEEDS = 4  # of numbers, where one draw may not show it
FIRST_ROW = 4  # of the second episode in "..T-....."


def knows_nothing_beyond_a_terminal_state(subject: Subject) -> str | None:
    """The next episode in a column changes nothing of one that terminated."""
    return _leak(
        subject,
        "T",
        "discounts are 0 there and end a trace that is multiplied by them; is γ itself used instead?",
    )


def knows_nothing_beyond_a_time_limit(subject: Subject) -> str | None:
    """The next episode in a column changes nothing of one that was truncated."""
    return _leak(
        subject,
        "t",
        "discounts keep their γ there, so the trace must be cut where batch.truncated says so (trace_cuts does); "
        "and V of the final observation is values[t + 1], not values[t + 2]",
    )


def knows_nothing_before_its_episode(subject: Subject) -> str | None:
    """What came before an episode in its column changes nothing of it."""
    for columns in [] if subject.mixes or subject.estimator.needs_segments else [("..T-.....",), ("..t-.....",)]:
        for seed in range(SEEDS):  # a clip may hide it
            case = make_case(columns, seed)
            later = rows_from(FIRST_ROW, 0, case.mask)
            states = ~rows_from(FIRST_ROW, 0, case.values)
            found = difference(subject.ask(case), subject.ask(case.changed(~later).changed(states, ["values"])), later)
            if found is not None:
                return (
                    f"with other numbers up to the reset step, {found.within(case)}; expected no change in the next "
                    "episode. Likely cause: a product or sum that runs forwards over an episode's end, as of ratios"
                )
    return None


def does_not_know_its_neighbours(subject: Subject) -> str | None:
    """Two episodes of one step that change places, above and below another one, leave that one as it is.

    So the check takes estimators as well that divide by a norm or a mean of the column or the batch: these stay the
    same. A leak does not, since it weighs what is near and what is far, or what comes before and after, differently.
    """
    for columns in _neighbours(subject.estimator):
        case = make_case(columns)
        other = _exchanged(case)
        inner = case.mask.clone()
        inner[0, 0] = inner[-1, 0] = False
        inner[:, 1:] = False
        found = difference(subject.ask(case), subject.ask(other), inner)
        if found is not None:
            return (
                f"when the first and the last episode of column 0 change places, {found.within(case)}; expected no "
                "change, whatever statistics of the batch are used. Likely cause: a trace that runs on over an "
                "episode's end, or masked steps among the statistics"
            )
    return None


def gives_terminal_states_no_value(subject: Subject) -> str | None:
    """What the critic says of a terminal state changes nothing."""
    for case in subject.cases:
        terminal = following(case.batch.terminated & case.mask)
        found = difference(subject.ask(case), subject.ask(case.changed(terminal, ["values"])), case.mask)
        if found is not None:
            return (
                f"with other values of terminal states, {found.within(case)}; expected no change, for nothing comes "
                "after them. Likely cause: V is multiplied by γ itself, not by discounts, which are 0 there"
            )
    return None


def bootstraps_at_time_limits(subject: Subject) -> str | None:
    """After a truncated step the critic's value of the final observation stands for what would have come."""
    for case in subject.cases if subject.uses_critic else []:
        missing = _not_bootstrapped(subject, case, case.batch.truncated & ~case.batch.terminated & case.mask)
        if missing is not None:
            return f"the time limit {missing}; a time limit is no end: what would follow is worth values[t + 1]"
    return None


def bootstraps_where_fragments_end(subject: Subject) -> str | None:
    """After the last step of a fragment that ends in mid-episode the critic's value stands for what is to come."""
    for case in subject.cases if subject.uses_critic else []:
        missing = _not_bootstrapped(subject, case, open_ends(case))
        if missing is not None:
            return (
                f"the fragment's end {missing}; what follows is worth values[t + 1], which below the last row is "
                "values[T] and above padding the value in the padding's first row"
            )
    return None


def _leak(subject: Subject, end: str, cause: str) -> str | None:
    for columns in [] if subject.mixes else leak_layouts(subject.estimator, end):
        case = make_case(columns)
        t = columns[0].index(end)
        before = torch.zeros_like(case.mask)
        before[: t + 1, 0] = True
        found = {name: _leak_of(subject, case, t, name, before) for name in (*STEP_FIELDS, "values")}
        leaking = [name for name, each in found.items() if each is not None]
        if leaking:
            first = next(each for each in found.values() if each is not None)
            return (
                f"with other {' and '.join(leaking)} in the episode after the end at step {t}, "
                f"{first.within(case)}; expected no change. Likely cause: {cause}"
            )
    return None


def _leak_of(subject: Subject, case: Case, t: int, name: str, before: Tensor) -> Difference | None:
    """Change the first column from the next episode's first step on, and see whether that is noticed before."""
    after = torch.zeros_like(case.get(name), dtype=torch.bool)
    after[t + 2 :, 0] = True  # row t + 1 is the reset step, and its state the final one of the episode before
    return difference(subject.ask(case), subject.ask(case.changed(after, [name])), before)


def _neighbours(estimator: ReturnEstimator) -> list[tuple[str, ...]]:
    if estimator.needs_segments:
        return []
    return [(f"{end}-..{inner}-{end}", ".......") for end in "Tt" for inner in "Tt"]


def _exchanged(case: Case) -> Case:
    """Let the first and the last step of column 0, and the states before and after each, change places."""
    for name in STEP_FIELDS:
        tensor = case.get(name).clone()
        tensor[[0, -1], 0] = tensor[[-1, 0], 0]
        case = case.put(name, tensor)
    values = case.values.clone()
    values[[0, 1, -2, -1], 0] = values[[-2, -1, 0, 1], 0]
    return case.put("values", values)


def _not_bootstrapped(subject: Subject, case: Case, ends: Tensor) -> str | None:
    """Describe the first of the marked ends whose results do not follow V of the state that the step led to."""
    for t, column in places(ends):
        moved = case.changed(at(t + 1, column, case.values), ["values"])
        followed, rewarded = (_changed_at(subject, case, each, t, column) for each in (moved, _rewarded(case, moved)))
        if missing := [name for name in rewarded if name not in followed]:
            fields = " and ".join(missing)
            where = f"{place(case, t, column)}: with another values[{t + 1}] {fields} did not change at step {t}"
            if "value_targets" in missing and _target_follows(subject, case, t, column):
                return f"{where}, but with another values[{t}] the value target did: the state before the last action"
            return f"{where}, expected the value of the state after the last action in it"
    return None


def _rewarded(case: Case, moved: Case) -> Case:
    """Give with the rewards what another case has in the values of the states that they led to.

    Where that changes nothing either, nothing can be seen: a column of one step, divided by its norm, is 1 or −1.
    """
    return case.put("rewards", case.batch.rewards + case.discounts * (moved.values - case.values)[1:])


def _changed_at(subject: Subject, case: Case, other: Case, t: int, column: int) -> list[str]:
    """Return which of advantages and value targets differ at a step."""
    pairs = zip(Targets._fields[:2], filled(subject.ask(case)), filled(subject.ask(other)), strict=False)
    return [name for name, old, new in pairs if differing(old, new)[t, column]]


def _target_follows(subject: Subject, case: Case, t: int, column: int) -> bool:
    changed = case.changed(at(t, column, case.values), ["values"])
    old, new = filled(subject.ask(case))[1], filled(subject.ask(changed))[1]
    return bool(differing(old, new)[t, column])
