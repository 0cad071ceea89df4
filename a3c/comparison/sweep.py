"""W&B sweep files as axes of a grid, so that a sweep runs without an account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from a3c.comparison.grid import MODE, RETURNS
from a3c.comparison.variants import word_of
from a3c.usage import UsageError


def read_sweep(path: Path) -> dict[str, list[Any]]:
    """Reads the axes of a W&B sweep: the keys of its parameters and their values.

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
    axes: dict[str, list[Any]] = {}
    for key, given in sweep["parameters"].items():
        name = MODE if key == "data.mode" else str(key)
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


def read_yaml(path: Path, field: str) -> Any:
    """Reads a YAML file.

    Args:
        path: the file.
        field: how messages call it.

    Raises:
        UsageError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{field}: got {str(path)!r}, must be a file that can be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{field}: {path}: got no YAML: {' '.join(str(error).split())}") from error
