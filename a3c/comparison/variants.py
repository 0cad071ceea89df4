"""What is compared: an estimator, or another setting, in an update mode; and how it is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from a3c.returns.labels import text_of

LONGEST_SLUG = 100  # characters


class Variant(NamedTuple):
    """One of the things that are compared.

    Attributes:
        label: the estimator's label, and after it any other setting that varies.
        mode: the update mode.
    """

    label: str
    mode: str

    def __str__(self) -> str:
        return f"{self.label} · {self.mode}"

    @property
    def slug(self) -> str:
        """A folder's name; a digest tells apart what the characters that a name may hold would not."""
        wanted = f"{self.label}-{self.mode}".replace(", ", ",").replace(":", "-")
        plain = re.sub(r"[^\w.=,-]+", "-", wanted).lstrip(".-")
        if plain == wanted and len(plain) <= LONGEST_SLUG:
            return plain
        return f"{plain[:LONGEST_SLUG]}-{hashlib.sha256(str(self).encode()).hexdigest()[:6]}"


def label_with(estimator: str, settings: Mapping[str, Any]) -> str:
    """Return the label of an estimator with further settings: ``NStep, lr=0.001``.

    Args:
        estimator: its label.
        settings: what else varies, under the names of `short_names`.
    """
    return ", ".join([estimator, *(f"{name}={word_of(value)}" for name, value in settings.items())])


def word_of(value: Any) -> str:
    """Return a value as it is typed on a command line: text as it is, all else as YAML."""
    return value if isinstance(value, str) else text_of(value)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Give each key of a configuration the shortest end of it that no other of the keys has.

    ``model.optimizer.init_args.lr`` becomes ``lr``, or ``optimizer.lr`` beside another lr.
    """
    plain = {key: [part for part in key.split(".") if part not in ("init_args", "class_path")] for key in keys}
    return {
        key: _shortest(parts, [other for other in plain.values() if other != parts]) for key, parts in plain.items()
    }


def _shortest(parts: list[str], others: list[list[str]]) -> str:
    for length in range(1, len(parts)):
        if not any(other[-length:] == parts[-length:] for other in others):
            return ".".join(parts[-length:])
    return ".".join(parts)
