"""Wrong flags and values, explained in one line: the key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser

# What jsonargparse expects, in the words of a reader.
WORDS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "Mapping": "a mapping",
    "list": "a list",
    "Sequence": "a list",
}
MOST_NAMES = 12  # of classes of another package in a message
DENIED = "may not import "  # the whole of an explanation but for the path
NOTHING = "''"  # a value without a character
# Around what a parser within another one, for the arguments of a class, has explained.
BEGIN, END = "‹", "›"


class UsageError(Exception):
    """A flag or value that cannot be used; nothing has been started."""


@contextmanager
def refusing(prefix: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Make a usage error of an error that says what is wrong with a value, with its key before it."""
    try:
        yield
    except kind as error:
        raise UsageError(f"{prefix}{error}") from error


def explain(message: str, error: BaseException | None, parser: ArgumentParser) -> tuple[str, str]:
    """Find out what a parser could not use, and say it in one line, with the nearest name where one is unknown.

    Args:
        message: what jsonargparse says.
        error: what it raised, with its causes.
        parser: whose flags may have been meant.

    Returns:
        The key, or "", and what was given and what is allowed there; `DENIED` and the path for an import that is
        not allowed.
    """
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    if "Config file loop detected" in str(error) and error is not None and error.__context__ is not None:
        message += f" {error.__context__}"  # it reads a file that cannot be used once more, within itself
    message = re.sub(r"((?:value|path string):)[^\S\n]*$", rf"\1 {NOTHING}", message, flags=re.MULTILINE)
    message = " ".join(message.split()).removeprefix("Problems parsing config: ")
    flags = [flag for action in parser._actions for flag in action.option_strings]
    if message.startswith("unrecognized arguments: "):
        flag = message.split()[2].partition("=")[0]
        return "", f"{flag}: no such flag{nearest(flag, flags)}"
    outer, _, inner = message.partition(BEGIN)
    *_, key = "", *re.findall(r'Parser key "([^"]+)"', outer)
    if inner:
        within, _, text = inner.partition(END)[0].partition(": ")
        return ".".join(filter(None, [key, within])), text
    if denied := re.search(r"Importing '([^']+)' is not allowed", message):
        return key, f"{DENIED}{denied[1]}"
    if unknown := ".".join(re.findall(r"(?:Group|[Oo]ption) '([^']+)'", message)):  # of a group, or one alone
        return unknown, f"no such key{nearest(unknown, [flag.removeprefix('--') for flag in flags])}"
    if message == "Unexpected config:":
        return "config", f"got {NOTHING}, must be a file that exists"
    if message.startswith("the following arguments are required: "):
        return "", f"its {message.removeprefix('the following ')}"
    return key, _explain_value(key, message, parser) if key else message


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


def classes_of(typehint: Any, within: str) -> list[type]:
    """Return the classes of a package that can be named where a type is wanted."""
    bases = [cls for cls in _classes(typehint) if not is_dataclass(cls)]
    return [cls for cls in _concrete(bases) if cls.__module__.partition(".")[0] == within]


def _explain_value(key: str, message: str, parser: ArgumentParser) -> str:
    """Say what a key was given and what is allowed there, by its type and by what jsonargparse says."""
    if "Give the full class path" in message:
        given = message.partition("with name ")[2].partition(".")[0]
        return f"got {given!r}, must be one of {message.partition('ambiguity: ')[2].rstrip('.')}"
    if match := re.search(r"File does not exist: '([^']+)'", message):
        return f"got {match[1]!r}, must be a file that exists"
    if match := re.search(r"Problem with given class_path '([^']+)': (.*?)(?: - Expected|$)", message):
        return f"got {match[1]!r}: {match[2]}"
    typehint = next((vars(action).get("_typehint") for action in parser._actions if action.dest == key), None)
    classes = list(_classes(typehint))
    bases = [cls for cls in classes if not is_dataclass(cls)]
    match = re.search(r"(?:Import path (?!does)|path string: |Given value: |Got value: )(\S+)", message)
    if match and bases and "does not correspond" in message:
        return f"got {match[1]!r}, must be a class derived from {bases[0].__name__}"
    without_class = match is not None and "NestedArg(" in match[1]  # an argument of a class that nobody names
    if match and bases and (without_class or "path string: " in message or "Not a valid subclass" in message):
        names = {cls.__name__: cls.__module__.partition(".")[0] for cls in _concrete(bases)}
        ours = sorted(name for name, package in names.items() if bases[0].__module__.startswith(f"{package}."))
        few = len(ours) < MOST_NAMES or bases[0].__module__.startswith("a3c.")
        allowed = f"one of {', '.join(ours)}" if few else f"a class derived from {bases[0].__name__}"
        given = "no class" if without_class else NOTHING if match[1] == NOTHING else repr(match[1])
        return f"got {given}, must be {allowed}, or an import path{nearest(match[1], names)}"
    expected = re.findall(r"Expected a (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.*?)\])", message)
    words = [
        WORDS.get(name, name) if name else f"one of {names}" if ", " in names else names for name, names in expected
    ]
    if len(bases) < len(classes):
        words.append("settings")
    for sign in ("Given value: ", "Got value: "):
        if words and sign in message:
            return f"got {message.rpartition(sign)[2]}, must be {' or '.join(words)}"
    if match := re.search(r'Unable to load config "([^"]*)"', message):
        return f"got {match[1]!r}, must be settings, or a file of them"
    return message.rpartition(f'Parser key "{key}":')[2].strip()


def _classes(typehint: Any) -> Iterator[type]:
    """Return the classes within a type, of a callable those that it returns; but not tensors, which numbers may be."""
    parts = get_args(typehint)
    for part in parts[-1:] if get_origin(typehint) is Callable else parts:
        yield from _classes(part)
    if isinstance(typehint, type) and typehint.__module__ not in ("builtins", "typing", "torch") and not parts:
        yield typehint


def _concrete(classes: Iterable[type]) -> Iterator[type]:
    """Return the classes that can be named for one of these: they and all that are derived from them."""
    for cls in classes:
        if not (inspect.isabstract(cls) or cls.__name__.startswith("_")):
            yield cls
        yield from _concrete(cls.__subclasses__())
