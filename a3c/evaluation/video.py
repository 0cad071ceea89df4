"""Videos of a policy: environments that draw themselves, and what they draw as an mp4 or a GIF."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import imageio.v2 as imageio
import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from a3c.batch import Episode
from a3c.envs.random_states import random_states_kept
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.evaluation.episode import first_episode, playing
from a3c.networks.actor_critic import ActorCritic

MAX_STEPS = 1000  # of an episode that a video shows
GIF_WIDTH, GIF_FPS = 400, 25

# Drawing into an array needs no display and no sound card, which SDL would look for and complain of. And its
# handlers would turn SIGTERM into an event that nobody reads.
_NO_WINDOW = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "SDL_NO_SIGNAL_HANDLERS": "1"}

Picture = NDArray[np.uint8]


class Recording(NamedTuple):
    """An episode as far as a video shows it.

    Attributes:
        episode: its return in the environment's own rewards, and its length, of the steps shown.
        whole: it is shown to its end; False where it is longer than `MAX_STEPS`.
    """

    episode: Episode
    whole: bool


class Recorder:
    """Plays single episodes on an environment that draws itself, and writes each as an mp4.

    A video has a picture of the first state and one after each step, of which it shows at most
    `MAX_STEPS`; each says the step and the episode's return so far. It plays at the environment's
    own speed.

    Args:
        env: which environment.
        greedy: take the most probable action; False samples.

    Raises:
        EnvError: the environment cannot be made, or cannot draw itself.
    """

    def __init__(self, env: EnvSpec, greedy: bool = True) -> None:
        self._greedy = greedy
        try:
            imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as error:
            raise EnvError(f"video: ffmpeg is missing: pip install 'imageio[ffmpeg]' ({error})") from error
        self._id = env.name
        self._env = make_drawn(env, "rgb_array")
        self._fps = float(self._env.metadata.get("render_fps") or 30)

    def __call__(
        self, network: ActorCritic, seed: int, path: Path, should_stop: Callable[[], bool] = lambda: False
    ) -> Recording | None:
        """Record an episode; the file is there once it is whole.

        Args:
            network: the policy.
            seed: of the environment and, if sampled, of the actions.
            path: the mp4, in a folder that exists.
            should_stop: asked at every step.

        Returns:
            What was recorded; None if it was stopped, and there is no file.

        Raises:
            OSError: the file cannot be written, or ffmpeg did not finish it.
            EnvError: the environment draws no picture, or one of another size.
        """
        temporary = path.with_name(f".{path.stem}.tmp.mp4")
        try:
            options: dict[str, Any] = {"fps": self._fps, "macro_block_size": 2, "ffmpeg_log_level": "error"}
            writer: Any = imageio.get_writer(temporary, format="FFMPEG", **options)
            with closing(writer):  # its own `with` leaves ffmpeg running after an exception
                recording = self._play(network, seed, writer.append_data, should_stop)
            if recording is not None:
                _check_whole(temporary, path, recording.episode.length + 1)
                os.replace(temporary, path)
            return recording
        finally:
            temporary.unlink(missing_ok=True)

    def _play(
        self, network: ActorCritic, seed: int, show: Callable[[Picture], None], should_stop: Callable[[], bool]
    ) -> Recording | None:
        episode_return, length, ended = 0.0, 0, False
        with playing(self._env, network, seed, self._greedy) as episodes:
            first = draw(self._env, self._id)
            show(captioned(first, "step 0"))
            for step in first_episode(episodes, MAX_STEPS):
                if should_stop():
                    return None
                episode_return, length = episode_return + float(step.own_rewards[0]), length + 1
                ended = bool(step.ended[0])
                picture = draw(self._env, self._id)
                if picture.shape != first.shape:  # ffmpeg takes one size only
                    raise EnvError(
                        f"env: {self._id} draws a picture of shape {picture.shape} after step {length}, must be "
                        f"{first.shape} as the first one's"
                    )
                show(captioned(picture, f"step {length}   return {episode_return:.6g}"))
        return Recording(Episode(episode_return, length), ended)

    def close(self) -> None:
        """Close the environment. Idempotent."""
        self._env.close()


def _check_whole(file: Path, path: Path, pictures: int) -> None:
    """Raise OSError where a file does not hold its pictures: of an ffmpeg that was killed the writer says nothing."""
    try:
        found, _ = imageio_ffmpeg.count_frames_and_secs(str(file))
    except RuntimeError as error:
        raise OSError(f"{path}: ffmpeg did not finish it") from error
    if found != pictures:
        raise OSError(f"{path}: ffmpeg did not finish it")


def make_drawn(spec: EnvSpec, render_mode: str) -> VectorEnv:
    """Make one environment that draws itself, and have it draw its first picture.

    Args:
        spec: which environment.
        render_mode: "rgb_array" gives pictures and needs no display; "human" opens a window.

    Raises:
        EnvError: it cannot be made or drawn, what it needs is not installed, or there is no display.
    """
    with random_states_kept(0):
        plain = spec.make(1)
    modes = plain.metadata.get("render_modes") or []
    plain.close()
    if not {render_mode, "rgb_array"} & set(modes):  # of pictures Gymnasium can make a window
        raise EnvError(
            f"env: {spec.name} cannot be drawn: its render modes are {', '.join(modes) or 'none'}, must have rgb_array"
        )
    with random_states_kept(0), _without_window() if render_mode == "rgb_array" else nullcontext():
        env = spec.make(1, render_mode)
        try:
            env.reset(seed=0)
            if render_mode == "rgb_array":
                draw(env, spec.name)
            else:
                _check_window()
        except (gymnasium.error.Error, RuntimeError) as error:  # the second is pygame's, of a display
            env.close()
            raise EnvError(f"env: {spec.name} cannot be drawn: {str(error).splitlines()[0]}") from error
        except EnvError:
            env.close()
            raise
    return env


def _check_window() -> None:
    """Raise RuntimeError where SDL, for want of a display, has drawn into memory."""
    pygame: Any = sys.modules.get("pygame")  # imported by the environment, if it uses it at all
    if pygame is None or not pygame.display.get_init() or "SDL_VIDEODRIVER" in os.environ:
        return
    if pygame.display.get_driver() in ("offscreen", "dummy"):
        raise RuntimeError("there is no display for a window")


def show(network: ActorCritic, env: EnvSpec, seeds: Iterable[int], greedy: bool = True) -> None:
    """Play episodes in a window, at the environment's own speed.

    Args:
        network: the policy.
        env: which environment.
        seeds: one for each episode.
        greedy: take the most probable action; False samples.

    Raises:
        EnvError: the environment cannot be made or drawn, or there is no display.
    """
    drawn = make_drawn(env, "human")
    try:
        for seed in seeds:
            with playing(drawn, network, seed, greedy) as episodes:
                deque(first_episode(episodes), maxlen=0)
    finally:
        drawn.close()


def draw(env: VectorEnv, env_id: str) -> Picture:
    """Return the picture of one environment, [height, width, 3], both even, as most video players need.

    Raises:
        EnvError: it is no picture.
    """
    frames = env.render()
    frame = np.asarray(frames[0] if frames else None)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise EnvError(
            f"env: {env_id} draws {frame.dtype} of shape {frame.shape}, must draw uint8 of shape (height, width, 3)"
        )
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def captioned(picture: Picture, text: str) -> Picture:
    """Return the picture with a line of text in its upper left corner."""
    image = Image.fromarray(picture)
    size = max(10, image.width // 30)
    ImageDraw.Draw(image).text(
        (size / 2, size / 3),
        text,
        font=ImageFont.load_default(size),
        fill="white",
        stroke_width=2,
        stroke_fill="black",
    )
    return np.asarray(image)


def write_gif(video: Path, path: Path) -> None:
    """Write a video again as a GIF that loops, at most 400 pixels wide and 25 pictures a second.

    Args:
        video: an mp4.
        path: the GIF.
    """
    fps = float(iio.immeta(video, plugin="FFMPEG")["fps"])
    every = math.ceil(fps / GIF_FPS)
    images = _shrunk(islice(iio.imiter(video, plugin="FFMPEG"), 0, None, every))
    next(images).save(path, save_all=True, append_images=images, duration=1000 * every / fps, loop=0)


def _shrunk(pictures: Iterator[Picture]) -> Iterator[Image.Image]:
    for picture in pictures:
        image = Image.fromarray(picture)
        image.thumbnail((GIF_WIDTH, image.height))
        yield image


@contextmanager
def _without_window() -> Iterator[None]:
    """Keep SDL from looking for a display, as long as the environment starts to draw; not for good."""
    before = {name: os.environ.get(name) for name in _NO_WINDOW}
    os.environ.update(_NO_WINDOW)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
