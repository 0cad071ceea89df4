"""What a file may say to the command line: jsonargparse imports nothing but what is allowed here.

A config names classes by import path, and the parser imports them. What is typed on the command line
is the user's own word. A file may have come from anyone, so it may name only classes of this project,
of ``torch.optim`` and of the Trainer's parts, the user's own below the current folder, and what
``--allow PREFIX`` adds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os.path import isfile
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings
from jsonargparse._util import config_load_stack  # the files that are being read
from yaml import YAMLError

from a3c.runs.allowlist import checked_prefixes, classes_of, is_import_path, lies_under, own_class, own_module
from a3c.training.cli.usage import UsageError, nearest

# A package alone would be too wide: it also leads to torch.hub.load, and to all that its modules import.
# No loggers: the run has its own, and others could send it anywhere.
PACKAGES = (
    "a3c",
    "torch.optim",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "lightning.fabric.plugins",
)
MOST_VALUES = 100_000  # of one text: YAML can hold itself many times over
# Their values are text; any other may be an import path.
PLAIN = ("run_dir", "run_name", "ckpt_path", "config", "trainer.default_root_dir")

_load = get_loader("yaml")


class Screening:
    """Watches what the parser reads, and what it came to, for what only the user may say.

    Args:
        args: the command line without the program's name.

    Raises:
        UsageError: an `--allow` of it is no module or package.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self._args = tuple(args)
        self._here = Path.cwd().resolve()  # the parser changes the current folder while it reads a file
        try:
            self.allow = checked_prefixes([value for key, value in _words(args) if key == "allow"])
        except ValueError as error:
            raise UsageError(str(error)) from error
        if any(lies_under(prefix, ["jsonargparse"]) for prefix in self.allow):
            raise UsageError("allow: got 'jsonargparse', must be another: through it a file could lift its own limits")
        if any(key == "config" and value == "-" for key, value in _words(args)):
            raise UsageError("config: got '-', must be a file that exists, not the standard input")
        self._read: dict[str, Path] = {}  # words, and the file that each was first read in

    def restrict_parser(self) -> None:
        """Have the parser import only what is allowed, and show what it reads to `load`.

        The settings are the process's own. A process that parses twice keeps what was allowed before.
        """
        set_loader("yaml", self.load, (YAMLError,))
        set_parsing_settings(
            config_read_mode_urls_enabled=False,
            config_read_mode_fsspec_enabled=False,  # which Lightning has switched on
            instantiate_subclass_spec_in_any=False,
            import_path_denylist=["*"],
            import_path_allowlist=[*PACKAGES, *self.allow, *_typed_paths(self._args)],
        )

    def load(self, text: str) -> Any:
        """Load YAML as the parser does, and allow the classes of the user's own that a file names by it."""
        files = config_load_stack.get()
        file = Path(files[-1][0]) if files else None
        try:
            content = _load(text)
        except YAMLError as error:
            raise YAMLError(f"{self._short(file)}: got no plain YAML: {error}" if file else str(error)) from error
        try:
            words = list(islice(_texts(content), MOST_VALUES))
        except RecursionError as error:
            raise UsageError("config: got YAML that holds itself, must have an end") from error
        if len(words) == MOST_VALUES:
            raise UsageError(f"config: got more than {MOST_VALUES} values")
        if file is not None:
            for word in {*words} - self._read.keys():
                self._read[word] = file
                if "." in word and is_import_path(word):
                    set_parsing_settings(import_path_allowlist=own_class(word, self._here))
        return content

    def check(self, config: Namespace) -> None:
        """Refuse what parsing came to if a file said it and only the user may.

        Raises:
            UsageError: the file, the key, what was given, what is allowed.
        """
        for key, text in _walk(config):
            if key == "allow":
                text = text.strip("[']")  # a list becomes the text of one, as an item of the list that flags make
            if text in self._read and not any(text in arg for arg in self._args):
                self._check(key, text, self._read[text], parsed=True)

    def check_values(self, file: Path, values: Mapping[str, Any]) -> None:
        """Check what a file sets, where it is going to be used as if it had been typed.

        Args:
            file: where the values come from.
            values: by key of train.py.

        Raises:
            UsageError: the file, the key, what was given, what is allowed.
        """
        for key, text in _walk(values):
            self._check(key, text, file.absolute(), parsed=False)

    def explain_denied(self, key: str, path: str) -> str:
        """Return the line for an import that the parser has denied.

        Args:
            key: where it was named.
            path: what was named.
        """
        file = self._read.get(path)
        return f"{f'{self._short(file)}: ' if file else ''}{key}: {self._denied(path)}"

    def _check(self, key: str, text: str, file: Path, parsed: bool) -> None:
        wrong = None
        class_path, key = key.endswith(".class_path"), key.removesuffix(".class_path")
        allowed = (*PACKAGES, *self.allow, *(["gymnasium.wrappers"] if key == "data.wrappers" else []))
        if key == "allow":
            wrong = f"got {text!r}, must be typed on the command line"
        elif key == "data.env":
            module, package = text.rpartition(":")[0], text.partition(":")[0].partition(".")[0]
            if module and not (lies_under(module, self.allow) or own_module(module, self._here)):
                wrong = (
                    f"got {text!r}, which imports {module}; must be an id alone, or of a module below the current "
                    f"folder, or lie under a prefix that you trust: --allow {package}"
                )
        elif (key == "run_dir" or key.startswith("trainer.")) and not self._lies_within(text):
            wrong = f"got {text!r}, must be a relative path within the current folder"
        if wrong is None and (class_path or _may_import(key, parsed)):
            for path in re.findall(r"\w+(?:\.\w+)+", text):  # within labels, too
                if is_import_path(path) and not (lies_under(path, allowed) or own_class(path, self._here)):
                    wrong = self._denied(path)
        if wrong is not None:
            raise UsageError(f"{self._short(file)}: {key}: {wrong}")

    def _denied(self, path: str) -> str:
        module, _, name = path.rpartition(".")
        package = path.partition(".")[0]
        if file := own_module(module, self._here):
            return (
                f"got {path!r}, must be a class, and {self._short(file.resolve())} defines none of that name"
                f"{nearest(name, classes_of(file))}; or lie under a prefix that you trust: --allow {package}"
            )
        return (
            f"got {path!r}, must be a class of a3c, torch.optim, the Trainer's parts or a module below the current "
            f"folder, or lie under a prefix that you trust: --allow {package}"
        )

    def _lies_within(self, text: str) -> bool:
        """Return whether text would be a place of files within the current folder; a link does not make it one."""
        try:
            within = (self._here / text).resolve().is_relative_to(self._here)
        except (OSError, RuntimeError, ValueError):  # links in a circle, a null character
            within = False
        return within and "://" not in text and not text.startswith("~") and not Path(text).is_absolute()

    def _short(self, file: Path) -> Path:
        return file.relative_to(self._here) if file.is_relative_to(self._here) else file


