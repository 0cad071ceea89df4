"""What a file may say to the command line: jsonargparse imports nothing but what is allowed here.

A config names classes by import path, and the parser imports them. What is typed on the command line
is the user's own word. A file may have come from anyone, so it may name only classes of this project,
of ``torch.optim`` and of the Trainer's parts, the user's own below the current folder, and what
``--allow PREFIX`` adds.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os.path import isfile
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings
from jsonargparse._util import config_load_stack  # the files that are being read
from yaml import YAMLError

from a3c.envs.packages import WRAPPERS
from a3c.envs.source import is_import_path as is_env_path
from a3c.runs.allowlist import checked_prefixes, is_import_path, lies_under, names_in, own_class, own_module
from a3c.training.cli.kept_arguments import KeptArguments
from a3c.training.cli.usage import UsageError, nearest, refusing

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
        plain = ArgumentParser(add_help=False, allow_abbrev=False)
        for key in (*PLAIN, "allow", "data.env"):
            short = ["-c"] if key == "config" else []
            plain.add_argument(*short, f"--{key}", nargs="?", action="append", default=[])
        options, rest = plain.parse_known_args(self._args)
        with refusing(""):
            self.allow = checked_prefixes(filter(None, options.allow))
        if any(lies_under(prefix, ["jsonargparse"]) for prefix in self.allow):
            raise UsageError("allow: got 'jsonargparse', must be another: through it a file could lift its own limits")
        if "-" in options.config:
            raise UsageError("config: got '-', must be a file that exists, not the standard input")
        words = [word.partition("=")[2] if word.startswith("--") else word for word in rest]
        self._typed = [
            path
            for word in words
            if not isfile(word)
            for path in _import_paths(word)
            if not lies_under(path, ["jsonargparse", *PACKAGES])
        ]
        self._read: dict[str, Path] = {}  # words, and the file that each was first read in
        self.kept = KeptArguments()

    def restrict_parser(self) -> None:
        """Have the parser import only what is allowed, and show what it reads to `load`.

        The settings are the process's own. A process that parses twice keeps what was allowed before.
        """
        packages = [path.partition(".")[0] for path in self._typed]  # where the classes that are typed may be defined
        set_loader("yaml", self.load, (YAMLError,))
        set_parsing_settings(
            config_read_mode_urls_enabled=False,
            config_read_mode_fsspec_enabled=False,  # which Lightning has switched on
            instantiate_subclass_spec_in_any=False,
            import_path_denylist=["*"],
            import_path_allowlist=[*PACKAGES, *self.allow, *self._typed, *packages],
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
            words = [word for _, word in islice(_walk(content), MOST_VALUES)]
        except RecursionError as error:
            raise UsageError("config: got YAML that holds itself, must have an end") from error
        if len(words) == MOST_VALUES:
            raise UsageError(f"config: got more than {MOST_VALUES} values")
        if file is not None:
            self.kept.read(content, self._short(file))
            for word in {*words} - self._read.keys():
                self._read[word] = file
                if _import_paths(word) == [word]:
                    set_parsing_settings(import_path_allowlist=own_class(word, self._here))
        return content

    def check(self, config: Namespace | Mapping[str, Any], file: Path | None = None) -> None:
        """Refuse what a file says and only the user may.

        Args:
            config: what parsing came to, or values by key that are going to be used as if they had been typed.
            file: where such values come from.

        Raises:
            UsageError: the file, the key, what was given, what is allowed.
        """
        for key, text in _walk(config):
            if file is not None:
                self._check(key, text, file.absolute(), parsed=False)
                continue
            if key == "allow":
                text = text.strip("[']")  # a list becomes the text of one, as an item of the list that flags make
            if text in self._read and not any(text in arg for arg in self._args):
                self._check(key, text, self._read[text], parsed=True)

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
        is_class, key = key.endswith(".class_path"), key.removesuffix(".class_path")
        module = text.rpartition(":")[0]
        in_trainer = key.startswith("trainer.")
        if parsed:  # then the parser took it for plain text, of which only this is imported later
            is_path = key in ("probe.estimators", "data.wrappers") or (in_trainer and key.count(".") == 1)
        else:
            is_path = key not in PLAIN and not key.startswith("data.env")
        if key == "allow" and text:
            wrong = f"got {text!r}, must be typed on the command line"
        elif (
            key == "data.env"
            and is_env_path(text)
            and not (lies_under(text, self.allow) or own_class(text, self._here))
        ):  # a function of that name is not enough: it would be called
            wrong = self._denied(text)
        elif key == "data.env" and module and not (lies_under(module, self.allow) or own_module(module, self._here)):
            wrong = (
                f"got {text!r}, which imports {module}; must be an id alone, or of a module below the current "
                f"folder, or lie under a prefix that you trust: {_allow(text)}"
            )
        elif (key == "run_dir" or in_trainer) and not self._lies_within(text):
            wrong = f"got {text!r}, must be a relative path within the current folder"
        elif is_class or is_path:
            allowed = (*PACKAGES, *self.allow, *(WRAPPERS if key == "data.wrappers" else ()))
            for path in _import_paths(text):
                if not (lies_under(path, allowed) or own_class(path, self._here)):
                    wrong = self._denied(path)
        if wrong is not None:
            raise UsageError(f"{self._short(file)}: {key}: {wrong}")

    def _denied(self, path: str) -> str:
        module, _, name = path.rpartition(".")
        if file := own_module(module, self._here):
            near = nearest(name, sorted(names_in(file)[0]))
            which = f"must be a class, and {self._short(file.resolve())} defines none of that name{near};"
        else:
            which = "must be a class of a3c, torch.optim, the Trainer's parts or a module below the current folder,"
        return f"got {path!r}, {which} or lie under a prefix that you trust: {_allow(path)}"

    def _lies_within(self, text: str) -> bool:
        """Return whether text would be a place of files within the current folder; a link does not make it one."""
        try:
            within = (self._here / text).resolve().is_relative_to(self._here)
        except (OSError, RuntimeError, ValueError):  # links in a circle, a null character
            within = False
        return within and "://" not in text and not text.startswith("~") and not Path(text).is_absolute()

    def _short(self, file: Path) -> Path:
        return file.relative_to(self._here) if file.is_relative_to(self._here) else file


def _allow(path: str) -> str:
    """Return the flag that trusts the package of an import path, or of an environment's id."""
    return f"--allow {path.replace(':', '.').partition('.')[0]}"


def _import_paths(text: str) -> list[str]:
    """Return the import paths in a text, be it one or a label that holds some."""
    return [path for path in re.findall(r"\w+(?:\.\w+)+", text) if is_import_path(path)]


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Return the values in a configuration as text, each with its key as a user types it, and ".class_path"."""
    if isinstance(value, (Mapping, Namespace)):
        for name, item in value.items() if isinstance(value, Mapping) else vars(value).items():
            parts = [key, *(part for part in str(name).split(".") if part != "init_args")]
            if name != "__path__":  # the parser's note of where it read this
                yield from _walk(item, ".".join(part for part in parts if part))
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        for item in value:
            yield from _walk(item, key)
    else:
        yield key, "" if value is None else str(value).strip()
