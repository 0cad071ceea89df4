import os
import sys

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from helpers import COUNTDOWN, make_network
from PIL import Image
from scripted_envs import Drawn

from a3c import Agent
from a3c.batch import Episode
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.evaluation import video as video_module
from a3c.evaluation.evaluator import Evaluator
from a3c.evaluation.video import Recorder, Recording, captioned, make_drawn, show, write_gif

DRAWN = "scripted_envs:Drawn-v0"


def record(path, env=DRAWN, network=None, should_stop=lambda: False, seed=0, **spec):
    recorder = Recorder(EnvSpec(env, **spec))
    try:
        return recorder(network or make_network(), seed, path, should_stop)
    finally:
        recorder.close()


def pictures(path):
    return iio.imread(path, plugin="FFMPEG")


def test_a_video_has_a_picture_of_the_first_state_and_one_after_each_step(tmp_path, caplog):
    recording = record(tmp_path / "one.mp4")
    assert recording == Recording(Episode(1 + 2 + 3 + 4 + 5, 5), whole=True)
    frames = pictures(tmp_path / "one.mp4")
    assert frames.shape == (6, 34, 148, 3)  # even, as players need it
    assert frames[:, 20:, 80:].mean(axis=(1, 2, 3)) == pytest.approx([0, 20, 40, 60, 80, 100], abs=4)
    assert iio.immeta(tmp_path / "one.mp4", plugin="FFMPEG")["fps"] == 10
    assert list(tmp_path.iterdir()) == [tmp_path / "one.mp4"]
    assert caplog.text == ""  # as imageio would speak of a size that it changes


def test_a_video_of_a_real_environment_plays_its_episode(tmp_path):
    network = make_network(4, 2)
    recording = record(tmp_path / "one.mp4", "CartPole-v1", network, seed=4)
    frames = pictures(tmp_path / "one.mp4")
    assert frames.shape == (recording.episode.length + 1, 400, 600, 3)
    assert frames.std() > 10
    env = EnvSpec("CartPole-v1").make(1)
    (observation, _), length, ended = env.reset(seed=4), 0, False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(
            np.array(Agent(network, EnvSpec("CartPole-v1")).act(observation))
        )
        length, ended = length + 1, terminated[0] or truncated[0]
    assert recording.episode.length == length


def test_a_long_episode_is_shown_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, "MAX_STEPS", 3)
    assert record(tmp_path / "one.mp4") == Recording(Episode(1 + 2 + 3, 3), whole=False)
    assert len(pictures(tmp_path / "one.mp4")) == 4


def test_the_return_shown_is_the_environments_own(tmp_path):
    recording = record(tmp_path / "one.mp4", wrappers=[["a3c.TerminalReward", {"reward": -10.0}]])
    assert recording.episode == Episode(15, 5)


def test_a_recording_that_is_stopped_or_fails_leaves_no_file_and_the_network_as_it_was(tmp_path):
    network = make_network().train()
    assert record(tmp_path / "one.mp4", network=network, should_stop=lambda: True) is None
    with pytest.raises(ZeroDivisionError):
        record(tmp_path / "one.mp4", network=network, should_stop=lambda: 1 / 0)
    assert list(tmp_path.iterdir()) == []
    assert network.training


