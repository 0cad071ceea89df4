"""metrics.csv: every metric of a run in one local file, whatever becomes of W&B, the disk or the process."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from a3c.runs.files import replacing

_log = logging.getLogger(__name__)


class MetricsFile(Logger):
    """Writes every metric to one CSV file, a line for each time that something is logged.

    Lightning's CSVLogger keeps lines in memory and deletes what a folder holds already. Here a
    line is on disk when `log_metrics` comes back, or, where the disk does not take it, not there at
    all: that is warned of once, and the next line is tried again. A new key rewrites the file with
    a wider header.

    Args:
        path: the file. One that exists is gone on with, under its header; a last line that a killed
            process left unfinished is cut off.
    """

    takes_counts = True  # by value, as JSON

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._warned = False
        self._keys = self._go_on() if path.exists() else []

    @property
    def name(self) -> str:
        return "lightning"  # so are called folders that callbacks of Lightning's make for their files

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the configuration stands in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {key: json.dumps(value) if isinstance(value, Mapping) else value for key, value in metrics.items()}
        try:
            new = [key for key in row if key not in self._keys]
            if new:
                self._widen(new)
            self._append(_lines(self._keys, [row]))
        except OSError as error:
            if not self._warned:
                self._warned = True
                _log.warning("%s cannot be written, and lacks lines from here on: %s", self._path, error)

    def _go_on(self) -> list[str]:
        """Cut an unfinished last line off, and return the header's keys."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            _log.warning("%s ended in an unfinished line, which is cut off", self._path)
            os.truncate(self._path, whole)
        return next(csv.reader(io.StringIO(content[:whole].decode(), newline="")), [])

    def _append(self, lines: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                while lines:
                    lines = lines[file.write(lines) :]
            except OSError:  # of a disk that filled up in the middle of the line
                file.truncate(size)
                raise

    def _widen(self, new: list[str]) -> None:
        rows: list[dict[str, Any]] = []
        if self._keys:
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        keys = self._keys + new
        with replacing(self._path) as temporary:
            temporary.write_bytes(_lines(keys, [dict(zip(keys, keys, strict=True)), *rows]))
        self._keys = keys  # only now: a header that was not written must be tried again


def _lines(keys: list[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, keys, extrasaction="ignore").writerows(rows)
    return text.getvalue().encode()
