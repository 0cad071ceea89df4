"""The suite: all checks of a return estimator, and what they find raised together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from a3c.returns import ReturnEstimator
from a3c.testing import company, consistency, construction, credit, ends, form, masks, ratios, state
from a3c.testing.findings import EstimatorError, Finding
from a3c.testing.subject import Subject

Check = Callable[[Subject], str | None]  # returns what it found wrong, or None

# What these rely on is looked at before: `says_how_it_is_used`, `returns_targets` and `is_deterministic`.
CHECKS: tuple[Check, ...] = (
    form.keeps_the_dtype,
    form.is_finite,
    form.carries_no_gradient,
    form.leaves_its_arguments_alone,
    form.leaves_random_numbers_alone,
    masks.ignores_masked_steps,
    masks.ignores_nan_at_masked_steps,
    masks.ignores_padding,
    ends.knows_nothing_beyond_a_terminal_state,
    ends.knows_nothing_beyond_a_time_limit,
    ends.knows_nothing_before_its_episode,
    ends.does_not_know_its_neighbours,
    ends.gives_terminal_states_no_value,
    ends.bootstraps_at_time_limits,
    ends.bootstraps_where_fragments_end,
    company.knows_no_order_of_columns,
    company.needs_no_company,
    consistency.agrees_with_an_exact_critic,
    credit.welcomes_rewards,
    credit.knows_nothing_of_earlier_rewards,
    credit.keeps_its_word_on_advantages,
    ratios.weighs_what_the_policy_prefers,
    ratios.bounds_its_ratios,
    state.keeps_its_state_in_a_call,
    state.takes_in_any_batch,
    state.takes_in_no_masked_step,
    state.takes_in_without_changing_it,
    state.keeps_its_statistics_in_place,
    state.restores_its_state,
    state.gives_copies_of_its_state,
    state.refuses_another_state,
    construction.keeps_its_arguments,
    construction.says_what_the_ones_within_say,
    construction.can_be_built_again,
    construction.can_be_pickled,
)


def check_estimator(estimator: ReturnEstimator) -> None:
    """Check that a return estimator keeps to what training takes for granted.

    It is asked about small made-up batches: fragments in which episodes terminate, meet time limits and go on, or, if
    it needs whole episodes, these; with the policy that acted and with one that has moved on. What is checked, the
    functions of this room say, a sentence each. The estimator itself stays as it is: copies are asked.

    An estimator may use statistics of the whole batch, leave the critic out, or have `target_units` of its own; what
    cannot hold for it is then not asked.

    Args:
        estimator: the estimator, built with the arguments to check.

    Raises:
        EstimatorError: what is wrong, all of it, with what was expected and the likely cause.
        TypeError: it is no `ReturnEstimator`.
        Exception: whatever the estimator itself raises, with a note of the columns that it was asked about.
    """
    if not isinstance(estimator, ReturnEstimator):
        raise TypeError(f"estimator: got {estimator!r}, must be an instance of a class derived from ReturnEstimator")
    findings = _findings(estimator)
    if findings:
        raise EstimatorError(type(estimator).__name__, findings)


def _findings(estimator: ReturnEstimator) -> list[Finding]:
    """Return what is found; without a form to rely on, or the same results twice, the rest would only repeat it."""
    wrong_use = construction.says_how_it_is_used(estimator)
    if wrong_use is not None:
        return [Finding(construction.says_how_it_is_used.__name__, wrong_use)]
    subject = Subject(estimator)
    found = _of(subject)
    trained = state.trained(subject)
    if trained is not None:  # one without data so far may show a fault only later
        known = {finding.check for finding in found}
        later = [each for each in _of(Subject(trained)) if each.check not in known]
        found += [each._replace(text=f"once it has taken batches in: {each.text}") for each in later]
    return found


def _of(subject: Subject) -> list[Finding]:
    for relied_on in (form.returns_targets, form.is_deterministic):
        if found := _made([relied_on], subject):
            return found
    return _made(CHECKS, subject)


def _made(checks: Iterable[Check], subject: Subject) -> list[Finding]:
    found = [(check.__name__, check(subject)) for check in checks]
    return [Finding(name, text) for name, text in found if text is not None]
