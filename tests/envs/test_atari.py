import logging
import os
import sys

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from helpers import fit
from lightning.pytorch import Callback

from a3c import Agent, MLPActorCritic, NStep
from a3c.batch import empty_batch
from a3c.envs import atari, watchdog
from a3c.envs.source import EnvError
from a3c.envs.spaces import batch_shape
from a3c.envs.spec import EnvSpec
from a3c.envs.state import EnvStateError, get_env_state
from a3c.envs.wrappers import OWN_ENDS
from a3c.evaluation.evaluator import Evaluator
from a3c.evaluation.video import Recorder, show
from a3c.rollouts.collector import Collector
from a3c.rollouts.weights import SharedWeights

vector_env = pytest.importorskip("ale_py.vector_env")

SMALL = {"img_height": 32, "img_width": 32}
PONG, BREAKOUT, PACMAN = "ALE/Pong-v5", "ALE/Breakout-v5", "ALE/MsPacman-v5"


def network_for(spec):
    torch.manual_seed(0)
    return MLPActorCritic(*spec.look(1).spaces, hidden_sizes=(8,))


def played(spec, columns, length, fragments, seed=0):
    """Collect with a new network; give the fragments' batches and their episodes."""
    network, env = network_for(spec), spec.make(columns, learns=True)
    collector = Collector(env, network, SharedWeights(network), seed=seed)
    batches, episodes = [], []
    for _ in range(fragments):
        batch = empty_batch(batch_shape(length, columns, network.spaces))
        episodes += collector.collect(batch).episodes
        batches.append(batch)
    collector.close()
    return batches, episodes


@pytest.fixture
def actions_played(monkeypatch):
    """What every native vector of this test is reset and stepped with, in order."""
    played = []
    for name in ("reset", "step"):
        original = getattr(vector_env.AtariVectorEnv, name)

        def spy(self, *args, original=original, **kwargs):
            played.append((args, kwargs))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(vector_env.AtariVectorEnv, name, spy)
    return played


def reference(game, columns, calls):
    """Whole games of plain ale-py that is played as from the last reset on: each return and length, in order."""
    env = vector_env.AtariVectorEnv(game, columns, reward_clipping=False, repeat_action_probability=0.25, **SMALL)
    returns, lengths, over, games = np.zeros(columns), np.zeros(columns, int), np.zeros(columns, bool), []
    last = max(place for place, (_, kwargs) in enumerate(calls) if kwargs)
    (_, seeds), *steps = calls[last:]
    env.reset(**seeds)
    for args, _ in steps:
        _, rewards, terminated, truncated, _ = env.step(*args)
        lengths, over = lengths + ~over, terminated | truncated
        returns += rewards
        games += [(returns[column], lengths[column]) for column in np.flatnonzero(over)]
        returns[over] = lengths[over] = 0
    return games


def threads():
    """The ids of this process's threads; one that another test has left behind may end at any time."""
    return set(os.listdir("/proc/self/task"))


# Spaces and arguments


@pytest.mark.parametrize("columns", [1, 2])
def test_one_game_and_several_have_the_spaces_that_were_looked_at(columns):
    spec = EnvSpec(PONG, {"img_height": 42, "img_width": 36, "stack_num": 3})
    spaces = spec.look(columns).spaces
    assert spaces.observation.shape == (3, 42, 36)
    for learns in (True, False):
        env = spec.make(columns, learns=learns)
        assert (env.single_observation_space, env.single_action_space) == spaces
        assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        observations, _ = env.reset(seed=2**31 - 1)
        assert (observations.shape, observations.dtype) == ((columns, 3, 42, 36), np.uint8)
        env.close()


def test_a_game_has_sticky_actions_as_its_id_says_unless_told_otherwise(monkeypatch):
    given = []
    native = vector_env.ale_py.ALEVectorInterface
    monkeypatch.setattr(
        vector_env.ale_py, "ALEVectorInterface", lambda **kwargs: given.append(kwargs) or native(**kwargs)
    )
    for kwargs in ({}, {"repeat_action_probability": 0.0, "num_threads": 2}):
        EnvSpec(PONG, SMALL | kwargs).make(1).close()
    assert [each["repeat_action_probability"] for each in given] == [0.25, 0.0]
    assert [each["num_threads"] for each in given] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_stack": 4}, "env_kwargs: got 'frame_stack', must be of .*frameskip.*stack_num"),
        ({"batch_size": 2}, "env_kwargs: got 'batch_size', must be of"),
        ({"img_height": 0}, "env_kwargs: img_height: got 0, must be a whole number, at least 1"),
        ({"noop_max": 1.5}, "env_kwargs: noop_max: got 1.5, must be a whole number, at least 0"),
        ({"episodic_life": 1}, "env_kwargs: episodic_life: got 1, must be true or false"),
        ({"repeat_action_probability": 2}, "repeat_action_probability: got 2, must be a number from 0 to 1"),
    ],
)
def test_an_argument_that_ale_does_not_take_is_refused_in_one_line(arguments, message):
    with pytest.raises(EnvError, match=message):
        EnvSpec(PONG, arguments).look(2)


