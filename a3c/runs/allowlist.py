"""Which import paths a file, be it a config or a checkpoint, may name.

To import a module runs it, so a file that somebody else wrote may only name what is known to be
harmless: this project, and what the user says they trust.
"""

from __future__ import annotations

from collections.abc import Iterable


def is_import_path(text: str) -> bool:
    """Return whether text has the form of an import path: names with dots between them."""
    return all(part.isidentifier() for part in text.split("."))


def lies_under(path: str, prefixes: Iterable[str]) -> bool:
    """Return whether a prefix covers a path; by whole names, so ``mine`` does not cover ``mine_too.X``."""
    return any(f"{path}.".startswith(f"{prefix}.") for prefix in prefixes)


def checked_prefixes(prefixes: str | Iterable[str]) -> tuple[str, ...]:
    """Return prefixes that a user trusts, one or several, as they are to be compared.

    Raises:
        ValueError: one has not the form of an import path.
    """
    checked = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
    for prefix in checked:
        if not (isinstance(prefix, str) and is_import_path(prefix)):
            raise ValueError(f"allow: got {prefix!r}, must be a module or package, such as my_returns")
    return checked
