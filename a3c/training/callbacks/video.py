"""Records the policy on video while it is trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb
from lightning.pytorch import Callback, LightningModule, Trainer

from a3c.envs.random_states import random_states_kept
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.envs.watchdog import HangError, StepWatch
from a3c.training.callbacks.every import EveryEnvSteps, seed_of, watched
from a3c.training.seams import data_of, module_of

if TYPE_CHECKING:  # ffmpeg and pictures only for those who ask for videos
    from a3c.evaluation.video import Recorder

_log = logging.getLogger(__name__)


class GreedyVideo(Callback):
    """Records one greedy episode every so many env steps, and one at the end; training's clock stands still.

    All begin with the same seed, so that they can be compared. A video shows at most the first 1000
    steps of its episode. It goes to W&B too, as "eval/video". One that cannot be written is warned of.

    Args:
        folder: where videos go, as env_steps-000123456.mp4; made with the first one.
        every_env_steps: env steps between videos, ≥ 1.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(self, folder: Path, every_env_steps: int) -> None:
        if every_env_steps < 1:
            raise ValueError(f"got {every_env_steps}, must be at least 1")
        self.folder = folder
        self.every_env_steps = every_env_steps
        self._schedule = EveryEnvSteps(every_env_steps)
        self._recorder: Recorder | None = None

    @staticmethod
    def check(env: EnvSpec, timeout: float) -> None:
        """Have the environment draw one picture, and look whether there is an ffmpeg.

        Args:
            env: which environment.
            timeout: seconds after which it is taken to hang, > 0.

        Raises:
            EnvError: it cannot be made, or cannot draw itself, or ffmpeg is missing.
        """
        from a3c.evaluation.video import Recorder

        try:
            with random_states_kept(), StepWatch(timeout, "its first picture"):
                Recorder(env).close()
        except HangError as error:
            raise EnvError(f"env: {env.name} cannot be drawn: {error}") from error

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._schedule.begin(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self._schedule.is_due(trainer):
            with data_of(trainer).progress.clock.paused():
                module_of(trainer).hold()
                self._record(trainer)

    def _record(self, trainer: Trainer) -> None:
        from a3c.evaluation.video import Recorder

        data, module = data_of(trainer), module_of(trainer)
        path = self.folder / f"env_steps-{data.progress.env_steps:09d}.mp4"
        with random_states_kept(), watched(trainer, "an environment that is recorded") as should_stop:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._recorder = self._recorder or Recorder(data.env)
                if self._recorder(module.acting_network, seed_of(data.seed, "video", 0), path, should_stop) is None:
                    return
            # Of a full disk, of ffmpeg, which Ctrl-C ends too, or of an environment that draws no picture any more.
            except (OSError, ValueError) as error:
                _log.warning("%s is not written: %s", path, (str(error).splitlines() or [type(error).__name__])[0])
                return
        module.log_media({"eval/video": wandb.Video(str(path), format="mp4")})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Close the environment. Idempotent."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