def test_what_cannot_be_made_is_refused_in_one_line(monkeypatch):
    with pytest.raises(EnvError, match=r"got 'ALE/Pnog-v5'.*nearest: ALE/Pong-v5"):
        EnvSpec("ALE/Pnog-v5").look(1)
    with pytest.raises(EnvError, match="wrappers: got one for single environments, must be a VectorWrapper"):
        EnvSpec(PONG, wrappers=["gymnasium.wrappers.ClipReward"]).look(1)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(EnvError, match=r"ALE/Pong-v5 needs ale-py: pip install 'a3c\[atari\]'"):
        EnvSpec(PONG).look(1)


# Rewards and ends of the game


def test_a_learner_is_given_clipped_rewards_and_episodes_have_the_games_own():
    spec = EnvSpec(PACMAN, SMALL, max_episode_steps=100)
    (batch,), episodes = played(spec, columns=2, length=100, fragments=1)
    assert batch.truncated[99].all()
    assert set(batch.rewards.unique().tolist()) == {0, 1}  # a pellet is 10
    eaten = batch.rewards.sum(0).tolist()
    assert min(eaten) > 0
    assert [episode.episode_return for episode in episodes] == [10 * count for count in eaten]
    unclipped, _ = played(EnvSpec(PACMAN, {**SMALL, "reward_clipping": False}, 100), columns=2, length=100, fragments=1)
    torch.testing.assert_close(unclipped[0].rewards, 10 * batch.rewards)


@pytest.mark.parametrize(("columns", "length"), [(2, 220), (1, 10)])
def test_with_a_life_an_episode_ends_for_the_learner_and_the_logged_one_is_the_whole_game(
    columns, length, actions_played
):
    """One column passes most of its resets between fragments, where no batch shows them."""
    spec = EnvSpec(BREAKOUT, {**SMALL, "episodic_life": True})
    batches, episodes = played(spec, columns, length, fragments=500 // length)
    games = reference("breakout", columns, actions_played)
    assert len(games) >= 2
    assert any(game_return > 0 for game_return, _ in games)
    assert [(episode.episode_return, episode.length) for episode in episodes] == games
    ends = sum(int(batch.terminated.sum()) for batch in batches)
    assert ends >= 5 * len(games)


def test_a_lost_life_is_terminal_and_the_game_goes_on_with_fire_in_a_step_that_counts_not(actions_played):
    env = EnvSpec(BREAKOUT, {**SMALL, "episodic_life": True}).make(1, learns=True)
    env.reset(seed=0)
    lost = []
    for _ in range(400):
        *_, terminated, _, info = env.step(np.array([2]))
        if terminated[0]:
            lost.append((int(info["lives"][0]), bool(info.get(OWN_ENDS, terminated)[0])))
            env.step(np.array([2]))
            assert actions_played[-1][0][0].tolist() == [1 if lost[-1][0] else 2]
        if lost and lost[-1][1]:
            break
    assert lost == [(4, False), (3, False), (2, False), (1, False), (0, True)]
    env.close()


def test_whoever_only_looks_plays_the_whole_game(actions_played):
    spec = EnvSpec(BREAKOUT, {**SMALL, "episodic_life": True})
    evaluator, network = Evaluator(spec, episodes=2, greedy=False), network_for(spec)
    evaluation = evaluator(network, seed=5)
    evaluator.close()
    games = reference("breakout", 2, actions_played)
    assert min(length for _, length in games) > 100  # with five lives
    assert {(episode.episode_return, episode.length) for episode in evaluation.episodes} <= set(games)


@pytest.mark.parametrize(
    ("limit", "arguments"), [(7, {}), (7, {"frameskip": 2}), (None, {"max_num_frames_per_episode": 27})]
)
def test_a_time_limit_truncates_after_so_many_steps(limit, arguments):
    spec = EnvSpec(PONG, {**SMALL, **arguments}, limit)
    assert spec.time_limit == 7
    assert EnvSpec(PONG).time_limit == 27_000
    (batch,), episodes = played(spec, columns=2, length=16, fragments=1)
    assert batch.truncated.nonzero()[:, 0].tolist() == [6, 6, 14, 14]
    assert not batch.terminated.any()
    assert (~batch.mask).nonzero()[:, 0].tolist() == [7, 7, 15, 15]
    assert [episode.length for episode in episodes] == [7] * 4


# What is stepped


def test_frames_reach_the_batch_unchanged(monkeypatch):
    seen = []
    step = vector_env.AtariVectorEnv.step

    def spy(self, actions):
        result = step(self, actions)
        seen.append(result[0].copy())
        return result

    network_for(EnvSpec(PONG, SMALL))
    monkeypatch.setattr(vector_env.AtariVectorEnv, "step", spy)
    (batch,), _ = played(EnvSpec(PONG, SMALL), columns=4, length=40, fragments=1)
    assert batch.observations.dtype == torch.uint8
    np.testing.assert_array_equal(batch.observations[1:].numpy(), np.stack(seen[-40:]))
    assert len(np.unique(batch.observations)) > 2


def test_the_same_seed_plays_the_same_game_and_each_column_its_own():
    one, again, other = (played(EnvSpec(PONG, SMALL), 2, 60, 1, seed)[0][0].observations for seed in (1, 1, 2))
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[:, 0], one[:, 1])
    assert not torch.equal(one, other)


