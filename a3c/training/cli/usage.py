"""Wrong flags and values, explained in one line: the key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser
from jsonargparse._typehints import get_class_types
from torch import Tensor

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    Mapping: "a mapping",
}
SETTINGS = "settings"
MOST_NAMES = 12  # of classes in a message


class UsageError(ValueError):
    """A flag or value that cannot be used; nothing has been started."""


class ProblemError(ArgumentError):
    """What a parser refuses; one within another, for the arguments of a class, hands it on through jsonargparse.

    Args:
        key: of the parser, or "".
        text: what was given, and what is allowed.
        denied: the import path that is not allowed, if it is that.
    """

    def __init__(self, key: str, text: str, denied: str = "") -> None:
        super().__init__(None, f"{key}: {text}" if key else text)
        self.key = key
        self.text = text
        self.denied = denied


def explain(message: str, error: BaseException | None, parser: ArgumentParser) -> ProblemError:
    """Find out what a parser could not use, and make one line of it, with the nearest name where one is unknown.

    Args:
        message: what jsonargparse says.
        error: what it raised, with its causes.
        parser: whose flags may have been meant.
    """
    message = " ".join(message.split()).removeprefix("Problems parsing config: ")
    within = parser.exit_on_error is False  # for the arguments of a class
    if message.startswith("unrecognized arguments: "):
        flag = message.split()[2].partition("=")[0]
        if not within:
            return ProblemError("", f"{flag}: no such flag{nearest(flag, [f'--{key}' for key in _keys(parser)])}")
        return _unknown(flag.removeprefix("--"), parser)
    if within and message.startswith("the following arguments are required: "):
        return ProblemError("", f"its {message.removeprefix('the following ')}")
    key, causes = "", list(_causes(error))
    for cause in causes:
        if isinstance(cause, UsageError):
            return ProblemError("", str(cause))
        if isinstance(cause, ProblemError):
            return ProblemError(".".join(filter(None, [key, cause.key])), cause.text, cause.denied)
        text = " ".join(str(cause).split())
        if match := re.match(r'Parser key "([^"]+)"', text):
            key = match[1]
        elif isinstance(cause, KeyError) and "not accept" in text:  # a group's option, or one alone
            return _unknown(".".join(re.findall(r"'([^']+)'", text)), parser)
    texts = [message, *(" ".join(str(cause).split()) for cause in causes)]
    for text in texts:
        if match := re.search(r"Importing '([^']+)' is not allowed", text):
            return ProblemError(key, text, denied=match[1])
    return ProblemError(key, _explain_value(key, texts, parser) if key else message)


def locate(error: BaseException, keys: Iterable[str]) -> str:
    """Put the whole key before a constructor's message, which begins with the argument's name.

    Args:
        error: its message is "n_steps: got 0, must be at least 1".
        keys: all keys of the configuration.
    """
    while error.__cause__ is not None and str(error).startswith(("Does not validate", "Problem with given class_path")):
        error = error.__cause__  # jsonargparse tries out what a key may be
    name, colon, rest = " ".join(str(error).split()).partition(":")
    for key in keys:
        head, _, _ = f".{key}.".partition(f".{name}.")
        if colon and head != f".{key}.":
            return f"{head.removeprefix('.')}.{name}".replace(".init_args", "").lstrip(".") + colon + rest
    return name + colon + rest


def nearest(given: str, names: Iterable[str]) -> str:
    """Return "; nearest: NAME" if one of the names is like what was given, else nothing."""
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), lowered, n=1, cutoff=0.6)
    return f"; nearest: {lowered[near[0]]}" if near else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # jsonargparse reads a file that cannot be used once more, within itself, and so hides why.
        error = error.__context__ if "Config file loop detected" in str(error) else error.__cause__


def _unknown(given: str, parser: ArgumentParser) -> ProblemError:
    """Say that a parser has no such key."""
    return ProblemError(given, f"no such key{nearest(given, _keys(parser))}")


def _explain_value(key: str, causes: list[str], parser: ArgumentParser) -> str:
    """Say what a key was given and what is allowed there, by its type and by what jsonargparse says, innermost last."""
    details = causes[-1]
    if "Give the full class path" in details:
        given = details.partition("with name ")[2].partition(".")[0]
        return f"got {given!r}, must be one of {details.partition('ambiguity: ')[2].rstrip('.')}"
    if match := re.search(r"File does not exist: '([^']+)'", details):
        return f"got {match[1]!r}, must be a file that exists"
    typehint = next((vars(action).get("_typehint") for action in parser._actions if action.dest == key), None)
    bases = [cls for cls in _bases(typehint) if not is_dataclass(cls)]
    for cause in reversed(causes):
        if bases and (match := re.search(r"Import path (\S+) does not correspond", cause)):
            return f"got {match[1]!r}, must be a class derived from {bases[0].__name__}"
        if bases and (match := re.search(r"Problem with given class_path '([^']+)': (.*)", cause)):
            return f"got {match[1]!r}: {match[2]}"
        if bases and (match := re.search(r"(?:path string:|Got value:|Given value:) (\S+)", cause)):
            names = {cls.__name__: cls.__module__.partition(".")[0] for cls in _classes(typehint)}
            ours = sorted(name for name, package in names.items() if bases[0].__module__.startswith(f"{package}."))
            allowed = (
                f"one of {', '.join(ours)}" if len(ours) < MOST_NAMES else f"a class derived from {bases[0].__name__}"
            )
            return f"got {match[1]!r}, must be {allowed}, or an import path{nearest(match[1], names)}"
    for cause in causes:
        for sign in ("Given value: ", "Got value: "):
            if typehint is not None and sign in cause:
                return f"got {cause.rpartition(sign)[2]}, must be {_allowed(typehint)}"
    return details


def _allowed(typehint: Any) -> str:
    """Return a type in the words of a reader."""
    origin = get_origin(typehint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(typehint)))}"
    if origin in (Union, UnionType):
        return " or ".join(sorted(map(_allowed, get_args(typehint)), key=lambda words: words == SETTINGS))
    if is_dataclass(typehint):
        return SETTINGS
    kind = origin or typehint
    return WORDS[kind] if kind in WORDS else str(getattr(kind, "__name__", kind))


def _keys(parser: ArgumentParser) -> list[str]:
    """Return the keys of a parser, and those of the classes that these take."""
    keys = []
    for action in parser._actions:
        keys += [option.removeprefix("--") for option in action.option_strings]
        for cls in _classes(vars(action).get("_typehint")):
            keys += [f"{action.dest}.{name}" for name in inspect.signature(cls).parameters]
    return keys


def _classes(typehint: Any) -> Iterator[type]:
    """Return the classes that a key of a type takes by their names."""
    found = _bases(typehint)
    for cls in found:
        found += cls.__subclasses__()
        if not (inspect.isabstract(cls) or cls.__name__.startswith("_")):
            yield cls


def _bases(typehint: Any) -> list[type]:
    """Return the classes that a type speaks of; but not tensors, which an optimizer's numbers may be as well."""
    return [cls for cls in get_class_types(typehint) if cls is not Tensor]
