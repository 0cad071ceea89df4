"""Checks of importance ratios: the right way round, and bounded."""

from __future__ import annotations

from a3c.returns import Targets
from a3c.testing.columns import at, make_case, places
from a3c.testing.findings import filled, place
from a3c.testing.subject import Subject

ONE_STEP_EPISODES = ("T", "T", "T")
FAR = 120.0  # log-ratio whose exponential is infinite in 32 bits


def weighs_what_the_policy_prefers(subject: Subject) -> str | None:
    """Where advantages carry importance ratios, an action that became likelier weighs more.

    The ratio is π/μ, below every clip that cuts at 1 or above. Left out where other columns have a say.
    """
    if not subject.estimator.carries_ratios or subject.mixes_columns:
        return None
    case = make_case(ONE_STEP_EPISODES, seed=7)
    rare = case.put("log_probs", case.batch.behaviour_log_probs - 1.0)
    likelier = rare.put("log_probs", rare.log_probs + 0.5 * at(0, 0, case.mask))
    before, after = (subject.ask(each).advantages[0, 0].abs().item() for each in (rare, likelier))
    if after > before:
        return None
    return (
        f"where an action is e times rarer under π than under μ, and then √e times, its advantage in absolute value "
        f"went from {before:.4g} to {after:.4g}; expected more, since carries_ratios is True. Likely cause: μ/π, with "
        "log_probs and batch.behaviour_log_probs in each other's place, the ratio of another step, or none at all"
    )


def bounds_its_ratios(subject: Subject) -> str | None:
    """An action that was all but impossible for the policy that acted leaves the results finite."""
    case = make_case(ONE_STEP_EPISODES, seed=7)
    case = case.put("log_probs", case.batch.behaviour_log_probs + FAR * at(0, 0, case.mask))
    for name, tensor in zip(Targets._fields, filled(subject.ask(case)), strict=True):
        for t, column in places(~tensor.isfinite()):
            return (
                f"with log π − log μ = {FAR:g}, {name} {place(case, t, column)}: got {tensor[t, column].item()}, "
                "expected a finite number. Likely cause: exp without a bound; a3c.returns.importance_ratios has one"
            )
    return None
