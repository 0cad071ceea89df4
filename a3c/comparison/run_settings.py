"""What configs and flags of train.py say of every run of a grid, as far as a comparison must know it beforehand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a3c.comparison.sweep import GROUPS, read_yaml
from a3c.comparison.variants import word_of
from a3c.training.cli.screening import Screening
from a3c.training.cli.usage import UsageError
from a3c.training.options import AUTO, Workers

WORKERS, POOL, LEARNERS = "data.workers", "data.pool", "trainer.devices"


@dataclass(frozen=True)
class RunSettings:
    """Where every run gets its settings from, whatever its estimator, mode, environment and seed.

    Args:
        configs: configs of train.py; a later one goes before.
        passed: what goes to it beside, and goes before them.
        axes: of the grid, which may have several values of what neither of them sets.
    """

    configs: Sequence[Path]
    passed: Sequence[str]
    axes: Mapping[str, Sequence[Any]]

    def values(self, key: str) -> list[str]:
        """Return the values of a key over all runs, as they would be typed; none where nobody says."""
        if key in self.axes:
            return [word_of(value) for value in self.axes[key]]
        found = [str(value) for value in configured(self.configs, self.passed, [key]).values()]
        for place, word in enumerate(self.passed):
            name, _, value = word.partition("=")
            if name == f"--{key}":
                found = [value or "".join(self.passed[place + 1 : place + 2])]
        return found

    @property
    def workers(self) -> Workers:
        """Workers of each learner, the most that a run has; None where nobody says, or says what train.py refuses."""
        found = self.values(WORKERS)
        return AUTO if AUTO in found else max(map(int, filter(_is_count, found)), default=None)

    @property
    def learners(self) -> int:
        """Learners, the most that a run has."""
        return max(map(int, filter(_is_count, self.values(LEARNERS))), default=1)

    def check_for_ray(self) -> None:
        """Refuse what a run on a node cannot do.

        Raises:
            UsageError: workers that are Ray's actors as well, or as many as a machine has cores for.
        """
        if "ray" in self.values(POOL):
            raise UsageError(
                f"{POOL}: got ray with --on ray, must be processes there: a run and its workers are on one node"
            )
        if AUTO in self.values(WORKERS):
            raise UsageError(
                f"{WORKERS}: got {AUTO} with --on ray, must be a number there: a run gets its cores before its node is "
                "known"
            )


def configured(paths: Sequence[Path], passed: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Return what configs set of some keys; a later file goes before.

    Args:
        paths: configs of train.py.
        passed: what goes to it beside; its `--allow` says whom the files may name.
        keys: those.

    Raises:
        UsageError: a file cannot be read, names another file, or says what a file may not.
    """
    found = {}
    for path in paths:
        config = read_yaml(path, "config")
        for group in GROUPS:  # another file, whose changes nobody would see
            if isinstance(config, dict) and isinstance(config.get(group), str):
                raise UsageError(f"config: {path}: {group}: got {config[group]!r}, must be written out")
        for key in keys:
            value = config
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is None and isinstance(config, dict):
                value = config.get(key)
            if value is not None:
                Screening(passed).check({key: value}, path)
                found[key] = value
    return found


def _is_count(word: str) -> bool:
    return re.fullmatch("0*[1-9][0-9]*", word) is not None
