import pickle
import re
import subprocess
import sys
import time
from functools import partial
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from helpers import fit, make_network
from scripted_envs import Countdown, Lonely

from a3c import Agent, GreedyEvaluation, NStep, RolloutDataModule
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.evaluation.video import make_drawn


def test_a_native_vector_environment_is_preferred_and_resets_in_the_next_step():
    env = EnvSpec("CartPole-v1").make(3)
    assert type(env.unwrapped).__name__ == "CartPoleVectorEnv"
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    other = EnvSpec("Acrobot-v1").make(3)
    assert other.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert other.num_envs == 3
    env.close()
    other.close()


@pytest.mark.parametrize(("given", "nearest"), [("CartPol-v1", "CartPole-v1"), ("Acrobt-v1", "Acrobot-v1")])
def test_an_unknown_environment_is_named_with_the_nearest(given, nearest):
    with pytest.raises(EnvError, match=f"env: got '{given}'.*nearest: {nearest}"):
        EnvSpec(given).make(1)


class Speaking(gymnasium.Env):
    observation_space, action_space = spaces.Text(5), spaces.Discrete(2)


gymnasium.register("Speaking-v0", Speaking)


def test_unsupported_spaces_are_refused_with_those_that_are_supported():
    with pytest.raises(EnvError, match=r"Speaking-v0 has observations Text.* supported: observations: Box .*Tuple of"):
        EnvSpec("Speaking-v0").make(1)


def test_constructor_arguments_and_time_limits_reach_the_environment():
    env = EnvSpec("CartPole-v1", {"sutton_barto_reward": True}, max_episode_steps=7).make(1)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample() * 0)[3][0] for _ in range(7)]
    assert ends[-1]
    assert EnvSpec("CartPole-v1").time_limit == 500
    assert EnvSpec("CartPole-v1", {}, 7).time_limit == 7
    assert EnvSpec("CartPole-v1").reward_threshold == 475
    with pytest.raises(EnvError, match="unexpected keyword"):
        EnvSpec("CartPole-v1", {"gravty": 3}).make(1)


def test_an_environment_in_a_module_of_its_own_is_found():
    env = EnvSpec("scripted_envs:Countdown-v0").make(2)
    assert env.num_envs == 2
    env.close()
    with pytest.raises(EnvError, match="must be of a module that can be imported"):
        EnvSpec("no_such_module:Countdown-v0").make(1)


# Spaces of what is stepped


class Pixels(CartPoleVectorEnv):
    """A native version whose observations are other ones than those of a single environment."""

    def __init__(self, num_envs=1, max_episode_steps=500, render_mode=None):
        super().__init__(num_envs, max_episode_steps, render_mode)
        made.append(num_envs)
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (3, 2), np.uint8)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(self, **kwargs):
        _, info = super().reset(**kwargs)
        return np.zeros((self.num_envs, 3, 2), np.uint8), info

    def step(self, action):
        _, *rest = super().step(action)
        return np.ones((self.num_envs, 3, 2), np.uint8), *rest


made = []
gymnasium.register("Pixels-v0", CartPoleEnv, vector_entry_point=Pixels, max_episode_steps=500)


def test_spaces_are_those_of_the_kind_that_is_stepped_and_few_are_made_for_them():
    made.clear()
    assert EnvSpec("Pixels-v0").look(1).spaces.observation.shape == (4,)
    assert EnvSpec("Pixels-v0").look(256).spaces.observation.shape == (3, 2)
    assert made == [2]


@pytest.mark.parametrize(("envs_per_worker", "shape"), [(1, (4,)), (4, (3, 2))])
def test_training_and_evaluation_step_the_kind_that_the_policy_was_made_for(envs_per_worker, shape):
    evaluation = GreedyEvaluation(every_env_steps=64, episodes=1, final_episodes=3)
    model, data, _ = fit(
        NStep(8), env="Pixels-v0", envs_per_worker=envs_per_worker, max_env_steps=64, callbacks=[evaluation]
    )
    assert data.observation_space.shape == model.network.observation_space.shape == shape
    assert len(evaluation.final.episodes) == 3
    Agent(model.network, data.env).plot_beliefs()


def test_a_policy_of_other_spaces_is_refused_in_one_line():
    agent = Agent(make_network(5, 2), EnvSpec("Pixels-v0"))
    message = (
        r"^env: Pixels-v0 has observations Box\(.*\) and actions Discrete\(2\), must have those that the policy was "
    )
    for look in (lambda: agent.evaluate(1), lambda: agent.evaluate(3), agent.plot_beliefs):
        with pytest.raises(EnvError, match=message) as caught:
            look()
        assert "\n" not in str(caught.value)


def test_a_video_of_the_kind_that_a_policy_was_not_made_for_is_refused(tmp_path):
    with pytest.raises(EnvError, match="must have those that the policy was made for"):
        Agent(make_network(5, 2), EnvSpec("CartPole-v1")).record(tmp_path / "one.mp4")


# The first look


