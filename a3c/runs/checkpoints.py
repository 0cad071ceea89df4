"""Checkpoint files: written whole or not at all, kept on disk, and verified when they are read."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

FORMAT = 1  # of what a checkpoint holds; raised when an older program could not go on from it
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
DAMAGED = "damaged.ckpt"

# A checkpoint is a zip file, and ends with its end-of-central-directory record, whose last field is the length of
# a comment. Our seal is that comment: it travels with the file, and torch reads the file as before.
_END = b"PK\x05\x06"
_END_BYTES = 22
_MARK = b"a3c-sha256:"
_SEAL_BYTES = len(_MARK) + 2 * hashlib.sha256().digest_size
_UNSEALED, _SEALED = struct.pack("<H", 0), struct.pack("<H", _SEAL_BYTES)
_CHUNK = 1 << 20

log = logging.getLogger(__name__)


class DamagedCheckpointError(ValueError):
    """A checkpoint file that is not what was written, or that never was one."""


class _HashedFile(io.RawIOBase):
    """Hashes what is written on its way to a file, and remembers the error that a write met.

    torch reports a failed write as a RuntimeError about positions, which hides that a disk is full.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.tail = b""
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.hash.update(data)
        self.tail = (self.tail + bytes(data[-_END_BYTES:]))[-_END_BYTES:]
        return len(data)


def save(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint to disk under a seal, in place of what is there.

    At every moment the file is the old one or the new one, whole, also after a power cut. An older
    last.ckpt stays, as previous.ckpt.

    Args:
        checkpoint: what `torch.save` takes.
        path: the file; its folder is made.

    Raises:
        OSError: it could not be written; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        _write(checkpoint, temporary)
        if path.name == LAST:
            _keep_previous(path)
        os.replace(temporary, path)
    except BaseException:  # an interruption too leaves no half a file
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _write(checkpoint: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        hashed = _HashedFile(file)
        try:
            torch.save(checkpoint, hashed)  # type: ignore[arg-type]
        except RuntimeError:
            if hashed.error is not None:
                raise hashed.error from None
            raise
        assert hashed.tail[: len(_END)] + hashed.tail[-len(_UNSEALED) :] == _END + _UNSEALED, "torch writes zip files"
        file.seek(-len(_SEALED), os.SEEK_END)
        file.write(_SEALED + _MARK + hashed.hash.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def _keep_previous(path: Path) -> None:
    """Give last.ckpt its second name; it keeps the first one until the new file takes it."""
    if not path.exists():
        return
    previous = path.with_name(PREVIOUS)
    link = _temporary(previous)
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, previous)
    except OSError:  # a file system without hard links: for a moment only previous.ckpt exists
        os.replace(path, previous)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, once its seal holds; run nothing of it.

    A plain file of `torch.save`, without a seal, is read with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCheckpointError: it is truncated, altered, or no checkpoint.
    """
    if not _verify(path):
        log.warning("%s has no seal: damage to it would go unnoticed", path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedCheckpointError(f"{path}: not a checkpoint of a3c: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict):
        raise DamagedCheckpointError(f"{path}: not a checkpoint of a3c: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _verify(path: Path) -> bool:
    """Return whether a file is sealed, its seal being right; False stands for a whole file without one.

    Raises:
        DamagedCheckpointError: it is neither.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        body = size - _SEAL_BYTES
        file.seek(max(0, body - _END_BYTES))
        tail = file.read()
        end, seal = tail[:_END_BYTES], tail[_END_BYTES:]
        if seal.startswith(_MARK) and end.startswith(_END) and end.endswith(_SEALED):
            if seal != _MARK + _digest(file, body).encode():
                raise DamagedCheckpointError(f"{path}: damaged: its bytes are not those that were written")
            return True
    if tail[-_END_BYTES:].startswith(_END) and tail.endswith(_UNSEALED):
        return False
    raise DamagedCheckpointError(f"{path}: not a checkpoint of a3c: its end is missing, so it is truncated or damaged")


def _digest(file: BinaryIO, body: int) -> str:
    """Hash the bytes that torch wrote, [0, body), whose last two said then that there is no comment."""
    digest = hashlib.sha256()
    file.seek(0)
    left = body - len(_UNSEALED)
    while left > 0 and (data := file.read(min(_CHUNK, left))):
        digest.update(data)
        left -= len(data)
    digest.update(_UNSEALED)
    return digest.hexdigest()


def present(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder that a run could go on from, the newest first."""
    return [file for name in (LAST, PREVIOUS) if (file := folder / name).is_file()]


def newest_valid(folder: Path) -> Path:
    """Return the newest checkpoint of a folder that holds; say loudly which ones do not.

    Raises:
        FileNotFoundError: there is none.
        DamagedCheckpointError: there are some, and all are damaged.
    """
    files = present(folder)
    if not files:
        raise FileNotFoundError(f"{folder}: no checkpoint")
    for file in files:
        try:
            load(file)
        except (DamagedCheckpointError, OSError) as error:
            log.warning("NOT USED, A CHECKPOINT THAT DOES NOT HOLD: %s", error)
        else:
            return file
    raise DamagedCheckpointError(f"{folder}: of {' and '.join(file.name for file in files)} none holds")


def tidy(folder: Path) -> None:
    """Remove what an earlier run left unfinished, and set a damaged last.ckpt aside.

    Set aside, it is never taken for the older one that is kept beside a new last.ckpt.
    """
    if not folder.is_dir():
        return
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)
    last = folder / LAST
    if last.is_file():
        try:
            load(last)
        except DamagedCheckpointError:
            os.replace(last, folder / DAMAGED)