@pytest.mark.parametrize("torn", ["cut", "empty", "a picture short"])
def test_a_video_that_ffmpeg_did_not_finish_is_no_video(tmp_path, monkeypatch, torn):
    played = Recorder._play

    def play(self, network, seed, show, should_stop):
        recording = played(self, network, seed, show, should_stop)
        return recording._replace(episode=Episode(15, 6)) if torn == "a picture short" else recording

    class Killed:
        def __init__(self, path):
            self._path, self._writer = path, get_writer(path, format="FFMPEG", fps=10, macro_block_size=2)
            self.append_data = self._writer.append_data

        def close(self):
            self._writer.close()
            whole = self._path.read_bytes()
            self._path.write_bytes({"cut": whole[:-200], "empty": b""}.get(torn, whole))

    get_writer = video_module.imageio.get_writer
    monkeypatch.setattr(video_module.imageio, "get_writer", lambda path, **options: Killed(path))
    monkeypatch.setattr(Recorder, "_play", play)
    with pytest.raises(OSError, match=r"one\.mp4: ffmpeg did not finish it$"):
        record(tmp_path / "one.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0.5, 7, 29.97, 240])
def test_a_video_of_any_speed_is_found_whole(tmp_path, monkeypatch, fps):
    monkeypatch.setitem(Drawn.metadata, "render_fps", fps)
    assert record(tmp_path / "one.mp4").episode.length == 5
    assert len(pictures(tmp_path / "one.mp4")) == 6


def test_a_picture_of_another_size_than_the_first_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Drawn, "render", lambda self: np.zeros((32, 64 + 2 * (self.step_count > 2), 3), np.uint8))
    with pytest.raises(
        EnvError, match=r"Drawn-v0 draws a picture of shape \(32, 66, 3\) after step 3, must be \(32, 64, 3\) as the"
    ):
        record(tmp_path / "one.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_episode_is_played_with_the_network_in_evaluation_mode(tmp_path):
    modes, network = [], make_network().train()
    network.actor_head.register_forward_hook(lambda module, *args: modes.append(module.training))
    record(tmp_path / "one.mp4", network=network)
    assert modes == [False] * 5


def test_what_was_frozen_before_a_recording_or_an_evaluation_is_frozen_after_it(tmp_path):
    network = make_network().train()
    network.actor_trunk.eval()
    modes = [module.training for module in network.modules()]
    assert len(set(modes)) == 2
    record(tmp_path / "one.mp4", network=network)
    assert [module.training for module in network.modules()] == modes
    evaluator = Evaluator(EnvSpec(DRAWN), 1)
    evaluator(network, seed=0)
    assert [module.training for module in network.modules()] == modes
    network.register_forward_hook(lambda *args: 1 / 0)
    network.actor_trunk.register_forward_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluator(network, seed=0)
    evaluator.close()
    assert [module.training for module in network.modules()] == modes


def test_one_recorder_records_one_episode_after_another(tmp_path):
    recorder = Recorder(EnvSpec(DRAWN, {"lengths": (2, 4)}))
    lengths = [recorder(make_network(), 0, tmp_path / f"{number}.mp4").episode.length for number in range(3)]
    recorder.close()
    assert lengths == [4, 2, 4]  # the first episode was begun for the first picture
    assert len(list(tmp_path.iterdir())) == 3


def test_a_gif_has_every_so_manieth_picture_of_a_video(tmp_path, monkeypatch):
    monkeypatch.setitem(Drawn.metadata, "render_fps", 50)
    record(tmp_path / "one.mp4")
    write_gif(tmp_path / "one.mp4", tmp_path / "one.gif")
    with Image.open(tmp_path / "one.gif") as image:
        assert image.n_frames == 3
        assert image.size == (148, 34)
        assert image.info["duration"] == 40
        assert image.info["loop"] == 0
    assert len(iio.imread(tmp_path / "one.gif")) == 3


def test_a_gif_of_a_wide_video_is_shrunk(tmp_path):
    iio.imwrite(
        tmp_path / "wide.mp4", np.zeros((2, 100, 800, 3), np.uint8), plugin="FFMPEG", fps=10, macro_block_size=2
    )
    write_gif(tmp_path / "wide.mp4", tmp_path / "wide.gif")
    with Image.open(tmp_path / "wide.gif") as image:
        assert image.size == (400, 50)


def test_a_caption_stands_in_the_upper_left_corner_and_says_different_things():
    grey = np.full((100, 300, 3), 128, np.uint8)
    one, other = captioned(grey, "step 1"), captioned(grey, "step 2")
    assert one.shape == grey.shape
    changed = np.argwhere((one != grey).any(-1))
    assert len(changed) > 50
    assert (changed.max(0) < [20, 150]).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (COUNTDOWN, "Countdown-v0 cannot be drawn: its render modes are none, must have rgb_array"),
        ("CartPole-v1", "CartPole-v1 cannot be drawn: pygame is not installed"),
    ],
    ids=["no-pictures", "no-pygame"],
)
def test_an_environment_that_cannot_draw_itself_is_refused_by_name(monkeypatch, env, message):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(EnvError, match=message):
        Recorder(EnvSpec(env))


@pytest.mark.parametrize(
    "drawn", [None, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))], ids=["none", "flat", "float"]
)
def test_what_is_no_picture_is_refused(monkeypatch, drawn):
    monkeypatch.setattr(Drawn, "render", lambda self: drawn)
    with pytest.raises(EnvError, match=r"Drawn-v0 draws .* must draw uint8 of shape \(height, width, 3\)"):
        Recorder(EnvSpec(DRAWN))


def test_drawing_without_a_window_leaves_no_trace_in_the_process(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "something")
    monkeypatch.delenv("SDL_AUDIODRIVER", raising=False)
    before = dict(os.environ)
    env = make_drawn(EnvSpec("CartPole-v1"), "rgb_array")
    assert dict(os.environ) == before
    import pygame

    assert pygame.display.get_driver() == "dummy"
    env.close()
    assert not pygame.display.get_init()  # whoever opens a window next chooses anew


def test_a_window_without_a_display_is_refused(monkeypatch, capfd):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvError, match="CartPole-v1 cannot be drawn: there is no display for a window"):
        show(make_network(4, 2), EnvSpec("CartPole-v1"), [0])


def test_a_window_shows_whole_episodes(monkeypatch):
    from gymnasium.envs.classic_control import CartPoleEnv

    steps = []
    step = CartPoleEnv.step
    monkeypatch.setattr(CartPoleEnv, "step", lambda self, action: steps.append(self.render_mode) or step(self, action))
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # a display that is asked for by name is one
    show(make_network(4, 2), EnvSpec("CartPole-v1", max_episode_steps=4), [0, 1])
    assert steps == ["human"] * 8


def test_an_agent_records_itself(tmp_path):
    recording = Agent(make_network(), EnvSpec(DRAWN)).record(tmp_path / "one.mp4", seed=3)
    assert recording.episode.length == 5
    assert len(pictures(tmp_path / "one.mp4")) == 6


def test_sampled_actions_come_from_the_seed(tmp_path):
    network = make_network(4, 2)
    with torch.no_grad():
        network.actor_head.weight.zero_()
    agent = Agent(network, EnvSpec("CartPole-v1"))
    lengths = [agent.record(tmp_path / "one.mp4", seed, greedy=False).episode.length for seed in (0, 0, 1, 2, 3)]
    assert lengths[0] == lengths[1]
    assert len(set(lengths)) > 2
