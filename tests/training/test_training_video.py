"""Videos of the policy while it is trained."""

import csv
import random
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from helpers import fit
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from scripted_envs import Drawn

from a3c import A3C, NStep
from a3c.batch import Episode
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.envs.watchdog import HangError
from a3c.evaluation.video import Recorder, Recording
from a3c.runs.folder import rewind
from a3c.training.callbacks import GreedyVideo
from a3c.training.cli.command import main

CONFIG = Path(__file__).parent.parent.parent / "configs" / "cartpole.yaml"
WANDER = "scripted_envs:DrawnWander-v0"
ENV = {"env": "scripted_envs:Drawn-v0", "max_env_steps": 500}


class MediaLogger(Logger):
    """Keeps what it is given; put in place of the trainer's loggers by `Attach`."""

    name, version = "media", ""

    def __init__(self):
        super().__init__()
        self.media = []

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_media(self, media, env_steps):
        self.media.append((media, env_steps))


class Attach(Callback):
    def __init__(self, *loggers):
        self.loggers = list(loggers)

    def on_fit_start(self, trainer, pl_module):
        trainer.loggers = self.loggers


def recorded(monkeypatch):
    """Has nothing drawn; gives the seeds and paths that would have been."""
    calls = []

    def call(self, network, seed, path, should_stop):
        calls.append((seed, path))
        path.write_bytes(b"")
        return Recording(Episode(1.0, 1), True)

    monkeypatch.setattr(Recorder, "__call__", call)
    return calls


def test_videos_leave_the_weights_as_they_would_have_been_to_the_bit(tmp_path):
    def train(*callbacks):
        random.seed(1), np.random.seed(1)  # this environment draws from them too
        return fit(NStep(8), env=WANDER, max_env_steps=400, callbacks=callbacks)[0].state_dict()

    plain, with_videos = train(), train(GreedyVideo(tmp_path, 100))
    assert len(list(tmp_path.glob("*.mp4"))) == 4
    assert all(torch.equal(plain[key], with_videos[key]) for key in plain)


