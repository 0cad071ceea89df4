"""Arguments that a class keeps of another one: the parser hands on what both of them take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from a3c.returns.labels import text_of


class KeptArguments:
    """Remembers which classes files name with arguments, to tell which of these another class came to keep."""

    def __init__(self) -> None:
        self._named: dict[tuple[str, str], tuple[str, Any, Path]] = {}  # by key and argument: class, value, file

    def read(self, content: Any, file: Path) -> None:
        """Remember what a file names, over what was read before."""
        for key, name, arguments in _classes(content):
            for argument, value in arguments.items():
                self._named[key, argument] = (name, value, file)

    def sentences(self, config: Namespace) -> Iterator[str]:
        """Say of each class that the configuration came to what it keeps of another one's, in a line."""
        kept: dict[tuple[str, str, Path], list[str]] = {}
        for (key, argument), (name, value, file) in self._named.items():
            ours = config.get(f"{key}.class_path")
            arguments = config.get(f"{key}.init_args") or {}
            if ours is None or _short(ours) == _short(name) or argument not in arguments:
                continue
            if text_of(arguments[argument]) == (shown := text_of(value)):  # else it was typed
                kept.setdefault((f"{key}: {_short(ours)}", _short(name), file), []).append(f"{argument}={shown}")
        for (ours, name, file), given in kept.items():
            yield f"{ours} keeps {', '.join(given)} of {name} in {file}"


def _classes(content: Any, key: str = "") -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Return the classes that a configuration names with arguments, each with its key."""
    if not isinstance(content, Mapping):
        return
    arguments = content.get("init_args")
    if isinstance(content.get("class_path"), str) and isinstance(arguments, Mapping):
        yield key, content["class_path"], arguments
        return
    for name, value in content.items():
        yield from _classes(value, f"{key}.{name}".lstrip("."))


def _short(path: str) -> str:
    return path.rpartition(".")[2]
