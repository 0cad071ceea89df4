"""The command line as it was typed, and as the parser has to be told it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from a3c.runs.folder import newest_config
from a3c.training.cli.usage import UsageError

WHOLE_NUMBER = re.compile(r"\d+(\.\d+)?[eE]\+?\d+")  # as 4e3, which sweeps write
RESUME, CONFIG = "--resume", "--config"


def expanded(words: Iterable[str]) -> list[str]:
    """Return words in which ``~`` is the home folder also after ``--flag=``, and 4e3 is the whole number 4000."""
    return [flag + equals + _expanded(value) for flag, equals, value in map(_split, words)]


def in_order(words: Sequence[str]) -> list[str]:
    """Return the words in an order in which what is typed counts, wherever it stands.

    Config files come first, since whatever is typed counts more; and a class before its arguments. What
    ``--resume`` stands for takes its place.

    Raises:
        UsageError: it names no run folder, or stands beside what it stands for.
    """
    items = _resumed(_items(words))
    configs = [item for item in items if _key(item) in (CONFIG, "-c")]
    others = [item for item in items if item not in configs]
    for place in range(len(others)):
        key = _key(others[place])
        parents = [later for later in range(place + 1, len(others)) if key.startswith(f"{_key(others[later])}.")]
        before = {_key(item) for item in others[:place]}
        for later in parents:
            if _key(others[later]) not in before:
                others.insert(place, others.pop(later))
    return [word for item in (*configs, *others) for word in item]


def _items(words: Sequence[str]) -> list[list[str]]:
    """Group words: a flag, and the values that follow it."""
    items: list[list[str]] = []
    for word in words:
        if word.startswith("--") or word == "-c" or not items:
            items.append([word])
        else:
            items[-1].append(word)
    return items


def _key(item: Sequence[str]) -> str:
    return item[0].partition("=")[0]


def _resumed(items: list[list[str]]) -> list[list[str]]:
    """Put the run's own configuration, its folder and its newest checkpoint in the place of ``--resume FOLDER``."""
    asked = [item for item in items if _key(item) == RESUME]
    if not asked:
        return items
    given = [*asked[0][0].partition("=")[2:], *asked[0][1:]]
    folder = next((word for word in given if word), "")
    for item in items:
        if _key(item) in ("--run_dir", "--run_name", "--ckpt_path"):
            raise UsageError(f"resume: got with {_key(item)}, must be without: it takes the run's own")
    config = newest_config(Path(folder))
    if len(asked) > 1 or not folder or not config.is_file():
        raise UsageError(f"resume: got {folder!r}, must be the folder of one run, with its config.yaml in it")
    ours = [[CONFIG, str(config)], ["--run_dir", folder], ["--ckpt_path", "last"]]
    return ours + [item for item in items if item not in asked]


def _split(word: str) -> tuple[str, str, str]:
    flag, equals, value = word.partition("=")
    return (flag, equals, value) if word.startswith("-") and equals else ("", "", word)


def _expanded(value: str) -> str:
    if WHOLE_NUMBER.fullmatch(value) and float(value).is_integer():
        return str(int(float(value)))
    return os.path.expanduser(value)
