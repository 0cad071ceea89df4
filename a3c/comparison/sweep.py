"""W&B sweep files as axes of a grid, so that a sweep runs without an account."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from a3c.comparison.grid import MODE, RETURNS
from a3c.comparison.variants import word_of
from a3c.training.cli.usage import UsageError

GROUPS = ("config", "data", "model", "evaluation")  # keys of train.py that files stand for, or that hold others


def read_sweep(path: Path) -> dict[str, list[Any]]:
    """Read the axes of a W&B sweep: the keys of its parameters and their values.

    Args:
        path: a YAML file with ``method: grid`` and parameters that have ``values:`` or ``value:``; see
            https://docs.wandb.ai/models/sweeps/sweep-config-keys.

    Raises:
        UsageError: it cannot be read, or asks for what is no grid.
    """
    sweep = read_yaml(path, "sweep")
    if not isinstance(sweep, dict) or not isinstance(sweep.get("parameters"), dict):
        raise UsageError(f"sweep: {path}: got no parameters, must have them")
    if sweep.get("method") != "grid":
        raise UsageError(f"sweep: {path}: got method {sweep.get('method')!r}, must be grid")
    if Path(str(sweep.get("program", "train.py"))).name != "train.py":
        raise UsageError(f"sweep: {path}: got program {sweep['program']!r}, must be scripts/train.py")
    _check_command(path, sweep.get("command"))
    axes: dict[str, list[Any]] = {}
    for key, given in sweep["parameters"].items():
        name = _plain(MODE if key == "data.mode" else str(key))
        # A flag in the key would pass for typed, and a file or a group would go before the grid's own flags.
        if not re.fullmatch(r"[A-Za-z]\w*(\.\w+)*", name) or name in GROUPS:
            raise UsageError(f"sweep: {path}: parameters.{key}: must be the full key of one value, such as {RETURNS}")
        if not isinstance(given, dict) or len(given) != 1 or not {"value", "values"} & given.keys():
            raise UsageError(f"sweep: {path}: parameters.{key}: got {word_of(given)}, must have value or values")
        values = given["values"] if "values" in given else [given["value"]]
        if not isinstance(values, list) or not values:
            raise UsageError(f"sweep: {path}: parameters.{key}.values: got {word_of(values)}, must be a list")
        if name in ("run_dir", "run_name", "ckpt_path"):
            raise UsageError(f"sweep: {path}: parameters.{key}: must be left out: the comparison places its runs")
        if name == RETURNS and any(":" in str(value) for value in values):
            raise UsageError(f"sweep: {path}: parameters.{key}: got a label, must be classes, as train.py takes them")
        axes[name] = values
    return axes


def _plain(key: str) -> str:
    """Return a key as a user types it: without the names that hold a class and its arguments together."""
    return ".".join(part for part in key.split(".") if part not in ("init_args", "class_path"))


def _check_command(path: Path, words: Any) -> None:
    """Refuse words that W&B's agents would add to each run, and a comparison would not."""
    own = {"${env}", "${interpreter}", "${program}", "${args}", "python", "python3"}
    more = [str(word) for word in words or () if str(word) not in own]
    if more:
        raise UsageError(f"sweep: {path}: command: got {more[0]!r}, must be given after -- instead")


def read_yaml(path: Path, field: str) -> Any:
    """Read a YAML file.

    Args:
        path: the file.
        field: how messages call it.

    Raises:
        UsageError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{field}: got {str(path)!r}, must be a file that can be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{field}: {path}: got no YAML: {' '.join(str(error).split())}") from error