def test_many_games_are_made_in_groups_that_play_as_one_would_and_give_signs_of_life(monkeypatch):
    signs = []
    monkeypatch.setattr(watchdog, "_listeners", [lambda: signs.append(None)])

    def play():
        env = EnvSpec(BREAKOUT, {**SMALL, "max_num_frames_per_episode": 40}).make(3)
        observations, _ = env.reset(seed=4)
        results = [(observations,), *(env.step(np.array([step % 4, 1, 2])) for step in range(12))]
        env.close()
        return [np.concatenate([np.ravel(array) for array in result[:4]]) for result in results]

    whole, few = play(), len(signs)
    monkeypatch.setattr(atari, "GROUP", 2)
    grouped = play()
    assert all(map(np.array_equal, whole, grouped))
    assert len(signs) - few == 2 * few == 2 * (1 + 1 + 12)


def test_closing_leaves_no_thread():
    spec = EnvSpec(PONG, {**SMALL, "num_threads": 2})
    spec.look(2)
    before = threads()
    env = spec.make(2, "rgb_array")
    assert len(threads() - before) == 4
    env.close()
    env.close()
    assert threads() <= before


def test_an_evaluation_of_a_game_ends_with_its_bound_and_counts_the_games_own_rewards():
    spec = EnvSpec(PACMAN, SMALL)
    evaluator = Evaluator(spec, episodes=3, greedy=False, max_episode_steps=100)
    evaluation = evaluator(network_for(spec), seed=0)
    evaluator.close()
    assert [episode.length for episode in evaluation.episodes] == [100] * 3
    assert list(evaluation.cut) == [True] * 3
    assert evaluation.return_mean >= 10


def test_a_resumed_run_says_that_its_games_start_anew(tmp_path, caplog):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            trainer.should_stop = True

    case = {"returns": NStep(4), "env": PONG, "env_kwargs": SMALL, "envs_per_worker": 2, "max_env_steps": 64}
    with caplog.at_level(logging.WARNING):
        *_, trainer = fit(callbacks=[Stop()], **case)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        *_, data, _ = fit(ckpt_path=tmp_path / "run.ckpt", **case)
    (warning,) = (record.getMessage() for record in caplog.records if "start anew" in record.getMessage())
    assert "AtariEnvs has no get_state() and set_state(state)" in warning
    assert data.progress.env_steps == 64
    env = EnvSpec(PONG, SMALL).make(1)
    with pytest.raises(EnvStateError):
        get_env_state(env)
    env.close()


# Videos


def test_a_video_shows_the_screen_of_the_very_game_that_the_policy_plays(tmp_path):
    whole = {"img_height": 210, "img_width": 160, "grayscale": False}
    env = EnvSpec(BREAKOUT, whole).make(2, "rgb_array")
    env.reset()  # without a seed, too
    for step in range(150):
        observations, *_ = env.step(np.array([step % 4, 1]))
        np.testing.assert_array_equal(env.render(), observations[:, -1])
    env.close()
    recorder = Recorder(EnvSpec(BREAKOUT, SMALL, max_episode_steps=20))
    recording = recorder(network_for(EnvSpec(BREAKOUT, SMALL)), 0, tmp_path / "game.mp4")
    recorder.close()
    assert recording.episode.length == 20
    assert iio.imread(tmp_path / "game.mp4", plugin="FFMPEG").shape == (21, 210, 160, 3)


def test_what_a_network_believes_of_a_game_is_drawn():
    spec = EnvSpec(PONG, SMALL, max_episode_steps=20)
    assert Agent(network_for(spec), spec).plot_beliefs().axes


def test_a_window_of_a_game_needs_opencv_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    spec = EnvSpec(PONG, SMALL)
    with pytest.raises(EnvError, match="ALE/Pong-v5 cannot be drawn: opencv"):
        show(network_for(spec), spec, [0])
