"""The flags of a run on some pages, without those of Lightning's Trainer and without types."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from a3c.returns.labels import text_of
from a3c.training.cli.usage import classes_of

HELP_ALL = "--help.all"
USAGE = "%(prog)s [--config FILE ...] [--FLAG VALUE ...]"
EPILOG = (
    "--model.returns.help GAE tells the arguments of a class, --help.all every flag with its type, those of "
    "Lightning's Trainer included (--trainer.FLAG); docs/configuration.md says which of these work."
)
OF_OTHERS = {
    "config": "YAML file of flags; a later one counts more, and what is typed counts most",
    "print_config": "print the configuration that all flags come to, and exit",
    "seed_everything": "seed of the run",
}


def short_help(parser: ArgumentParser) -> str:
    """Return the help of a run's parser: what its own flags do, and their defaults in brackets."""
    defaults = parser.get_defaults()
    formatter = argparse.HelpFormatter(parser.prog, max_help_position=36, width=110)
    formatter.add_usage(USAGE, [], [])
    for group in parser._action_groups:
        if shown := list(_shown(group._group_actions, defaults)):
            formatter.start_section("The run" if group.title in (None, "options") else group.title)
            formatter.add_arguments(shown)
            formatter.end_section()
    formatter.add_text(EPILOG)
    return formatter.format_help()


def _shown(actions: list[argparse.Action], defaults: Namespace) -> Iterator[argparse.Action]:
    """Return what is shown of a group's flags; not flags for files of groups, nor those that others set."""
    for action in actions:
        flags = [flag for flag in action.option_strings if not flag.endswith("+")]
        key = flags[-1].removeprefix("--") if flags else ""
        is_group = action.metavar == "CONFIG" and key != "config"
        is_flag = any(flag.startswith("-") for flag in flags)  # and no link from one to another
        if not is_flag or is_group or key.endswith(".help") or key.startswith("trainer"):
            continue
        words = OF_OTHERS.get(key) or " ".join(str(action.help).split()).partition(". ")[0].rstrip(".")
        if names := [cls.__name__ for cls in classes_of(vars(action).get("_typehint"), within="a3c")]:
            words += f": {', '.join(names)}, or an import path"
        if str(action.metavar).startswith("{") and action.metavar != "{true,false}":
            words += f": {str(action.metavar).strip('{}').replace(',', ', ')}"
        words += _word(defaults.get(action.dest))
        yield argparse.Action(flags, action.dest, nargs=0, help=words.replace("%", "%%"))


def _word(default: Any) -> str:
    """Return a default in brackets; a class by its name, and nothing where there is none."""
    if default is None:
        return ""
    if isinstance(default, Namespace):
        default = str(default.get("class_path")).rpartition(".")[2]
    return f" [{default if isinstance(default, str) else text_of(default)}]"
