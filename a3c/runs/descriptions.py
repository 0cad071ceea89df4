"""Plain descriptions of built objects, from which a checkpoint can build them again.

An object is described by its class's import path and its constructor's arguments, read from attributes
of the same names. A class that `a3c` exports is named by that, as ``a3c.NStep``, whatever file it lies
in. A description holds numbers, strings, lists and dicts only. To build from one imports the module that
it names, so it may name only this project, the spaces of Gymnasium, the reader's own modules and what
the reader trusts; what is called is only ever a class of the expected kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

import a3c
from a3c.envs.spaces import KINDS, build_space, space_arguments
from a3c.runs.allowlist import checked_prefixes, lies_under, or_trusted, own_class

TRUSTED = ("a3c", "gymnasium.spaces")


def describe(value: Any) -> Any:
    """Return a description of an object, a space, or a plain value.

    Raises:
        TypeError: a constructor argument is not kept as an attribute of the same name.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) in KINDS:  # first, since a Dict is a mapping and a Tuple a sequence
        return {"class_path": public_path(type(value)), "init_args": describe(space_arguments(value))}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return describe(value.tolist())
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    return {"class_path": public_path(type(value)), "init_args": _arguments(value)}


def public_path(cls: type) -> str:
    """Return where a class is imported from: a3c itself if it exports it, else the module it lies in."""
    ours = cls.__module__.startswith("a3c.") and getattr(a3c, cls.__name__, None) is cls
    return f"a3c.{cls.__name__}" if ours else f"{cls.__module__}.{cls.__qualname__}"


def _arguments(value: Any) -> dict[str, Any]:
    cls = type(value)
    arguments = {}
    for name in inspect.signature(cls).parameters:
        if not hasattr(value, name):
            raise TypeError(
                f"{cls.__name__} keeps no attribute {name!r}: each constructor argument must be kept as an "
                "attribute of the same name, so that a run can be described and loaded again"
            )
        arguments[name] = describe(getattr(value, name))
    return arguments


def build(description: Any, expected: type, allow: str | Iterable[str] = ()) -> Any:
    """Build what `describe` described.

    Args:
        description: of an object, or a plain value.
        expected: class that the object, and objects within it, must be derived from; spaces of
            Gymnasium are allowed within it as well.
        allow: modules and packages, beside `TRUSTED`, from which classes may come.

    Raises:
        ImportError: the class cannot be imported here, or is not allowed to be.
        TypeError: it is not derived from `expected`.
    """
    allow = checked_prefixes(allow)
    if isinstance(description, list):
        return [build(item, expected, allow) for item in description]
    if not isinstance(description, dict):
        return description
    if set(description) != {"class_path", "init_args"}:
        return {key: build(item, expected, allow) for key, item in description.items()}
    cls = _import_class(str(description["class_path"]), expected, allow)
    arguments = {key: build(item, expected, allow) for key, item in description["init_args"].items()}
    return build_space(cls, arguments) if cls in KINDS else cls(**arguments)


def _import_class(path: str, expected: type, allow: tuple[str, ...]) -> type[Any]:
    if not (lies_under(path, (*TRUSTED, *allow)) or own_class(path)):  # before the import, which would run the module
        raise ImportError(
            f"got {path!r}, must be a class of {', '.join(TRUSTED)} or a module below the current folder, "
            f"{or_trusted(path)}"
        )
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(f"{path} cannot be imported: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, (expected, *KINDS))):
        raise TypeError(f"{path} is not a class derived from {expected.__name__}")
    return cls
