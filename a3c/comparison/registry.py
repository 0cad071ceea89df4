"""What each run of a comparison was started with, so that a second call knows what is finished and what has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from a3c.comparison.grid import PlannedRun
from a3c.runs.files import replacing
from a3c.runs.folder import came_to_its_end
from a3c.training.cli.usage import UsageError

REGISTRY = "comparison.json"
COMPARED = ("flags", "passed", "configs")  # of an entry: what makes a run the same

State = Literal["new", "unfinished", "finished", "changed"]
Entry = dict[str, Any]


class RunRegistry:
    """The settings of all runs of a comparison, in its folder.

    Args:
        folder: the comparison's folder.
        configs: config files that every run reads; a run is another one when their text changes.

    Raises:
        UsageError: the file, or a config, cannot be read.
    """

    def __init__(self, folder: Path, configs: Iterable[Path]) -> None:
        self._folder, self._path = folder, folder / REGISTRY
        self._configs = {str(path): _digest(path) for path in configs}
        self._entries: dict[str, Entry] = {}
        if self._path.exists():
            try:
                self._entries = json.loads(self._path.read_text(encoding="utf-8"))["runs"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"output: got {str(folder)!r}, whose {REGISTRY} cannot be read ({error}); must be a comparison's "
                    "folder, or a new one"
                ) from error

    def state_of(self, run: PlannedRun) -> State:
        """Describe how far a run has come, and whether it is still the same."""
        folder = self._folder / run.folder
        if not folder.is_dir() or not any(folder.iterdir()):
            return "new"
        before = self._entries.get(str(run.folder), {})
        if {key: before.get(key) for key in COMPARED} != self._entry(run):
            return "changed"
        return "finished" if is_finished(folder) else "unfinished"

    def refuse_changed(self, runs: Iterable[PlannedRun]) -> None:
        """Refuse runs of which there are others, with other settings.

        Raises:
            UsageError: there are; it says how the first one differs.
        """
        changed = [run for run in runs if self.state_of(run) == "changed"]
        if changed:
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise UsageError(
                f"output: {self._folder}: {changed[0].name}{more} {self.difference(changed[0])}; "
                "must be another folder, or come with --restart_changed"
            )

    def difference(self, run: PlannedRun) -> str:
        """Say in what a run that was there before differs from the one that is wanted now."""
        before, now = self._entries.get(str(run.folder)), self._entry(run)
        if before is None:
            return "was not started by this comparison"
        for part in ("flags", "configs"):
            old: Mapping[str, str] = before[part]
            new: Mapping[str, str] = now[part]
            for key in [*old, *new]:
                if old.get(key) != new.get(key):
                    what = f"{key} was {old.get(key, 'not set')}, and is {new.get(key, 'not set')}"
                    return what if part == "flags" else f"{key} has changed"
        return f"had further flags {before['passed'] or 'none'}, and has {now['passed'] or 'none'}"

    def write(self, runs: Iterable[PlannedRun], conditions: str) -> None:
        """Enter runs that are about to be started; others keep their entries.

        Args:
            runs: those.
            conditions: what they are run on, in words.
        """
        self._entries.update({str(run.folder): {**self._entry(run), "conditions": conditions} for run in runs})
        with replacing(self._path) as temporary:
            temporary.write_text(json.dumps({"runs": self._entries}, indent=1) + "\n", encoding="utf-8")

    def conditions(self, runs: Iterable[PlannedRun]) -> list[str]:
        """Return what runs were last started on, each once."""
        entries = [self._entries.get(str(run.folder), {}) for run in runs]
        return list(dict.fromkeys(entry["conditions"] for entry in entries if "conditions" in entry))

    def _entry(self, run: PlannedRun) -> Entry:
        return {"flags": dict(run.flags), "passed": list(run.passed), "configs": self._configs}


def is_finished(folder: Path) -> bool:
    """Return whether a run came to its end: it neither failed nor was stopped."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and came_to_its_end(summary)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"config: got {str(path)!r}, must be a file that can be read: {error.strerror}") from error
