"""Return estimators as short texts, ``GAE:lambda_=0.9``: typed on command lines, shown in tables and pictures.

A label is a class name, and after a colon the arguments that are not the defaults. An estimator
within another stands in parentheses: ``L2Normalised:estimator=(NStep:n_steps=5)``. A class of your
own is named by its import path.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import yaml

from a3c import returns
from a3c.returns import ReturnEstimator

OWN = {
    name: value
    for name, value in vars(returns).items()
    if isinstance(value, type) and issubclass(value, ReturnEstimator) and not inspect.isabstract(value)
}


def parse(label: str) -> ReturnEstimator:
    """Build the estimator of a label.

    Args:
        label: as above; the module of a class of your own is imported.

    Raises:
        ValueError: what was given, and what is allowed or nearest.
    """
    name, _, rest = label.partition(":")
    try:
        cls = _class(name.strip())
        return cls(**_arguments(cls, name.strip(), rest))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{label!r}: {error}") from error


def label_of(estimator: ReturnEstimator) -> str:
    """Return the label of an estimator, whose arguments are attributes of the same names."""
    cls = type(estimator)
    name = cls.__name__ if OWN.get(cls.__name__) is cls else f"{cls.__module__}.{cls.__qualname__}"
    parts = []
    for parameter in inspect.signature(cls).parameters.values():
        value = getattr(estimator, parameter.name)
        if isinstance(value, ReturnEstimator):
            inner = label_of(value)
            parts.append(f"{parameter.name}={f'({inner})' if ':' in inner else inner}")
        elif value != parameter.default:
            parts.append(f"{parameter.name}={text_of(value)}")
    return f"{name}:{','.join(parts)}" if parts else name


def text_of(value: Any) -> str:
    """Return a plain value as it is typed, YAML on one line; of any other, what it calls itself."""
    try:
        return yaml.safe_dump(value, default_flow_style=True, width=math.inf).split("\n")[0]
    except yaml.YAMLError:
        return str(value)


def _arguments(cls: type[ReturnEstimator], name: str, text: str) -> dict[str, Any]:
    """Return the arguments of a class that stand in a label after its colon."""
    parameters = inspect.signature(cls).parameters
    arguments: dict[str, Any] = {}
    for part in _parts(text):
        key, _, value = (word.strip() for word in part.partition("="))
        if not value:
            raise ValueError(f"got {part!r}, must be key=value")
        if key not in parameters:
            among = f"must be one of {', '.join(parameters)}" if parameters else f"{name} takes no arguments"
            raise ValueError(f"got key {key!r}, {among}")
        if key in arguments:
            raise ValueError(f"got key {key!r} twice")
        arguments[key] = _value(key, value, "ReturnEstimator" in str(parameters[key].annotation))
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ValueError(f"got no {key}, must be {name}:{key}=VALUE")
    return arguments


def _value(name: str, text: str, is_estimator: bool) -> Any:
    if is_estimator:
        return parse(text[1:-1] if text.startswith("(") and text.endswith(")") else text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: got {text!r}, must be a plain value") from error


def _class(name: str) -> type[ReturnEstimator]:
    if name in OWN:
        return OWN[name]
    module, dot, attribute = name.rpartition(".")
    if not dot or not all(part.isidentifier() for part in name.split(".")):
        near = difflib.get_close_matches(name, OWN, n=1, cutoff=0.4)
        nearest = f"; nearest: {near[0]}" if near else ""
        raise ValueError(
            f"got estimator {name!r}, must be one of {', '.join(OWN)}, or the import path of your own{nearest}"
        )
    try:
        cls = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, ReturnEstimator)):
        raise ValueError(f"{name} is not a class derived from ReturnEstimator")
    return cls


def _parts(text: str) -> Iterator[str]:
    """Split at the commas that stand outside all brackets."""
    depth, part = 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            yield part
            part = ""
        else:
            part += character
    if part.strip():
        yield part