def _may_import(key: str, parsed: bool) -> bool:
    """Return whether texts at a key may be import paths; of what is parsed, such as the parser took for plain text."""
    if parsed:
        return key in ("probe.estimators", "data.wrappers") or re.fullmatch(r"trainer\.\w+", key) is not None
    return key not in PLAIN and not key.startswith("data.env")


def _words(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return the words of a command line, each with the flag that it belongs to."""
    key = ""
    for arg in args:
        if arg.startswith("--"):
            key, equals, value = arg.removeprefix("--").partition("=")
            if equals:
                yield key, value
        elif arg.startswith("-c"):  # the only short flag; its value may follow without a space
            key = "config"
            if value := arg[2:].removeprefix("="):
                yield key, value
        else:
            yield key, arg


def _typed_paths(args: Sequence[str]) -> Iterator[str]:
    """Return the import paths on a command line, and their packages, where classes may be defined."""
    for key, value in _words(args):
        if key in (*PLAIN, "data.env", "allow") or isfile(value):
            continue
        for path in re.findall(r"\w+(?:\.\w+)+", value):
            if is_import_path(path) and not lies_under(path, ["jsonargparse", *PACKAGES]):
                yield from (path, path.partition(".")[0])


def _texts(content: Any) -> Iterator[str]:
    """Return all values of loaded YAML, as text."""
    if isinstance(content, (dict, list)):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _texts(item)
    else:
        yield str(content).strip()


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Return the texts in a configuration, each with its key as a user types it, and ".class_path" of a class."""
    if isinstance(value, (Mapping, Namespace)):
        for name, item in value.items() if isinstance(value, Mapping) else vars(value).items():
            parts = [key, *(part for part in str(name).split(".") if part != "init_args")]
            yield from _walk(item, ".".join(part for part in parts if part))
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, Path)):
        for item in value:
            yield from _walk(item, key)
    elif isinstance(value, str):
        yield key, value.strip()
