"""The folder of a run: one process at a time in it, its log, and what a run that goes on in it finds."""

from __future__ import annotations

import csv
import fcntl
import io
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from a3c.runs.checkpoints import present
from a3c.runs.files import UNFINISHED, replacing

LOG = "log.txt"
METRICS = "metrics.csv"
CHECKPOINTS = "checkpoints"
VIDEOS = "videos"

log = logging.getLogger(__name__)


class FolderInUseError(RuntimeError):
    """Another process runs in the folder."""


class FolderLock:
    """Keeps other processes out of a run folder; the kernel opens it when this process ends.

    It lies on log.txt, which every run has, so it leaves no file of its own behind.

    Args:
        folder: the run folder.

    Raises:
        FolderInUseError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / LOG).open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise FolderInUseError(f"got {str(folder)!r}, in which another process runs") from None
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked, so two runs in it would go unnoticed: %s", folder, error)

    def release(self) -> None:
        """Let others in. Idempotent."""
        self._file.close()


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Write what the project logs to the folder's log.txt; warnings go to stderr as well."""
    logger = logging.getLogger("a3c")
    file = logging.FileHandler(folder / LOG, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [file]
    if not logging.getLogger().handlers:  # with a handler of ours, logging's last resort is none any more
        console = logging.StreamHandler()
        console.setLevel(logging.WARNING)
        console.setFormatter(logging.Formatter("warning: %(message)s"))
        handlers.append(console)
    level = logger.level
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
        file.close()


def newest_run(shelf: Path, seed: int) -> Path | None:
    """Return the run folder of a seed whose checkpoint is the newest; None if none has one.

    Args:
        shelf: the folder of run folders.
        seed: theirs, as their names begin.
    """
    saved = [
        (max(file.stat().st_mtime_ns for file in files), folder)
        for folder in shelf.glob(f"seed{seed}-*")
        if (files := present(folder / CHECKPOINTS))
    ]
    return max(saved)[1] if saved else None


def save_config(folder: Path, text: str) -> None:
    """Write config.yaml, or config-2.yaml and so on where a run goes on: the first one is kept."""
    path, number = folder / "config.yaml", 1
    while path.exists():
        number += 1
        path = folder / f"config-{number}.yaml"
    path.write_text(text, encoding="utf-8")


def came_to_its_end(summary: Mapping[str, Any]) -> bool:
    """Return whether a run's summary is that of one that was neither interrupted nor failed."""
    return summary.get("interrupted") is False and not summary.get("failed")


def newest_config(folder: Path) -> Path:
    """Return where the configuration of a run's last part lies, if the folder is a run's."""
    later = sorted(folder.glob("config-[0-9]*.yaml"), key=lambda path: (len(path.name), path.name))
    return [folder / "config.yaml", *later][-1]


def rewind(folder: Path, env_steps: float) -> None:
    """Make a folder what it was when a checkpoint was saved, so that env steps never run backwards.

    Lines of metrics.csv beyond the checkpoint are cut, and said; so is a line that was torn when the
    run was killed. Videos beyond it are removed. The old summary goes: that of a run that goes on is not written yet.

    Args:
        folder: the run folder.
        env_steps: those of the checkpoint; -1 to begin anew.
    """
    for left in (folder / "summary.json", *folder.glob(UNFINISHED), *(folder / VIDEOS).glob(UNFINISHED)):
        left.unlink(missing_ok=True)
    _remove_videos(folder / VIDEOS, env_steps)
    path = folder / METRICS
    if not path.exists():
        return
    lines, _, unfinished = path.read_text(errors="replace", encoding="utf-8").replace("\0", "").rpartition("\n")
    header, *rows = [*csv.reader(io.StringIO(lines, newline=""))] or [[]]
    whole = [row for row in rows if len(row) == len(header)]
    kept = [row for row in whole if 0 <= _env_steps(row, header) <= env_steps]
    torn, beyond = len(rows) - len(whole) + bool(unfinished), len(whole) - len(kept)
    if kept:
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *kept])
    else:
        path.unlink()
    if torn:
        log.warning("%s: %d torn line(s) at its end cut", path, torn)
    if beyond:
        log.warning("%s: %d line(s) beyond the checkpoint cut", path, beyond)


def _remove_videos(folder: Path, env_steps: float) -> None:
    """Remove videos beyond a checkpoint."""
    videos = {path: re.fullmatch(r"env_steps-(\d+)\.mp4", path.name) for path in folder.glob("*.mp4")}
    beyond = [path for path, match in videos.items() if match and int(match[1]) > env_steps]
    for path in beyond:
        path.unlink()
    if beyond:
        log.warning("%s: %d video(s) beyond the checkpoint removed", folder, len(beyond))


def _env_steps(row: list[str], header: list[str]) -> float:
    """Return a row's env steps; -1 where they are no number."""
    with suppress(ValueError):
        return float(row[header.index("env_steps")])
    return -1.0
