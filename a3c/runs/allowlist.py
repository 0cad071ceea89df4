"""Which import paths a file, be it a config or a checkpoint, may name.

To import a module runs it, so a file that somebody else wrote may only name what is known to be
harmless: this project, what lies below the current folder and so is the user's own, and what the
user says they trust. All of it is decided without an import.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, PathFinder, SourceFileLoader
from pathlib import Path


def add_current_folder() -> None:
    """Have modules below the current folder found, before installed ones, but never instead of the standard library."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        installed = [place for place, path in enumerate(sys.path) if Path(path).name.endswith("-packages")]
        sys.path.insert(min(installed, default=len(sys.path)), folder)


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


def or_trusted(path: str) -> str:
    """Return the end of a message that refuses a path in a checkpoint: how to trust it."""
    package = path.partition(".")[0]
    return f"or of a module that you trust: allow=[{package!r}], on a command line --allow {package}"


def own_module(module: str, folder: Path | None = None) -> Path | None:
    """Return the source of the user's own module that an import would run; None if there is no such.

    A user's own are the modules and packages below the current folder. Of the name alone that says little,
    so what counts is the file that Python would import:

    - where the name is also that of an installed package, the one that comes first on ``sys.path``, or is
      imported already; names of the standard library are never the user's own;
    - no file that a link leads to outside of the folder: whoever made the link need not be who wrote the file;
    - nothing that was installed, though an environment's ``site-packages`` may lie below the folder;
    - only Python sources, in which `own_class` can look for a class.

    Args:
        module: its import path.
        folder: instead of the current one, which the parser changes while it reads a file.
    """
    here = (folder or Path.cwd()).resolve()
    name, *rest = module.split(".")
    if not is_import_path(module) or name in sys.stdlib_module_names:
        return None
    spec = getattr(sys.modules.get(name), "__spec__", None) or PathFinder.find_spec(name)
    for part in [*rest, None]:
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())  # several of a package without __init__.py
        for place in (Path(text).resolve() for text in ([spec.origin] if spec.origin else folders)):
            if not place.is_relative_to(here) or {"site-packages", "dist-packages"} & {*place.parts}:
                return None
        if part is not None:  # not by PathFinder, for which the package must be imported
            finders = (FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)) for folder in folders)
            spec = next(filter(None, (finder.find_spec(part) for finder in finders)), None)
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def own_class(path: str, folder: Path | None = None) -> list[str]:
    """Return the import paths of a class of the user's own, as given and where it is defined; none of anything else.

    Read from the source: a config of somebody else's can have a script run that lies in the folder only if it
    knows a class in it.

    Args:
        path: of the class.
        folder: as of `own_module`.

    Raises:
        SyntaxError: a module of the user's own is no Python.
    """
    paths: list[str] = []
    module, _, name = path.rpartition(".")
    while module and (file := own_module(module, folder)) and f"{module}.{name}" not in paths:
        paths.append(f"{module}.{name}")
        classes, imported = names_in(file)
        if name in classes:
            return paths
        if name not in imported:
            break
        level, source, name = imported[name]
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        module = ".".join([*package.split(".")[: len(package.split(".")) + 1 - level], source] if level else [source])
    return []


def names_in(file: Path) -> tuple[set[str], dict[str, tuple[int, str, str]]]:
    """Return the classes that a module defines, and what it imports by name: dots, module and name there.

    Raises:
        SyntaxError: it is no Python.
    """
    classes: set[str] = set()
    imported: dict[str, tuple[int, str, str]] = {}
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.ClassDef):
            classes.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            imported |= {each.asname or each.name: (node.level, node.module or "", each.name) for each in node.names}
    return classes, imported
