"""Checks of what a run must know of an estimator: how rollouts are cut for it, and how it is built again."""

from __future__ import annotations

import inspect
import pickle
from typing import Any, get_args, get_type_hints

import cloudpickle

from a3c.returns import ReturnEstimator
from a3c.testing.findings import difference
from a3c.testing.subject import Subject

UNITS = get_args(get_type_hints(ReturnEstimator)["target_units"])
FLAGS = ("end_at_episode", "reusable", "carries_ratios", "advantages_are_errors")


def says_how_it_is_used(estimator: ReturnEstimator) -> str | None:
    """Its horizon is None or a whole number from 1, its units are known, its flags True or False."""
    horizon = estimator.horizon
    if horizon is not None and not (type(horizon) is int and horizon >= 1):
        return f"horizon: got {horizon!r}, must be None, for whole episodes, or a whole number of steps, at least 1"
    if estimator.target_units not in UNITS:
        return f"target_units: got {estimator.target_units!r}, must be one of {', '.join(UNITS)}"
    for name in FLAGS:
        if not isinstance(getattr(estimator, name), bool):
            return f"{name}: got {getattr(estimator, name)!r}, must be True or False"
    return None


def keeps_its_arguments(subject: Subject) -> str | None:
    """Each constructor argument is an attribute of the same name."""
    cls = type(subject.estimator)
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return (
                f"its constructor takes {parameter}, expected named arguments, by which labels and checkpoints call it"
            )
        if not hasattr(subject.estimator, name):
            return f"it has no attribute {name!r}, expected one for each argument; write self.{name} = {name}"
    return None


def says_what_the_ones_within_say(subject: Subject) -> str | None:
    """One that takes other estimators as arguments has their rollouts, ratios and statistics, as far as it says so."""
    outer = subject.estimator
    for name, inner in vars(outer).items():
        if not isinstance(inner, ReturnEstimator):
            continue
        wrong = {
            "horizon or end_at_episode": inner.needs_segments and not outer.needs_segments,
            "carries_ratios": inner.carries_ratios and not outer.carries_ratios,
            "reusable": outer.reusable and not inner.reusable,
        }
        shared = {statistic.data_ptr() for statistic in outer.statistics.values()}
        wrong["statistics"] = any(each.data_ptr() not in shared for each in inner.statistics.values())
        for flag in [flag for flag, is_wrong in wrong.items() if is_wrong]:
            return (
                f"its {flag} are not those of {name}, {type(inner).__name__}, expected that it takes them over; "
                "a3c.returns.Wrapper does, and hands take_in on"
            )
    return None


def can_be_built_again(subject: Subject) -> str | None:
    """An estimator that is built of these attributes gives the same results, as one from a checkpoint must."""
    if keeps_its_arguments(subject) is not None:
        return None
    original = subject.fresh()
    arguments = {name: getattr(original, name) for name in inspect.signature(type(original)).parameters}
    rebuilt = type(original)(**arguments)
    rebuilt.load_state_dict(original.state_dict())
    cause = "an attribute that is not the argument as it was given"
    return _compared(subject, rebuilt, f"built again of {arguments}, it gives something else", cause)


def can_be_pickled(subject: Subject) -> str | None:
    """A copy by way of cloudpickle, as workers get it, gives the same results."""
    copy = pickle.loads(cloudpickle.dumps(subject.fresh()))
    return _compared(subject, copy, "a pickled copy gives something else", "a __getstate__ that leaves something out")


def _compared(subject: Subject, other: Any, words: str, cause: str) -> str | None:
    for case in subject.cases:
        found = difference(subject.ask(case), subject.ask(case, other), case.mask)
        if found is not None:
            return f"{words}: {found.within(case)}. Likely cause: {cause}"
    return None