def test_a_look_at_what_can_be_drawn_leaves_the_random_states_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].tolist()
    GreedyVideo.check(EnvSpec(WANDER), 10.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy_before


def test_a_video_is_recorded_every_so_many_env_steps_and_at_the_end(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    logger = MediaLogger()
    fit(NStep(8), callbacks=[Attach(logger), GreedyVideo(tmp_path / "videos", 200)], **ENV)
    steps = [int(path.stem.removeprefix("env_steps-")) for _, path in calls]
    assert 200 <= steps[0] < 232
    assert 400 <= steps[1] < 432
    assert 500 <= steps[2] < 532
    assert len(steps) == 3
    assert all(
        path == tmp_path / "videos" / f"env_steps-{step:09d}.mp4" for (_, path), step in zip(calls, steps, strict=True)
    )
    assert len({seed for seed, _ in calls}) == 1  # so that they can be compared
    assert [env_steps for _, env_steps in logger.media] == steps
    assert all(list(media) == ["eval/video"] for media, _ in logger.media)


def test_a_logger_without_media_gets_none(tmp_path):
    class Plain(MediaLogger):
        log_media = property()

    fit(NStep(8), callbacks=[Attach(Plain()), GreedyVideo(tmp_path, 1000)], **ENV)
    (path,) = tmp_path.iterdir()
    assert len(iio.imread(path, plugin="FFMPEG")) == 6


def test_training_stands_still_while_a_video_is_recorded(tmp_path, monkeypatch):
    now, held = [0.0], []
    monkeypatch.setattr("a3c.rollouts.progress.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(A3C, "hold", lambda self: held.append(True))

    def slow(*args):
        assert held
        now[0] += 1000.0

    monkeypatch.setattr(Recorder, "__call__", slow)
    _, data, _ = fit(NStep(8), callbacks=[GreedyVideo(tmp_path, 100)], **ENV)
    assert now[0] >= 5000
    assert data.progress.clock.seconds == 0


def test_an_interrupted_run_records_nothing_more(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    monkeypatch.setattr("lightning.pytorch.Trainer.interrupted", property(lambda self: True))
    fit(NStep(8), callbacks=[GreedyVideo(tmp_path, 100)], **ENV)
    assert calls == []


def test_a_video_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Recorder, "__call__", full)
    logger = MediaLogger()
    _, data, _ = fit(NStep(8), callbacks=[Attach(logger), GreedyVideo(tmp_path, 1000)], **ENV)
    assert data.progress.env_steps >= 500
    assert logger.media == []
    assert "mp4 is not written: [Errno 28] No space left on device" in caplog.text


def test_a_picture_that_fails_while_it_is_recorded_costs_a_warning(tmp_path, monkeypatch, caplog):
    drawn = Drawn.render
    monkeypatch.setattr(Drawn, "render", lambda self: drawn(self) if self.step_count < 3 else None)
    _, data, _ = fit(NStep(8), callbacks=[GreedyVideo(tmp_path, 1000)], **ENV)
    assert data.progress.env_steps >= 500
    assert "mp4 is not written: env: scripted_envs:Drawn-v0 draws object of shape ()" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_an_error_without_a_word_costs_a_warning_too(tmp_path, monkeypatch, caplog):
    def silent(*args):
        raise OSError

    monkeypatch.setattr(Recorder, "__call__", silent)
    fit(NStep(8), callbacks=[GreedyVideo(tmp_path, 1000)], **ENV)
    assert "mp4 is not written: OSError" in caplog.text


def test_an_environment_that_hangs_while_it_is_recorded_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "__call__", lambda *args: time.sleep(60))
    with pytest.raises(HangError, match="an environment that is recorded gave no sign of life"):
        fit(NStep(8), callbacks=[GreedyVideo(tmp_path, 100)], worker_timeout=0.2, **ENV)


def test_an_environment_that_hangs_over_its_first_picture_is_refused(monkeypatch):
    monkeypatch.setattr(Drawn, "render", lambda self: time.sleep(60))
    with pytest.raises(EnvError, match="Drawn-v0 cannot be drawn: its first picture gave no sign of life"):
        GreedyVideo.check(EnvSpec(ENV["env"]), 0.2)


def test_a_run_that_goes_on_has_no_videos_beyond_its_checkpoint(tmp_path, caplog):
    folder = tmp_path / "videos"
    folder.mkdir()
    names = ["env_steps-000000100.mp4", "env_steps-000000200.mp4", "env_steps-000000201.mp4", "mine.mp4"]
    for name in [*names, ".env_steps-000000300.tmp.mp4"]:
        (folder / name).write_bytes(b"")
    rewind(tmp_path, 200)
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(names) - {"env_steps-000000201.mp4"})
    assert "1 video(s) beyond the checkpoint removed" in caplog.text


# ---------------------------------------------------------------- the flag


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video_every", "0"], "video_every: got 0, must be at least 1"),
        (["--video_every", "often"], "video_every: got often, must be a whole number or null"),
        (
            ["--video_every", "100", "--data.env", "scripted_envs:Countdown-v0"],
            "video_every: scripted_envs:Countdown-v0 cannot be drawn: its render modes are none, must have rgb_array",
        ),
    ],
    ids=["zero", "word", "cannot-draw"],
)
def test_videos_that_cannot_be_had_are_refused_before_the_run(here, capsys, arguments, message):
    assert main(CONFIG, ["--mode", "sync", *arguments]) == 2
    assert capsys.readouterr().err == f"train.py: error: {message}\n"
    assert list(here.iterdir()) == []


def test_videos_without_ffmpeg_are_refused_before_the_run(here, capsys, monkeypatch):
    def missing():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", missing)
    assert main(CONFIG, ["--mode", "sync", "--data.env", ENV["env"], "--video_every", "100"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py: error: video_every: ffmpeg is missing: pip install")
    assert error.count("\n") == 1
    assert list(here.iterdir()) == []


def test_a_runs_videos_lie_in_its_folder_and_in_its_wandb_run(here):
    budget = ["--data.max_env_steps", "600", "--data.envs_per_worker", "4", "--evaluation.final_episodes", "1"]
    arguments = ["--mode", "sync", "--run_dir", "run", "--data.env", ENV["env"], "--video_every", "300", *budget]
    assert main(CONFIG, arguments) == 0
    videos = sorted(path.name for path in Path("run/videos").iterdir())
    assert len(videos) == 2
    assert len(iio.imread(f"run/videos/{videos[0]}", plugin="FFMPEG")) == 6
    assert len(list(here.glob("run/wandb/offline-run-*/files/media/videos/eval/video_*.mp4"))) == 2
    with Path("run/metrics.csv").open(newline="") as file:
        steps = [float(row["env_steps"]) for row in csv.DictReader(file)]
    assert float(videos[-1][10:19]) == steps[-1]
