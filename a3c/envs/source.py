"""What makes one environment: a registered id, an import path, or a callable; and how it is named and found."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as Registered

from a3c.envs import atari, envpool
from a3c.envs.packages import INSTALL, OF_A_PACKAGE


class EnvError(ValueError):
    """An environment that does not exist, cannot be made, or is of a kind not supported."""

    fatal = True  # a worker that ends with it is not replaced


def described(make: Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    """Return what a checkpoint says of a callable: its import path, and the arguments that it binds.

    Of what cannot be imported, since it was made in a script, a notebook or a function, the path stands in <>.
    """
    if isinstance(make, partial) and not make.args and _is_plain(make.keywords):
        text, bound = described(make.func)
        return text, {**bound, **make.keywords}
    named: Any = make
    while isinstance(named, partial):
        named = named.func
    if not hasattr(named, "__qualname__"):
        named = type(named)
    path = f"{named.__module__}.{named.__qualname__}"
    importable = named.__module__ != "__main__" and (
        getattr(sys.modules.get(named.__module__), named.__qualname__, None) is make
    )
    return path if importable else f"<{path}>", {}


def _is_plain(keywords: dict[str, Any]) -> bool:
    try:
        json.dumps(keywords)
    except (TypeError, ValueError):
        return False
    return True


def is_import_path(text: str) -> bool:
    """Return whether text names a class or function, and not an id of Gymnasium's."""
    return "." in text and all(map(str.isidentifier, text.split("."))) and text not in gymnasium.registry


def name_of(text: str) -> str:
    """Return how an environment is called in reports: by its id, or its class's or function's own name."""
    path = text[1:-1] if text.startswith("<") else text
    return path.rpartition(".")[2] if path != text or is_import_path(text) else text


def module_of(text: str) -> str:
    """Return the module that is imported before the environment is made; empty if there is none."""
    return "" if text.startswith(("<", envpool.PREFIX)) else text.rpartition("." if is_import_path(text) else ":")[0]


def registered(
    text: str, make: Callable[..., Any] | None = None, arguments: Mapping[str, Any] | None = None
) -> Registered:
    """Return what Gymnasium makes an environment from.

    Args:
        text: a registered id, or what `described` says of a callable.
        make: the callable, where it is at hand.
        arguments: those of its constructor.

    Raises:
        EnvError: there is no such environment, or it cannot be imported.
        RuntimeError: its module raised; its own exception is the cause.
    """
    if make is None and text.startswith("<"):
        name = name_of(text)
        raise EnvError(
            f"env: got {name}, which was made in a script, a notebook or a function and cannot be imported; "
            f"must be given: a3c.load(path, env={name if name.isidentifier() else 'what makes one'})"
        )
    if make is None and is_import_path(text):
        make = _imported_callable(text)
    if make is None:
        return _of_id(text, arguments or {})

    def called(**kwargs: Any) -> Any:
        return make(**kwargs)

    called.__module__ = ""  # of no package that is known
    # Gymnasium copies what it makes from, deeply; a class and a function are the same afterwards.
    entry_point: Any = make if isinstance(make, type) else called
    return Registered(re.sub(r"\W", "", name_of(text)), entry_point, disable_env_checker=True)  # look() checks more


def _imported_callable(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    names = vars(_imported(path, module))
    found: Callable[..., Any] | None = names.get(name)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise EnvError(
            f"env: got {path!r}, must be a class or function of {module}{f'; nearest: {near[0]}' if near else ''}"
        )
    if not callable(found) or (isinstance(found, type) and not issubclass(found, gymnasium.Env)):
        raise EnvError(
            f"env: got {path!r}, must be a class derived from gymnasium.Env, or a function that makes one environment"
        )
    return found


def _imported(text: str, module: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # it was found, and lacks another
            raise RuntimeError(f"env: {text}: its module raised: {error}") from error
        how = f"; {INSTALL[module]}" if module in INSTALL else ""
        if module == "minigrid":
            how += f", then minigrid:{text.removeprefix('minigrid:')}"
        raise EnvError(f"env: got {text!r}, must be of a module that can be imported: {error}{how}") from error
    except Exception as error:
        raise RuntimeError(f"env: {text}: its module raised: {error}") from error


def _of_id(text: str, arguments: Mapping[str, Any]) -> Registered:
    module, _, name = text.rpartition(":")
    try:
        if text.startswith(envpool.PREFIX):
            return envpool.registered(text, arguments)
        if name.startswith(atari.NAMESPACE):
            return atari.registered(name, arguments)
    except ValueError as error:
        raise EnvError(str(error)) from error
    except gymnasium.error.Error as error:
        raise _unknown(text) from error
    if name not in gymnasium.registry:
        module = module or next((OF_A_PACKAGE[start] for start in OF_A_PACKAGE if name.startswith(start)), "")
    if module:
        _imported(text, module)
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise _unknown(text) from error


def _unknown(text: str) -> EnvError:
    module = text.rpartition(":")[0]
    near = difflib.get_close_matches(text, gymnasium.registry, n=1, cutoff=0.3)
    nearest = f"; nearest: {near[0]}" if near else ""
    if module.partition(".")[0] in sys.stdlib_module_names:
        nearest = f"; {module} is a module of the standard library, so one of your own must be called otherwise"
    return EnvError(
        f"env: got {text!r}, must be an id that Gymnasium knows (module:Name-v0 imports the module){nearest}"
    )


def not_installed(spec: Registered, error: Exception) -> str:
    """Say what an environment of Gymnasium's lacks, and how to install it."""
    extra = re.match(r"gymnasium\.envs\.(box2d|mujoco)\b", str(spec.entry_point))
    lacks = " ".join(str(error).split())
    return f"{lacks.partition(',')[0]}: {INSTALL[extra[1]]}" if extra else lacks