class Moody(CartPoleEnv):
    """Fails, hangs or draws in its first reset or step."""

    def __init__(self, mood, **kwargs):
        super().__init__(**kwargs)
        self.mood = mood

    def reset(self, **kwargs):
        if self.mood == "hang":
            time.sleep(60)
        if self.mood == "raise":
            raise ValueError("no such track")
        self.mood == "draw" and np.random.random()
        return super().reset(**kwargs)


gymnasium.register("Moody-v0", Moody)


def test_a_first_reset_that_hangs_is_refused_before_the_start():
    with pytest.raises(EnvError, match=r"Moody-v0 cannot be made: its first reset and step gave no sign of life"):
        RolloutDataModule("Moody-v0", {"mood": "hang"}, worker_timeout=0.3)


def test_what_the_first_reset_raises_is_shown_as_the_environments_own():
    with pytest.raises(RuntimeError, match="env: Moody-v0 raised in its first reset: no such track") as caught:
        RolloutDataModule("Moody-v0", {"mood": "raise"})
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_first_look_leaves_the_processs_generators_as_they_were():
    before = np.random.get_state()[1].tolist()
    EnvSpec("Moody-v0", {"mood": "draw"}).look(1)
    assert np.random.get_state()[1].tolist() == before


# Classes and functions


class Hall(Countdown):
    """A countdown of one length, that draws itself."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, length=3, render_mode=None):
        super().__init__((length,))
        self.render_mode = render_mode

    def render(self):
        return np.zeros((32, 32, 3), np.uint8)


def make_hall(length=4):
    return Hall(length)


class Track:
    """No plain value."""


CALLABLES = {  # what is given, then its name, what a checkpoint says of it, and the length of its episodes
    "class": (Hall, "Hall", ("test_spec.Hall", {}), 3),
    "function": (make_hall, "make_hall", ("test_spec.make_hall", {}), 4),
    "path of a class": ("test_spec.Hall", "Hall", ("test_spec.Hall", {}), 3),
    "path of a function": ("test_spec.make_hall", "make_hall", ("test_spec.make_hall", {}), 4),
    "lambda": (lambda: Hall(2), "<lambda>", ("<test_spec.<lambda>>", {}), 2),
    "partial": (partial(Hall, length=5), "Hall", ("test_spec.Hall", {"length": 5}), 5),
    "partial by position": (partial(Hall, 5), "Hall", ("<test_spec.Hall>", {}), 5),
    "partial of no plain value": (partial(lambda track: Hall(1), track=Track()), "<lambda>", None, 1),
}


def length_of(env):
    """The length of an environment's first episode."""
    env.reset(seed=0)
    lasts = 1
    while not any(flag[0] for flag in env.step(np.zeros(env.num_envs, int))[2:4]):
        lasts += 1
    env.close()
    return lasts


@pytest.mark.parametrize("case", CALLABLES)
def test_a_class_or_function_makes_environments_here_and_in_other_processes(case):
    given, name, said, length = CALLABLES[case]
    spec = EnvSpec(given)
    assert spec.name == name
    assert said in (None, (spec.id, spec.kwargs))
    for other in (spec, spec.sharing(None), pickle.loads(pickle.dumps(spec))):
        assert length_of(other.make(2)) == length
    assert spec.time_limit is None
    assert length_of(spec.bounded(1).make(1)) == 1


def test_arguments_time_limit_and_wrappers_go_around_what_a_function_makes():
    env = EnvSpec(make_hall, {"length": 9}, 7, ["gymnasium.wrappers.TimeAwareObservation"]).make(1)
    assert env.single_observation_space.shape == (3,)
    assert length_of(env) == 7
    with pytest.raises(EnvError, match=r"env: make_hall cannot be made: make_hall\(\) got an unexpected keyword"):
        EnvSpec(make_hall, {"lenth": 9}).make(1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: None, "env: <lambda> cannot be made: The environment must inherit from the gymnasium.Env class"),
        (Hall(), "env: got <test_spec.Hall object at .*>, must be an id, an import path, or a class or function that"),
        ("test_spec.Hal", "env: got 'test_spec.Hal', must be a class or function of test_spec; nearest: Hall"),
        ("test_spec.Track", "env: got 'test_spec.Track', must be a class derived from gymnasium.Env, or a function"),
        ("test_spec.made", "env: got 'test_spec.made', must be a class derived from gymnasium.Env, or a function"),
        ("no_such.Hall", "env: got 'no_such.Hall', must be of a module that can be imported: No module named"),
        ("<__main__.Hall>", r"env: got Hall, which was made in .* be given: a3c.load\(path, env=Hall\)$"),
    ],
)
def test_what_makes_no_environment_is_refused_in_one_line(given, message):
    with pytest.raises(EnvError, match=message) as caught:
        RolloutDataModule(given)
    assert "\n" not in str(caught.value)


def test_an_exception_of_a_function_is_shown_as_its_own():
    def broken():
        raise ValueError("no such track")

    with pytest.raises(RuntimeError, match=r"env: broken raised in its constructor: no such track$") as caught:
        RolloutDataModule(broken)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_render_mode_reaches_what_takes_one_and_is_missed_only_for_a_video():
    for given in (Hall, lambda: Hall(render_mode="rgb_array"), lambda **kwargs: Hall(**kwargs)):
        assert EnvSpec(given).make(1, "rgb_array").render_mode == "rgb_array"
    EnvSpec(make_hall).look(1)
    with pytest.raises(EnvError, match=r"^env: make_hall cannot be drawn: it takes no render_mode, must take render_m"):
        make_drawn(EnvSpec(make_hall), "rgb_array")


