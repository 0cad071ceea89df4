"""What a run does only if it is asked to: a probe, videos, and more for W&B."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from a3c.runs.checkpoints import BEST, LAST, read_checkpoint
from a3c.runs.folder import VIDEOS
from a3c.runs.wandb_logger import RunTracker
from a3c.training.callbacks import EstimatorProbe, GreedyVideo, Histograms
from a3c.training.cli.usage import UsageError
from a3c.training.datamodule import RolloutDataModule
from a3c.training.modes import Mode
from a3c.training.probe.plan import ProbePlan

# Of the summary, what an artifact says of its checkpoints.
IN_ARTIFACT = (
    *("env", "estimator", "mode", "seed", "env_steps", "updates"),
    *("train_return_mean", "eval_return_mean", "best_eval_return_mean"),
)


def make_probe(wanted: ProbePlan | bool, mode: Mode) -> EstimatorProbe | None:
    """Make the probe that is asked for, and refuse one that would see no batches."""
    if not wanted:
        return None
    if not mode.trainer_learns:
        raise UsageError(
            f"probe: got true in mode {mode.name}, must be false there: workers learn by themselves, and "
            "the Trainer sees no batches"
        )
    return EstimatorProbe(wanted if isinstance(wanted, ProbePlan) else None)


def make_histograms(every_updates: int | None, mode: Mode) -> Histograms | None:
    """Make the callback that logs histograms, if any are wanted, and refuse one that would see no gradients."""
    if every_updates is None:
        return None
    if not mode.trainer_learns:
        raise UsageError(
            f"wandb.histograms_every: got {every_updates} in mode {mode.name}, must be null there: "
            "workers take the gradients, and the Trainer sees none"
        )
    return Histograms(every_updates)


def make_video(every_env_steps: int | None, data: RolloutDataModule) -> GreedyVideo | None:
    """Make the callback that records videos, if any are wanted, and have the environment draw a picture first."""
    if every_env_steps is None:
        return None
    try:
        video = GreedyVideo(Path(VIDEOS), every_env_steps)  # its folder follows, once there is one
        video.check(data.env, data.mode.supervision.timeout or math.inf)
    except ValueError as error:
        raise UsageError(f"video_every: {str(error).removeprefix('env: ').removeprefix('video: ')}") from error
    return video


def log_checkpoints(tracker: RunTracker, folder: Path, summary: Mapping[str, Any]) -> None:
    """Give W&B the checkpoints of a run that has ended.

    Args:
        tracker: of the run.
        folder: of the checkpoints.
        summary: what the run came to.
    """
    files = {Path(name).stem: folder / name for name in (LAST, BEST) if (folder / name).is_file()}
    metadata = {key: summary.get(key) for key in IN_ARTIFACT}
    for alias, file in files.items():
        with suppress(ValueError):  # a damaged one is kept as it is
            metadata[f"{alias}_env_steps"] = read_checkpoint(file)[0].get("env_steps")
    tracker.log_checkpoints(files, metadata)
