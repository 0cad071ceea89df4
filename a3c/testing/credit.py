"""Checks of what a step's results owe to rewards: its own and those that follow, with the right sign."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from a3c.returns import Targets
from a3c.testing.columns import Case
from a3c.testing.findings import TOLERANCE, difference, differing, filled, place
from a3c.testing.subject import Subject

MORE = 3.0  # of a reward
ROWS = 8  # of a case, at most, that are given more


def welcomes_rewards(subject: Subject) -> str | None:
    """More reward for a step makes neither its advantage nor its value target smaller.

    Left out where statistics of the column or the batch are used: these follow the reward as well.
    """
    for case, t, before, after in _with_more_reward(subject):
        for name, old, new in zip(Targets._fields[:2], filled(before), filled(after), strict=False):
            fell = case.mask[t] & (new[t] < old[t] - 10 * TOLERANCE * (1 + old[t].abs()))
            if fell.any():
                column = int(fell.nonzero()[0])
                return (
                    f"with {MORE:g} more as rewards[{t}], {name} {place(case, t, column)}: {old[t, column]:.4g} became "
                    f"{new[t, column]:.4g}; expected no less. Likely cause: a sign, such as values less targets"
                )
    return None


def knows_nothing_of_earlier_rewards(subject: Subject) -> str | None:
    """The reward of a step changes nothing of the steps after it: it is no consequence of what they do.

    Left out where statistics of the column or the batch are used.
    """
    for case, t, before, after in _with_more_reward(subject):
        later = case.mask.clone()
        later[: t + 1] = False
        found = difference(before, after, later)
        if found is not None:
            return (
                f"with {MORE:g} more as rewards[{t}], {found.within(case)}; expected no change after the step. Likely "
                "cause: rewards a step late, or a recursion that runs forwards"
            )
    return None


def keeps_its_word_on_advantages(subject: Subject) -> str | None:
    """Where `advantages_are_errors` is True, the advantages are the value targets less the values."""
    for case in subject.cases if subject.estimator.advantages_are_errors else []:
        targets = subject.ask(case)
        errors = targets.value_targets - case.values[:-1]
        wrong = differing(targets.advantages, errors) & case.mask
        if wrong.any():
            t, column = wrong.nonzero()[0].tolist()
            return (
                f"advantages {place(case, t, column)}: got {targets.advantages[t, column]:.4g}, expected the value "
                f"target less values[{t}], {errors[t, column]:.4g}, since advantages_are_errors is True; leave that "
                "out, or L2Normalised puts others in their place"
            )
    return None


def _with_more_reward(subject: Subject) -> Iterator[tuple[Case, int, Targets, Targets]]:
    """Yield cases, a row in which all columns are given more, and the results without it and with it."""
    for case in [] if subject.mixes else subject.cases:
        before, length = subject.ask(case), case.batch.length
        for t in range(0, length, -(-length // ROWS)):
            yield case, t, before, subject.ask(case.put("rewards", _more(case.batch.rewards, t)))


def _more(rewards: Tensor, t: int) -> Tensor:
    return rewards.index_add(0, torch.tensor([t]), torch.full_like(rewards[:1], MORE))