def test_of_an_environment_that_may_exist_once_a_second_is_refused_with_what_to_set():
    with pytest.raises(RuntimeError, match=r"the simulator is open already; .* with envs_per_worker 1, or evaluation"):
        EnvSpec(Lonely).make(2)
    Lonely.is_open = False


# Packages that are not there, and those that are


@pytest.fixture
def missing(monkeypatch):
    """Makes packages be not installed, and their ids unknown."""
    for package in ("Box2D", "mujoco", "ale_py", "minigrid"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in gymnasium.registry if re.match(r"ALE/|MiniGrid-", name)]:
        monkeypatch.delitem(gymnasium.registry, name)
    for name in [name for name in sys.modules if re.match(r"gymnasium\.envs\.(box2d|mujoco)(\.|$)", name)]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LunarLander-v3", r"Box2D is not installed: pip install 'a3c\[box2d\]'$"),
        ("HalfCheetah-v5", r"MuJoCo is not installed: pip install 'a3c\[mujoco\]'$"),
        ("ALE/Pong-v5", r"ALE/Pong-v5 needs ale-py: pip install 'a3c\[atari\]'"),
        ("MiniGrid-Empty-5x5-v0", "pip install minigrid, then minigrid:MiniGrid-Empty-5x5-v0$"),
        ("minigrid:MiniGrid-Empty-5x5-v0", "pip install minigrid, then minigrid:MiniGrid-Empty-5x5-v0$"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(missing, name, message):
    with pytest.raises(EnvError, match=message) as caught:
        EnvSpec(name).make(1)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_installed_is_imported_for_its_ids():
    pytest.importorskip("minigrid")
    code = "from a3c.envs.source import registered; print(registered('MiniGrid-Empty-5x5-v0').entry_point)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.startswith("minigrid")


# What Gymnasium's own check finds


class Unseeded(Countdown):
    """Forgets the seed; or raises, hangs or draws once it is reset with options, as only the check does."""

    def __init__(self, mood=None):
        super().__init__((3,))
        self.mood = mood
        if mood == "draw":
            np.random.random()

    def reset(self, *, seed=None, options=None):
        if self.mood is not None:
            super().reset(seed=seed)
            self.episode = 0
        if options is not None and self.mood == "raise":
            raise ValueError("no such track")
        if options is not None and self.mood == "hang":
            time.sleep(60)
        self.step_count = 0
        self.episode = 0
        return self._observation(), {}


def told_by_check(caplog):
    return [record.message for record in caplog.records if "check_env" in record.message]


def test_what_gymnasiums_check_finds_is_told_once_in_one_line_and_ends_nothing(caplog):
    RolloutDataModule(Unseeded, envs_per_worker=3)
    (told,) = told_by_check(caplog)
    assert told.startswith("env: Unseeded: check_env: Expects the random number generator to have been generated")
    assert "\n" not in told
    assert all(record.exc_info is None for record in caplog.records)


def test_the_check_can_be_left_out_and_is_for_environments_that_nobody_else_checks(caplog, monkeypatch):
    RolloutDataModule(Unseeded, check_env=False)
    assert told_by_check(caplog) == []
    monkeypatch.setattr("a3c.envs.findings.check_env", lambda *args, **kwargs: pytest.fail("checked"))
    RolloutDataModule("CartPole-v1")
    RolloutDataModule("a3c.envs.faulty:Faulty-v0")
    RolloutDataModule(CartPoleEnv)


def test_the_check_draws_from_no_generator_of_the_process_and_leaves_nothing_open():
    before = np.random.get_state()[1].tolist()
    RolloutDataModule(Unseeded, {"mood": "draw"})
    assert np.random.get_state()[1].tolist() == before
    RolloutDataModule(Lonely, envs_per_worker=1)
    assert not Lonely.is_open


def test_an_environment_that_hangs_in_the_check_is_refused():
    with pytest.raises(EnvError, match=r"Unseeded cannot be made: Gymnasium's check_env .* gave no sign of life"):
        RolloutDataModule(Unseeded, {"mood": "hang"}, worker_timeout=0.5)


def test_what_an_environment_raises_in_the_check_alone_ends_nothing(caplog):
    RolloutDataModule(Unseeded, {"mood": "raise"})
    assert told_by_check(caplog) == ["env: Unseeded: check_env: it raised ValueError: no such track"]


def test_an_environment_that_can_be_made_but_once_in_a_process_is_looked_at(caplog, monkeypatch):
    monkeypatch.setattr(Lonely, "close", lambda env: None)
    RolloutDataModule(Lonely, envs_per_worker=1)
    Lonely.is_open = False
    assert told_by_check(caplog) == ["env: Lonely: check_env: it raised RuntimeError: the simulator is open already"]
