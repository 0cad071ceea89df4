"""What a user's own code raises is shown as that, with its traceback, whatever its type; wrong flags in one line."""

from pathlib import Path

import pytest

from a3c.training.cli.command import main

ROOT = Path(__file__).parents[2]
PARTS = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
from a3c import MLPActorCritic, NStep

class Maze(CartPoleEnv):
    def __init__(self, size=3, **kwargs):
        super().__init__(**kwargs)
        if size == 9:
            raise ValueError("workers: a maze of this size holds no workers")
        if size == 8:
            raise TypeError("a maze is no number")
        self.size = size

    def reset(self, **kwargs):
        if self.size == 7:
            raise KeyError("exit")
        return super().reset(**kwargs)

gymnasium.register("Maze-v0", Maze, max_episode_steps=50)

class Fog(gymnasium.Wrapper):
    def __init__(self, env, density=1):
        super().__init__(env)
        if density == 9:
            raise ValueError("workers: see nothing")

class Net(MLPActorCritic):
    def __init__(self, observation_space, action_space, width: int = 8):
        if width % 2:
            raise ValueError("hidden_sizes: odd widths are odd")
        super().__init__(observation_space, action_space, [width])
        self.width = width

class Mute(MLPActorCritic):
    def actor(self, inputs):
        raise ValueError("hidden_sizes: nothing to say")

class Narrow(MLPActorCritic):
    def actor(self, inputs):
        return super().actor(inputs)[..., :1]

class Mine(NStep):
    def __init__(self, n_steps: int = 3):
        super().__init__(n_steps)
        if n_steps == 7:
            raise ValueError("n_steps: seven is holy")
"""
SHOWN = {
    "an environment's ValueError": (
        ["--data.env", "parts_of_mine:Maze-v0", "--data.env_kwargs", '{"size": 9}'],
        "ValueError: workers: a maze of this size holds no workers",
        "env: parts_of_mine:Maze-v0 raised in its constructor: workers: a maze of this size holds no workers",
    ),
    "an environment's TypeError": (
        ["--data.env", "parts_of_mine:Maze-v0", "--data.env_kwargs", '{"size": 8}'],
        "TypeError: a maze is no number",
        "env: parts_of_mine:Maze-v0 raised in its constructor: a maze is no number",
    ),
    "a first reset's KeyError": (
        ["--data.env", "parts_of_mine:Maze-v0", "--data.env_kwargs", '{"size": 7}'],
        "KeyError: 'exit'",
        "env: parts_of_mine:Maze-v0 raised in its first reset: 'exit'",
    ),
    "a wrapper's": (
        ["--data.wrappers", "[{class_path: parts_of_mine.Fog, init_args: {density: 9}}]"],
        "ValueError: workers: see nothing",
        "env: CartPole-v1 raised in its constructor: workers: see nothing",
    ),
    "a network's": (
        ["--model.network", "parts_of_mine.Net", "--model.network.width", "7"],
        "ValueError: hidden_sizes: odd widths are odd",
        "hidden_sizes: odd widths are odd",
    ),
    "a network's, when it is first run": (
        ["--model.network", "parts_of_mine.Mute"],
        "ValueError: hidden_sizes: nothing to say",
        "network: Mute raised in its actor: hidden_sizes: nothing to say",
    ),
    "an estimator's": (
        ["--model.returns", "parts_of_mine.Mine", "--model.returns.n_steps", "7"],
        "ValueError: n_steps: seven is holy",
        "n_steps: seven is holy",
    ),
    "a module's own failed import": (
        ["--data.env", "broken_of_mine:Maze-v0"],
        "ImportError: cannot import name 'nothing_there' from 'gymnasium'",
        "env: broken_of_mine:Maze-v0: its module raised: cannot import name 'nothing_there'",
    ),
    "a module that lacks another": (
        ["--data.env", "lacking_of_mine:Maze-v0"],
        "ModuleNotFoundError: No module named 'tensorflow_of_old'",
        "env: lacking_of_mine:Maze-v0: its module raised: No module named 'tensorflow_of_old'",
    ),
}
SAID = {
    "an argument that it does not take": (
        ["--data.env", "parts_of_mine:Maze-v0", "--data.env_kwargs", '{"sise": 4}'],
        "data.env: parts_of_mine:Maze-v0 cannot be made: CartPoleEnv.__init__() got an unexpected keyword argument 's",
    ),
    "a wrapper's argument": (
        ["--data.wrappers", "[{class_path: parts_of_mine.Fog, init_args: {nope: 1}}]"],
        "data.env: CartPole-v1 cannot be made: Fog.__init__() got an unexpected keyword argument 'nope'",
    ),
    "no such module": (
        ["--data.env", "nowhere_to_be_found:Maze-v0"],
        "data.env: got 'nowhere_to_be_found:Maze-v0', must be of a module that can be imported: No module named",
    ),
    "no such environment": (
        ["--data.env", "parts_of_mine:Mase-v0"],
        "data.env: got 'parts_of_mine:Mase-v0', must be an id that Gymnasium knows",
    ),
    "a network that says too little": (
        ["--model.network", "parts_of_mine.Narrow"],
        "model.network: Narrow.actor gives parameters float32 (3, 1), must be [B, P] = (3, 2): actions",
    ),
    "a value of our own": (["--model.network.hidden_sizes", "[0]"], "model.network.hidden_sizes: got [0], must be"),
    "a value of torch's": (["--model.optimizer.lr", "-1"], "model.optimizer: Invalid learning rate"),
}


@pytest.fixture
def own_parts(here):
    Path("parts_of_mine.py").write_text(PARTS)
    Path("broken_of_mine.py").write_text("from gymnasium import nothing_there\n")
    Path("lacking_of_mine.py").write_text("import tensorflow_of_old\n")
    return sorted(here.iterdir())


@pytest.mark.filterwarnings("ignore:.*Overriding environment")
@pytest.mark.parametrize("case", SHOWN)
def test_an_exception_of_the_users_own_code_is_shown_from_its_own_line_on(case, own_parts, here, capsys):
    typed, raised, last = SHOWN[case]
    assert main(ROOT / "configs/cartpole.yaml", typed) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "_of_mine.py" in lines[1]
    assert any(line.startswith(raised) for line in lines)
    assert lines[-1].startswith(f"train.py: error: {last}")
    assert [path for path in sorted(here.iterdir()) if path.name != "__pycache__"] == own_parts


@pytest.mark.filterwarnings("ignore:.*Overriding environment")
@pytest.mark.parametrize("case", SAID)
def test_what_is_no_exception_of_theirs_is_one_line(case, own_parts, capsys):
    typed, said = SAID[case]
    assert main(ROOT / "configs/cartpole.yaml", typed) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"train.py: error: {said}")
