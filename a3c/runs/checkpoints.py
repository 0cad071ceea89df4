"""Checkpoint files: written whole or not at all, kept on disk, and verified when they are read."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from a3c.runs.files import UNFINISHED, replacing

FORMAT = 6  # of what a checkpoint says of its run; raised when another one could not be gone on from
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
DAMAGED = "damaged.ckpt"

# What torch wrote, a zip file, is followed by its SHA-256; torch.load reads such a file too. The checksums within a
# zip file are not enough: torch.load does not check them, and they do not cover the sizes of what lies in it.
_DIGEST_BYTES = hashlib.sha256().digest_size
_ZIP_END = b"PK\x05\x06"  # begins the last record of a zip file, of 22 bytes
_ZIP_END_BYTES = 22

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A file that is no checkpoint of this project, or one that cannot be used here."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint file that is not what was written, or that never was one."""


def save(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint and its digest to disk, in place of what is there.

    At every moment the file is the old one or the new one, whole, also after a power cut. An older
    last.ckpt stays, as previous.ckpt.

    Args:
        checkpoint: what `torch.save` takes.
        path: the file; its folder is made.

    Raises:
        OSError: it could not be written; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        _write(checkpoint, temporary)
        if path.name == LAST and path.exists():
            _keep_previous(path)
    _sync_folder(path.parent)


def _write(checkpoint: Mapping[str, Any], path: Path) -> None:
    content = io.BytesIO()  # written by ourselves: torch hides from its error that a disk is full
    torch.save(checkpoint, content)
    with path.open("wb") as file:
        file.write(content.getbuffer())
        file.write(hashlib.sha256(content.getbuffer()).digest())
        file.flush()
        os.fsync(file.fileno())


def _keep_previous(path: Path) -> None:
    """Give last.ckpt its second name; it keeps the first one until the new file takes it."""
    previous = path.with_name(PREVIOUS)
    try:
        with replacing(previous) as link:
            link.unlink(missing_ok=True)
            os.link(path, link)
    except OSError:  # a file system without hard links: for a moment only previous.ckpt exists
        os.replace(path, previous)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, once its digest holds; run nothing of it.

    A plain file of `torch.save`, without a digest, is read with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCheckpointError: it is truncated, altered, or no checkpoint.
    """
    content = path.read_bytes()
    body, digest = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        if not content[-_ZIP_END_BYTES:].startswith(_ZIP_END):
            raise DamagedCheckpointError(
                f"{path}: damaged, or not a checkpoint of a3c in format {FORMAT}: its digest does not match"
            )
        log.warning("%s has no digest: damage to it would go unnoticed", path)
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedCheckpointError(f"{path}: not a checkpoint of a3c: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict):
        raise DamagedCheckpointError(f"{path}: not a checkpoint of a3c: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what a checkpoint says of its run, and the network's weights; run nothing of it.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, no checkpoint of this project, or one of another format.
    """
    checkpoint = load(path)
    try:
        described, state = checkpoint["a3c"], dict(checkpoint["state_dict"])
        version = described.get("format")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of a3c: {_first_line(error)}") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: was saved in format {version} by another a3c, must be of format {FORMAT}")
    prefix = "network."
    return described, {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


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
    for file in folder.glob(UNFINISHED):
        file.unlink(missing_ok=True)
    last = folder / LAST
    if last.is_file():
        try:
            load(last)
        except DamagedCheckpointError:
            os.replace(last, folder / DAMAGED)
