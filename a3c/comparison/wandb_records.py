"""W&B's own records of runs: its .wandb files, read by its own reader, without an account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from a3c.runs.folder import came_to_its_end
from a3c.training.cli.usage import UsageError

ENDING = ".wandb"
PATIENCE_SECONDS = 120.0


class Record(NamedTuple):
    """What a run folder, or W&B, holds of a run.

    Attributes:
        config: the whole configuration.
        rows: metrics by key, in the order in which they were logged.
        summary: last values, and what the run came to.
        finished: whether it came to its end by itself.
        notes: what is wrong with the record, a sentence each.
    """

    config: Any
    rows: Sequence[Mapping[str, Any]]
    summary: dict[str, Any]
    finished: bool
    notes: list[str]


def records_in(place: Path, but: Iterable[Path]) -> list[list[Path]]:
    """Find the .wandb files at and below a place, those of one run together, in the order of their start.

    Args:
        place: a folder or a file.
        but: folders that are left out.
    """
    if place.is_file():
        return [[place]] if place.suffix == ENDING else []
    found = {
        file.resolve()
        for file in place.rglob(f"*{ENDING}")
        if file.is_file() and not any(file.is_relative_to(folder) for folder in but)
    }
    runs: dict[str, list[Path]] = {}
    # Folders are named by their start, files by the run's id.
    for file in sorted(found, key=lambda file: (file.parent.name.removeprefix("offline-"), file)):
        runs.setdefault(file.name, []).append(file)
    return list(runs.values())


def read_record(files: Sequence[Path]) -> Record:
    """Read the .wandb files of one run: each start of it wrote one.

    Raises:
        UsageError: W&B cannot read one.
    """
    config: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    notes: list[str] = []
    status: int | None = None
    for file in files:
        status = None
        for record in _records(file, notes):
            content = record.get(record.get("type", ""), {})
            if record["type"] == "run":
                config |= content.get("config", {}).get("update", {})
            elif record["type"] == "history":
                rows.append(content.get("item", {}))
            elif record["type"] == "summary":
                summary |= content.get("update", {})
            elif record["type"] == "exit":
                status = int(content.get("exit_code", 0))
    if not config:
        raise UsageError(f"from: {files[0]}: holds no configuration, so it is no run of a3c")
    finished = status == 0 and came_to_its_end(summary)
    if not finished:
        notes.append("has no end in its W&B record, or a failure, so it is taken as unfinished")
    return Record(config, rows, summary, finished, notes)


def _records(file: Path, notes: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"from: {file}: W&B's reader did not start or end: {error}") from error
    records = []
    for line in done.stdout.splitlines():
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and "type" in record:
                records.append(record)
    if not records:
        words = " ".join(done.stderr.split()) or "it holds nothing"
        raise UsageError(f"from: {file}: W&B cannot read it: {words}")
    if "incomplete" in done.stderr or done.returncode != 0:
        notes.append(f"its {file.name} is torn, and was read up to there")
    return records
