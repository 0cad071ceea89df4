"""Wrong flags and values, explained in one line: the key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch.optim.lr_scheduler import LRScheduler

from a3c.learner.schedules import Schedule
from a3c.networks import ActorCritic
from a3c.returns import ReturnEstimator
from a3c.training.probe.plan import ProbePlan

# Keys whose value is a class, and the class that it must be derived from.
CLASSES: dict[str, type] = {
    "model.returns": ReturnEstimator,
    "model.network": ActorCritic,
    "model.optimizer": torch.optim.Optimizer,
    "model.lr_schedule": Schedule,
    "model.entropy_schedule": Schedule,
    "model.lr_schedule.scheduler": LRScheduler,
    "model.entropy_schedule.scheduler": LRScheduler,
}

# Keys that take true, false or settings, and what holds the settings.
SETTINGS: dict[str, type] = {"probe": ProbePlan}


class UsageError(ValueError):
    """A flag or value that cannot be used; nothing has been started."""


def explain(message: str, parser: ArgumentParser) -> str:
    """Make one line of a parser's message, with the nearest name where a name is unknown.

    Args:
        message: what jsonargparse says; it nests the message of a class within that of its key.
        parser: whose flags may have been meant.
    """
    message = _of_the_settings(" ".join(message.split()))
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        given = match[1].split("=")[0]
        return f"{given}: no such flag{_nearest(given, _flags(parser))}"
    if match := re.match(r"Group '([^']+)' does not accept option '([^']+)'", message):
        given = f"{match[1]}.{match[2]}"
        return f"{given}: no such key{_nearest(given, _keys(parser))}"
    keys: list[str] = []
    while match := re.search(r'Parser key "([^"]+)":\s*', message):
        if keys[-1:] != [match[1]]:  # of a file that cannot be read the same key is said twice
            keys.append(match[1])
        message = message[match.end() :]
    key = ".".join(keys)
    if _base(key):
        message = _of_the_object(message)
    if match := re.search(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)", message):
        name = f"{key}.{match[1]}".lstrip(".")
        if _base(key):
            names = _parameters(_base(key))
        elif key in SETTINGS:
            names = set(inspect.signature(SETTINGS[key]).parameters)
        else:
            names = {option if "." in match[1] else option.split(".")[-1] for option in _keys(parser)}
        return f"{name}: no such key{_nearest(match[1], names)}"
    return f"{key}: {_explain_value(key, message)}" if key else message


def locate(message: str, keys: Iterable[str]) -> str:
    """Put the whole key before a constructor's message, which begins with the argument's name.

    Args:
        message: "n_steps: got 0, must be at least 1".
        keys: all keys of the configuration.
    """
    name, colon, rest = _of_the_object(_of_the_settings(" ".join(message.split()))).partition(":")
    for key in keys:
        head, _, _ = f".{key}.".partition(f".{name}.")
        if colon and head != f".{key}.":
            return f"{head.removeprefix('.')}.{name}".replace(".init_args", "").lstrip(".") + colon + rest
    return name + colon + rest


def _of_the_object(message: str) -> str:
    """Leave out, of what is said of a key that takes an object or null, that null was not given."""
    pattern = r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - "
    rest, wrapped = re.subn(pattern, "", message)
    return re.sub(r" - Expected a <class 'NoneType'>.*$", "", rest) if wrapped else message


def _of_the_settings(message: str) -> str:
    """Leave out, of what is said of a key that takes true, false or settings, that they are no bool."""
    pattern = (
        r"Does not validate (?:(?!Does not).)*? Errors: - Expected a <class 'bool'> - (?!Expected a dot import path)"
    )
    rest, wrapped = re.subn(rf"{pattern}(?:Problem with given class_path '\S+': )?", "", message)
    return re.sub(r" Given value type: .*$", "", rest) if wrapped else message


def _explain_value(key: str, details: str) -> str:
    if match := re.search(r"Importing '([^']+)' is not allowed", details):
        return f"got {match[1]!r}, must lie under a prefix that you trust: --allow {match[1].partition('.')[0]}"
    if match := re.search(r"Problem with given class_path '([^']+)': (.*)", details):
        return f"got {match[1]!r}: {match[2]}"
    if match := re.search(r"Multiple subclasses with name (\w+)\..*? avoid ambiguity: (.*?)\.(?: |$)", details):
        return f"got {match[1]!r}, must be one of {match[2]}"
    if match := re.search(r"(arguments are required: .*?)\. Got value", details):
        return f"its {match[1]}"
    base = _base(key)
    if base and (match := re.search(r"(?:Expected a dot import path string:|Got value:|Given value:) (\S+)", details)):
        names = sorted(cls.__name__ for cls in _subclasses(base))
        allowed = f"one of {', '.join(names)}" if len(names) < 12 else f"a class derived from {base.__name__}"
        return f"got {match[1]!r}, must be {allowed}, or an import path{_nearest(match[1], names)}"
    if match := re.search(r"File does not exist: '([^']+)'", details):
        return f"got {match[1]!r}, must be a file that exists"
    if match := re.search(r"Subtypes: \[(.*?)\] Errors: .*Given value: (.*?)(?:\. Got value: .*)?$", details):
        return f"got {match[2]}, must be {_type_name(match[1])}"
    if match := re.search(r"Expected a (.*?)\. Got value: (.*)", details):
        return f"got {match[2]}, must be {_type_name(match[1])}"
    return details


def _base(key: str) -> type[Any] | None:
    """Return the class that a key's value is derived from, if it is an object."""
    return ReturnEstimator if key.endswith(".estimator") else CLASSES.get(key)


def _type_name(types: str) -> str:
    """Return a type as jsonargparse writes it in the words of a reader."""
    types = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", types)
    types = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", types).replace("NoneType", "null")
    words = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "text"}
    words |= {settings.__name__: "settings" for settings in SETTINGS.values()}
    return (
        " or ".join(words.get(part.strip(), part.strip()) for part in types.split(", "))
        if "one of" not in types
        else types
    )


def _nearest(given: str, names: Iterable[str]) -> str:
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), lowered, n=1, cutoff=0.6)
    return f"; nearest: {lowered[near[0]]}" if near else ""


def _flags(parser: ArgumentParser) -> list[str]:
    flags = [option for action in parser._actions for option in action.option_strings]
    return (
        flags
        + [f"--{key}.{name}" for key, base in CLASSES.items() for name in _parameters(base)]
        + [f"--{key}.{name}" for key, settings in SETTINGS.items() for name in inspect.signature(settings).parameters]
    )


def _keys(parser: ArgumentParser) -> list[str]:
    return [flag.removeprefix("--") for flag in _flags(parser)]


def _parameters(base: type[Any] | None) -> set[str]:
    return {name for cls in (_subclasses(base) if base else ()) for name in inspect.signature(cls).parameters}


def _subclasses(base: type[Any]) -> list[type[Any]]:
    found: list[type[Any]] = []
    for cls in base.__subclasses__():
        found += [cls, *_subclasses(cls)]
    return [cls for cls in found if not inspect.isabstract(cls) and not cls.__name__.startswith("_")]
