"""Where a run begins: anew, from a checkpoint, or in the folder of a run that it goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from a3c.runs.checkpoints import newest_valid, present
from a3c.runs.folder import CHECKPOINTS, LOG, newest_run


class Start(NamedTuple):
    """Where a run begins.

    Attributes:
        checkpoint: what it goes on from; None begins anew.
        folder: the run folder that it goes on in; None for a new one.
    """

    checkpoint: Path | None = None
    folder: Path | None = None


def find_start(wanted: str | None, folder: Path | None, shelf: Path, seed: int) -> Start:
    """Find what ``--ckpt_path`` asks for.

    Args:
        wanted: a checkpoint file; "last", the newest checkpoint of a run; "auto", the same if there is
            one, otherwise a beginning; None for a beginning.
        folder: the run folder that was asked for; None takes, for "last", the newest one.
        shelf: where run folders lie that nobody named.
        seed: the run's.

    Raises:
        ValueError: there is no such checkpoint, or none holds (`DamagedCheckpointError`).
    """
    if wanted is None:
        return Start()
    if wanted not in ("last", "auto"):
        file = Path(wanted)
        if not file.is_file():
            raise ValueError(f"got {wanted!r}, must be a checkpoint file that exists, or last, or auto")
        inside = folder is not None and file.resolve().parent == (folder / CHECKPOINTS).resolve()
        return Start(file, folder if inside else None)
    if wanted == "auto" and folder is None:
        raise ValueError("got 'auto' without a run folder, must come with run_dir or run_name")
    if wanted == "last" and folder is None:
        folder = newest_run(shelf, seed)
        if folder is None:
            raise ValueError(f"got 'last', but no run of seed {seed} in {shelf} has a checkpoint")
    assert folder is not None, "either it was given, or it was found"
    if present(folder / CHECKPOINTS):
        return Start(newest_valid(folder / CHECKPOINTS), folder)
    if wanted == "last":
        raise ValueError(f"got 'last', but {folder} has no checkpoint")
    # A run that was ended before its first checkpoint has left its log at least.
    return Start(None, folder if (folder / LOG).exists() else None)


def check_same(described: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another kind of run.

    Args:
        described: what the checkpoint says of its run.
        ours: what must be the same, by name.

    Raises:
        ValueError: the first name of what differs, with both values.
    """
    theirs, wanted = dotted({name: described.get(name) for name in ours}), dotted(ours)
    for name in {**wanted, **theirs}:
        before, now = theirs.get(name), wanted.get(name)
        if before != now:
            short = name.replace(".init_args", "").removesuffix(".class_path")
            raise ValueError(f"was trained with {short} {before}, must be that of the run: {now}")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words which settings differ from those of the run that is gone on with; of new ones nothing is said."""
    return [
        f"{name} was {before[name]} in the checkpoint, and is {value} from here on"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of a nested configuration by their dotted names; an empty mapping is a value."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            settings |= dotted(value, f"{prefix}{key}.")
        else:
            settings[f"{prefix}{key}"] = value
    return settings
