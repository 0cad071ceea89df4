"""Wrong flags and values, explained in one line: the key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable

import torch
from jsonargparse import ArgumentParser

from a3c.networks import ActorCritic
from a3c.returns import ReturnEstimator

# Keys whose value is a class, and the class that it must be derived from.
CLASSES: dict[str, type] = {
    "model.returns": ReturnEstimator,
    "model.network": ActorCritic,
    "model.optimizer": torch.optim.Optimizer,
}


def explain(message: str, parser: ArgumentParser) -> str:
    """Makes one line of a parser's message, with the nearest name where a name is unknown.

    Args:
        message: what jsonargparse says.
        parser: whose flags may have been meant.
    """
    message = " ".join(message.split())
    if match := re.search(r"unrecognized arguments: (\S+)", message):
        given = match[1].split("=")[0]
        return f"{given}: no such flag{_nearest(given, _flags(parser))}"
    if match := re.search(r"Group '([^']+)' does not accept option '([^']+)'", message):
        given = f"{match[1]}.{match[2]}"
        return f"{given}: no such key{_nearest(given, _keys(parser))}"
    if match := re.search(r"(?:Option '([^']+)' is not accepted|Key '([^']+)' is not expected)", message):
        given = match[1] or match[2]
        return f"{given}: no such option{_nearest(given, _options(parser))}"
    if match := re.search(r'Parser key "([^"]+)": (.*)', message):
        return _explain_value(match[1], match[2])
    return message


def locate(message: str, keys: Iterable[str]) -> str:
    """Puts the whole key before a constructor's message, which begins with the argument's name.

    Args:
        message: "n_steps: got 0, must be at least 1".
        keys: all keys of the configuration.
    """
    name, colon, rest = message.partition(":")
    found = [key for key in keys if key.split(".")[-1] == name]
    return f"{found[0].replace('.init_args', '')}{colon}{rest}" if colon and found else message


def _explain_value(key: str, details: str) -> str:
    base = next((base for name, base in CLASSES.items() if key == name or key.endswith(".estimator")), None)
    if base is not None and key != "model.optimizer":
        base = CLASSES.get(key, ReturnEstimator)
    elif base is not None:
        base = torch.optim.Optimizer
    given = re.search(r"(?:Expected a dot import path string|Got value): (\S+)", details)
    if base is not None and given is not None:
        names = sorted(cls.__name__ for cls in _subclasses(base))
        allowed = f"one of {', '.join(names)}" if len(names) < 12 else f"a class derived from {base.__name__}"
        return f"{key}: got {given[1]!r}, must be {allowed}, or an import path{_nearest(given[1], names)}"
    if match := re.search(r"Expected a (.*?)\. Got value: (.*)", details):
        allowed = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", match[1])
        allowed = re.sub(r"<class '(.*?)'>", r"\1", allowed)
        return f"{key}: got {match[2]}, must be {allowed}"
    return f"{key}: {details}"


def _nearest(given: str, names: Iterable[str]) -> str:
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), lowered, n=1, cutoff=0.4)
    return f"; nearest: {lowered[near[0]]}" if near else ""


def _flags(parser: ArgumentParser) -> list[str]:
    flags = [option for action in parser._actions for option in action.option_strings]
    return flags + [f"--{key}.{name}" for key, base in CLASSES.items() for name in _parameters(base)]


def _keys(parser: ArgumentParser) -> list[str]:
    return [flag.removeprefix("--") for flag in _flags(parser)]


def _options(parser: ArgumentParser) -> list[str]:
    return [key.split(".")[-1] for key in _keys(parser)]


def _parameters(base: type) -> set[str]:
    return {name for cls in _subclasses(base) for name in inspect.signature(cls).parameters}


def _subclasses(base: type) -> list[type]:
    found = []
    for cls in base.__subclasses__():
        found += [cls, *_subclasses(cls)]
    return [cls for cls in found if not inspect.isabstract(cls) and not cls.__name__.startswith("_")]
