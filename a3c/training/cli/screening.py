"""Reads config files before the parser does, and refuses what a file may not say.

A config names classes by import path, and the parser imports them. What is typed on the command line
is the user's own word. A file may have come from anyone, so it may name only classes of this project,
of ``torch.optim`` and of the Trainer's parts, and what ``--allow PREFIX`` adds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import get_loader, set_parsing_settings
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins import LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from a3c.learner.schedules import Schedule
from a3c.networks import ActorCritic
from a3c.returns import ReturnEstimator
from a3c.runs.allowlist import checked_prefixes, is_import_path, lies_under

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
BASES = (
    ActorCritic,
    ReturnEstimator,
    Schedule,
    Optimizer,
    LRScheduler,
    Callback,
    Accelerator,
    Strategy,
    Profiler,
    Precision,
    ClusterEnvironment,
    CheckpointIO,
    LayerSync,
)
MOST_VALUES = 100_000  # in all files together: YAML can hold itself many times over
MOST_FILES = 100  # that one command line leads to: files may name files, in circles too
TRUST = "or lie under a prefix that you trust: --allow"
# Their values are text; any other may be read as a file's name or as an import path.
PLAIN = ("run_dir", "run_name", "ckpt_path", "trainer.default_root_dir", "data.env")


class NotAllowedError(ValueError):
    """Something that a file may not say; nothing has been imported or started."""


class Screened(NamedTuple):
    """What a command line was found to allow.

    Attributes:
        args: the command line without the program's name.
        allow: prefixes that the user trusts.
    """

    args: tuple[str, ...]
    allow: tuple[str, ...]

    def check_env(self, env: str) -> None:
        """Refuse the environment that parsing came to if its module was neither typed nor allowed.

        Raises:
            NotAllowedError: the key, what was given, what is allowed.
        """
        if not any(env in arg for arg in self.args):
            _check_env(env, self.allow)


def screen(config: Path, args: Sequence[str]) -> Screened:
    """Check every file that a command line leads to, and have the parser import nothing else.

    Args:
        config: the default configuration.
        args: the command line without the program's name.

    Raises:
        NotAllowedError: the file, the key, what was given, what is allowed.
        UnicodeDecodeError: a config is no text.
    """
    try:
        allow = checked_prefixes([value for key, value in _words(args) if key == "allow"])
    except ValueError as error:
        raise NotAllowedError(str(error)) from error
    if any(lies_under(prefix, ["jsonargparse"]) for prefix in allow):
        raise NotAllowedError("allow: got 'jsonargparse', must be another: through it a file could lift its own limits")
    screening = _Screening(allow)
    try:
        screening.read(config, "")
        for key, value in _words(args):
            screening.typed(key, value)
    except RecursionError as error:
        raise NotAllowedError("config: got YAML that holds itself, must have an end") from error
    _restrict_parser([*allow, *_typed_paths(args)])
    return Screened(tuple(args), allow)


def screen_values(file: Path, values: Mapping[str, Any], args: Sequence[str]) -> None:
    """Check what a file sets, where it is going to be used as if it had been typed.

    Args:
        file: where the values come from.
        values: by key of train.py.
        args: words of the command line, whose `--allow` counts.

    Raises:
        NotAllowedError: the file, the key, what was given, what is allowed.
    """
    try:
        screening = _Screening(checked_prefixes([value for key, value in _words(args) if key == "allow"]))
    except ValueError as error:
        raise NotAllowedError(str(error)) from error
    for key, value in values.items():
        screening.walk(value, key, file.absolute())


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
        if _is_plain(key) or _as_file(value, Path.cwd()):
            continue
        for path in re.findall(r"\w+(?:\.\w+)+", value):
            if is_import_path(path) and not lies_under(path, ["jsonargparse", *PACKAGES]):
                yield from (path, path.partition(".")[0])


def _restrict_parser(allow: Iterable[str]) -> None:
    """Close the parser's own ways to what no file and no user has named: a second wall.

    The settings are the process's own. A process that parses twice keeps what was allowed before.
    """
    set_parsing_settings(
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,  # which Lightning has switched on
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"],
        import_path_allowlist=[*PACKAGES, *allow],
    )


class _Screening:
    """Walks through what was given, and through every file that it leads to.

    Args:
        allow: prefixes that the user trusts.
    """

    def __init__(self, allow: tuple[str, ...]) -> None:
        self._allow = allow
        self._read: set[tuple[Path, str]] = set()
        self._values = 0

    def typed(self, key: str, value: str) -> None:
        """Look at a word of the command line: only files within it are checked."""
        if key == "config" and value != "-" and not (_as_file(value, Path.cwd()) or isinstance(_load(value), dict)):
            raise NotAllowedError(f"config: got {value!r}, must be a file that exists")
        self.walk(value, key, None)

    def read(self, file: Path, key: str) -> None:
        """Check a file whose content stands at a key; "" for a whole config."""
        file = file.absolute()
        if (file, key) in self._read:
            return
        self._read.add((file, key))
        if len(self._read) > MOST_FILES:
            raise NotAllowedError(f"{_short(file)}: leads to more than {MOST_FILES} files")
        text = file.read_text()
        try:
            content = get_loader("yaml")(text)
        except yaml.YAMLError as error:
            if not key:
                raise NotAllowedError(f"{_short(file)}: got no plain YAML: {' '.join(str(error).split())}") from error
            return  # the parser takes the file's name for text
        if isinstance(content, (dict, list, str)):
            self.walk(content, key, file)

    def walk(self, value: Any, key: str, file: Path | None) -> None:
        """Look at a value that stands at a key, in a file or, without one, on the command line."""
        self._values += 1
        if self._values > MOST_VALUES:
            raise NotAllowedError(f"config: got more than {MOST_VALUES} values")
        if isinstance(value, dict):
            prefix = "" if key in ("", "config") else f"{key}."
            for name, item in value.items():
                self.walk(item, f"{prefix}{name}", file)
        elif isinstance(value, (list, tuple, set)):
            for item in value:
                self.walk(item, key, file)
        elif isinstance(value, str):
            self._check(value.strip(), key, file)

    def _check(self, text: str, key: str, file: Path | None) -> None:
        if not _is_plain(key):
            if text == "-":
                raise NotAllowedError(f"{_plain_key(key)}: got '-', must be a file that exists, not the standard input")
            nested = _as_file(text, file.parent if file else Path.cwd())
            if nested is not None:
                return self.read(nested, "" if key == "config" else key)
            content = _load(text)  # the parser also reads text as YAML, within YAML too
            if isinstance(content, (dict, list)):
                return self.walk(content, key, file)
        if file is not None:
            try:
                self._check_word(text, key)
            except NotAllowedError as error:
                raise NotAllowedError(f"{_short(file)}: {error}") from None
        return None

    def _check_word(self, text: str, key: str) -> None:
        """Check a word that stands in a file."""
        name = _plain_key(key)
        if name == "allow":
            raise NotAllowedError(f"allow: got {text!r}, must be typed on the command line")
        if name == "data.env":
            _check_env(text, self._allow)
        elif name == "run_dir" or name.startswith("trainer."):
            _check_place(text, name)
        if name == "probe.estimators" or name.startswith("model.returns"):  # labels, within which import paths stand
            for path in re.findall(r"\w+(?:\.\w+)+", text):
                if is_import_path(path):
                    self._check_import(path, name)
        elif not _is_plain(key) and "." in text and is_import_path(text):
            self._check_import(text, name)

    def _check_import(self, text: str, name: str) -> None:
        if not (lies_under(text, self._allow) or _is_trusted(text)):
            raise NotAllowedError(
                f"{name}: got {text!r}, must be a class of a3c, torch.optim or the Trainer's parts, "
                f"{TRUST} {text.partition('.')[0]}"
            )


def _check_env(env: str, allow: tuple[str, ...]) -> None:
    module = env.rpartition(":")[0]
    if module and not lies_under(module, allow):
        package = module.partition(".")[0]
        raise NotAllowedError(f"data.env: got {env!r}, which imports {module}; must be an id alone, {TRUST} {package}")


def _is_trusted(path: str) -> bool:
    """Return whether a path leads to a class that is meant to be configured; import no module for it."""
    name, module = path.rpartition(".")[2], sys.modules.get(path.rpartition(".")[0])
    if module is None or not lies_under(module.__name__, PACKAGES):
        return False
    found = getattr(module, name, None)
    if found is None:
        return True  # a misspelt name leads nowhere, and the parser knows the nearest one
    return isinstance(found, type) and issubclass(found, BASES)


def _check_place(text: str, key: str) -> None:
    """Refuse the place of files outside the current folder; a link does not make it one within."""
    here = Path.cwd()
    try:
        within = (here / text).resolve().is_relative_to(here.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a null character
        within = False
    if not within or "://" in text or text.startswith("~") or Path(text).is_absolute():
        raise NotAllowedError(f"{key}: got {text!r}, must be a relative path within the current folder")


def _is_plain(key: str) -> bool:
    name = _plain_key(key)
    return not key.endswith("class_path") and (name in PLAIN or name.startswith("data.env_kwargs."))


def _plain_key(key: str) -> str:
    """Return a key as a user types it: without the names that hold a class and its arguments together."""
    return ".".join(part.removesuffix("+") for part in key.split(".") if part not in ("init_args", "class_path"))


def _as_file(text: str, folder: Path) -> Path | None:
    """Return the file that the parser would read for a text, if there is one."""
    try:
        path = folder / Path(re.sub("^file:///?", "/", text)).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long for a name, an unknown user, a null character
        return None


def _load(text: str) -> Any:
    """Return the content of YAML as the parser sees it; None of what is no YAML, which it refuses itself."""
    try:
        return get_loader("yaml")(text)
    except yaml.YAMLError:
        return None


def _short(file: Path) -> Path:
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file
