"""What a run does only if it is asked to: a probe, videos, and more for W&B."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from a3c.runs.checkpoints import BEST, LAST, read_checkpoint
from a3c.runs.folder import VIDEOS
from a3c.runs.wandb_logger import RunTracker, WandbOptions
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


class OptionalParts:
    """What the flags of one run ask for beside the training.

    Args:
        probe: compare estimators on its batches, and how.
        video_every: env steps from one video to the next; None for none.
        wandb: what W&B gets on demand.
        data: of the run.

    Raises:
        UsageError: the mode has no place for one of them, or the environment cannot be drawn.
    """

    def __init__(
        self, probe: ProbePlan | bool, video_every: int | None, wandb: WandbOptions, data: RolloutDataModule
    ) -> None:
        self._probe = _make_probe(probe, data.mode)
        self._video = _make_video(video_every, data)
        if wandb.histograms_every is not None and not data.mode.trainer_learns:
            raise UsageError(
                f"wandb.histograms_every: got {wandb.histograms_every} in mode {data.mode.name}, must be null there: "
                "workers take the gradients, and the Trainer sees none"
            )
        self._histograms = None if wandb.histograms_every is None else Histograms(wandb.histograms_every)
        self._artifacts = wandb.artifacts

    def callbacks(self, folder: Path) -> list[Callback]:
        """Return the callbacks, in the order in which they are to be called.

        Args:
            folder: the run folder.
        """
        if self._video is not None:
            self._video.folder = folder / VIDEOS
        return [callback for callback in (self._video, self._probe, self._histograms) if callback is not None]

    def keep_checkpoints(self, tracker: RunTracker, folder: Path, summary: Mapping[str, Any]) -> None:
        """Give W&B the checkpoints of a run that has ended, if that is asked for.

        Args:
            tracker: of the run.
            folder: of the checkpoints.
            summary: what the run came to.
        """
        if not self._artifacts:
            return
        files = {Path(name).stem: folder / name for name in (LAST, BEST)}
        files = {alias: file for alias, file in files.items() if file.is_file()}
        metadata = {key: summary.get(key) for key in IN_ARTIFACT}
        for alias, file in files.items():
            with suppress(ValueError):  # a damaged one is kept as it is
                metadata[f"{alias}_env_steps"] = read_checkpoint(file)[0].get("env_steps")
        tracker.log_checkpoints(files, metadata)


def _make_probe(wanted: ProbePlan | bool, mode: Mode) -> EstimatorProbe | None:
    """Make the probe that is asked for, and refuse one that would see no batches."""
    if not wanted:
        return None
    if not mode.trainer_learns:
        raise UsageError(
            f"probe: got true in mode {mode.name}, must be false there: workers learn by themselves, and "
            "the Trainer sees no batches"
        )
    return EstimatorProbe(wanted if isinstance(wanted, ProbePlan) else None)


def _make_video(every_env_steps: int | None, data: RolloutDataModule) -> GreedyVideo | None:
    """Make the callback that records videos, if any are wanted, and have the environment draw a picture first."""
    if every_env_steps is None:
        return None
    try:
        video = GreedyVideo(Path(VIDEOS), every_env_steps)  # its folder follows, once there is one
        video.check(data.env, data.mode.supervision.timeout or math.inf)
    except ValueError as error:
        raise UsageError(f"video_every: {str(error).removeprefix('env: ').removeprefix('video: ')}") from error
    return video
