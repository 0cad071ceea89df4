"""The check that rewards, discounts and values are taken of the right steps."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.returns import Targets
from a3c.testing.columns import Case, Columns, make_case, with_exact_critic
from a3c.testing.findings import TOLERANCE, place
from a3c.testing.subject import Subject

OWN_UNITS = 'if its targets are by intention not those of the rewards, say target_units = "own"'
CAUSE = (
    "rewards, discounts or values a step off: what belongs together is rewards[t] + discounts[t] · values[t + 1] and "
    "values[t]"
)


def agrees_with_an_exact_critic(subject: Subject) -> str | None:
    """Where the critic is right and the policy acted itself, its values are the targets, and no action is better.

    That holds for any mixture of n-step returns, and for any weights of the errors. Half of the columns have an exact
    critic, so that an estimator which brings the batch's advantages to another scale has one: there all must be alike,
    and 0 if nothing is shared. Targets in units of their own are left out, and advantages that are measured against
    something else than the critic or scaled by their own column.
    """
    if subject.estimator.target_units == "own":
        return None
    for columns in subject.layouts:
        case, exact = _half_exact(subject, columns)
        if exact.any():
            targets = subject.ask(case)
            finding = _wrong_target(case, targets, exact) or _wrong_advantage(case, targets, exact, subject)
            if finding is not None:
                return finding
    return None


def _half_exact(subject: Subject, columns: Columns) -> tuple[Case, Tensor]:
    """Put each column once with an exact critic and once with another; mark the steps that are judged."""
    width = len(columns)
    case = with_exact_critic(make_case((*columns, *columns), seed=3, on_policy=True), range(width))
    exact = case.mask.clone()
    exact[:, width:] = False
    if not subject.uses_critic:  # then nothing stands for what a time limit cuts off
        exact &= ~case.batch.truncated.any(0)
    return case, exact


def _wrong_target(case: Case, targets: Targets, exact: Tensor) -> str | None:
    error = targets.value_targets - case.values[:-1]
    wrong = (error.abs() > 10 * TOLERANCE * (1 + case.values[:-1].abs())) & exact
    if not wrong.any():
        return None
    t, column = wrong.nonzero()[0].tolist()
    got, value = targets.value_targets[t, column].item(), case.values[t, column].item()
    text = f"value_targets {place(case, t, column)}: got {got:.4g}, expected {value:.4g}"
    return f"{text}, {_why(case, wrong, exact)}; {OWN_UNITS}"


def _wrong_advantage(case: Case, targets: Targets, exact: Tensor, subject: Subject) -> str | None:
    shared = subject.mixes_columns
    if not subject.measures_against_critic or (subject.mixes_steps and not shared):
        return None
    expected = targets.advantages[exact].median() if shared else torch.tensor(0.0)
    wrong = ((targets.advantages - expected).abs() > 10 * TOLERANCE) & exact
    if not wrong.any():
        return None
    t, column = wrong.nonzero()[0].tolist()
    got, alike = targets.advantages[t, column].item(), f"{expected.item():.4g}{', as at most others' if shared else ''}"
    return f"advantages {place(case, t, column)}: got {got:.4g}, expected {alike}, {_why(case, wrong, exact)}"


def _why(case: Case, wrong: Tensor, exact: Tensor) -> str:
    text = "since the critic was made to be right there and the policy acted itself."
    ends = case.batch.truncated & ~case.batch.terminated & exact
    if ends.any() and wrong[ends].all() and not wrong[case.batch.terminated & exact].any():
        text += " All steps at time limits are wrong: is values[t + 1] taken there, and no row before or after?"
    return f"{text} Likely cause: {CAUSE}"
