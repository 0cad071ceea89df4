"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".*.tmp.*"  # matches what a killed process left in a folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file's path in the folder of `path`, which takes its name once the block is done.

    A block that fails or is interrupted leaves the old file and no other.

    Raises:
        OSError: the file cannot take its name.
    """
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
