"""Atari games through ale-py's native environments, which keep what is the game's beside what a learner is given.

Ids are those of ale-py, such as "ALE/Pong-v5", with their defaults: sticky actions
(`repeat_action_probability` 0.25), four grayscale frames of 84 × 84 and a frameskip of 4. A learner's
rewards are clipped to [-1, 1], which ``reward_clipping=False`` turns off; what is logged is the game's own score.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from a3c.envs.layouts import action_layout
from a3c.envs.watchdog import sign_of_life
from a3c.envs.wrappers import OWN_ENDS, OWN_REWARDS

NAMESPACE = "ALE/"
ENTRY_POINT = "a3c.envs.atari:make"
ALE_ENTRY_POINT = "ale_py.vector_env:AtariVectorEnv"
FRAMES_PER_SECOND = 60  # of the console
NOT_FOR_USERS = ("self", "game", "num_envs", "batch_size", "autoreset_mode", "life_loss_info")
GROUP = 8  # games of one call, for each thread: to make or to reset one may take a tenth of a second
LEAST = {"noop_max": 0, "thread_affinity_offset": -1}  # of whole numbers; of all others 1
AS_DRAWN = {"img_height": 210, "img_width": 160, "grayscale": False, "stack_num": 1}  # a picture of the screen

Arguments = Mapping[str, Any]


def registered(name: str, arguments: Arguments) -> gymnasium.envs.registration.EnvSpec:
    """Return how a game's environments are made, one as well as several.

    Args:
        name: ale-py's id, such as "ALE/Pong-v5".
        arguments: those of ale-py's `AtariVectorEnv`.

    Raises:
        ValueError: ale-py is not installed, or takes no such argument.
        gymnasium.error.Error: there is no such game.
    """
    try:
        import ale_py  # registers its games
        from ale_py.vector_env import AtariVectorEnv
    except ImportError as error:
        raise ValueError(f"env: {name} needs ale-py: pip install 'a3c[atari]' ({error})") from error
    gymnasium.register_envs(ale_py)
    own = gymnasium.spec(name)
    if own.vector_entry_point != ALE_ENTRY_POINT:  # somebody else's
        return own
    allowed = {
        parameter.name: parameter.default
        for parameter in inspect.signature(AtariVectorEnv.__init__).parameters.values()
        if parameter.name not in NOT_FOR_USERS
    }
    for field, value in arguments.items():
        _check(field, value, allowed)
    made_with = allowed | own.kwargs | dict(arguments)
    steps = math.ceil(made_with["max_num_frames_per_episode"] / made_with["frameskip"])
    return replace(own, entry_point=None, vector_entry_point=ENTRY_POINT, max_episode_steps=steps)


def _check(field: str, value: Any, allowed: Arguments) -> None:
    """Refuse an argument that ale-py does not know, or would take for something else."""
    if field not in allowed:
        raise ValueError(f"env_kwargs: got {field!r}, must be of {', '.join(sorted(allowed))}")
    match allowed[field]:
        case bool():
            fits, words = isinstance(value, bool), "true or false"
        case int():
            least = LEAST.get(field, 1)
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
            words = f"a whole number, at least {least}"
        case _:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
            words = "a number from 0 to 1"
    if not fits:
        raise ValueError(f"env_kwargs: {field}: got {value!r}, must be {words}")


def make(num_envs: int, render_mode: str | None = None, **arguments: Any) -> VectorEnv:
    """Make `AtariEnvs`; of the pictures of those that are to be seen by a human Gymnasium makes a window."""
    if render_mode != "human":
        return AtariEnvs(num_envs, render_mode=render_mode, **arguments)
    from gymnasium.wrappers.vector import HumanRendering

    return HumanRendering(AtariEnvs(num_envs, render_mode="rgb_array", **arguments))


class _Native:
    """B games of ale-py in groups, each a native vector, with a sign of life after each group's call.

    Groups are stepped one after the other, so that no more threads run than one of them has.

    Args:
        game: ale-py's name of it.
        num_envs: B.
        arguments: those of `AtariVectorEnv`.
    """

    def __init__(self, game: str, num_envs: int, arguments: Arguments) -> None:
        from ale_py.vector_env import AtariVectorEnv

        at_once = GROUP * arguments["num_threads"]
        self.groups, self._columns = [], [slice(first, first + at_once) for first in range(0, num_envs, at_once)]
        for columns in self._columns:
            self.groups.append(AtariVectorEnv(game, len(range(num_envs)[columns]), **arguments))
            sign_of_life()

    def reset(self, seeds: NDArray[Any] | None) -> tuple[Any, ...]:
        """Begin new games, with seeds [B] or where the generators are; return observations and infos."""
        return self._joined(
            group.reset(seed=None if seeds is None else seeds[columns])
            for group, columns in zip(self.groups, self._columns, strict=True)
        )

    def step(self, actions: NDArray[Any]) -> tuple[Any, ...]:
        """Step all games; return what Gymnasium's `step` does."""
        return self._joined(
            group.step(actions[columns]) for group, columns in zip(self.groups, self._columns, strict=True)
        )

    def _joined(self, results: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
        all_results = []
        for result in results:
            sign_of_life()
            all_results.append(result)
        if len(all_results) == 1:
            return all_results[0]
        *arrays, infos = zip(*all_results, strict=True)
        info = {key: np.concatenate([each[key] for each in infos]) for key in infos[0]}
        return *map(np.concatenate, arrays), info


class AtariEnvs(VectorEnv[NDArray[np.uint8], NDArray[Any], NDArray[Any]]):
    """B games in ale-py's threads, of which `info` keeps the scores and ends that a learner is not given.

    Clipping is done here, and the unclipped rewards stand in ``info["own_rewards"]``. With
    `episodic_life` a life lost is a terminal state although the game goes on, which
    ``info["own_ends"]`` says in such a step; in the next one, in which other environments
    are reset, the game waits a step, or presses fire if it does so after a reset. (ale-py's own
    `episodic_life` starts the game anew, so that no learner would see a second life.)

    Args:
        num_envs: B.
        game: ale-py's name of it.
        max_episode_steps: time limit in steps, each of `frameskip` frames; None leaves it at
            `max_num_frames_per_episode`.
        render_mode: "rgb_array" for pictures of the screen, from a second game that is given the
            same seeds and actions, and so is the same; None for none.
        episodic_life: a life lost ends a learner's episode.
        reward_clipping: clip a learner's rewards to [-1, 1].
        use_fire_reset: begin each episode with fire, where a game has it.
        num_threads: of ale-py.
        arguments: all others of `AtariVectorEnv`.
    """

    def __init__(
        self,
        num_envs: int,
        game: str,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        *,
        episodic_life: bool = False,
        reward_clipping: bool = True,
        use_fire_reset: bool = True,
        num_threads: int = 1,
        **arguments: Any,
    ) -> None:
        from ale_py import Action

        if max_episode_steps is not None:
            arguments["max_num_frames_per_episode"] = max_episode_steps * arguments["frameskip"]
        arguments |= {"num_threads": num_threads, "reward_clipping": False, "use_fire_reset": use_fire_reset}
        self._games = [_Native(game, num_envs, arguments)]
        if render_mode is not None:
            self._games.append(_Native(game, num_envs, arguments | AS_DRAWN))
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {
            "autoreset_mode": AutoresetMode.NEXT_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": FRAMES_PER_SECOND / arguments["frameskip"],
        }
        first = self._games[0].groups[0]
        self.single_observation_space, self.single_action_space = (
            first.single_observation_space,
            first.single_action_space,
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._clips, self._ends_with_lives = reward_clipping, episodic_life
        self._after_life = action_layout(self.single_action_space).some(1)[0]  # to wait
        if use_fire_reset and Action.FIRE in (actions := list(first.ale.get_action_set())):
            fire = actions.index(Action.FIRE)
            self._after_life = np.array([0, 0, 1], np.float32) if first.continuous else np.int64(fire)
        self._lives = np.zeros(num_envs, np.int32)
        self._life_lost = np.zeros(num_envs, np.bool_)
        self._screens: NDArray[np.uint8] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is None and len(self._games) > 1:  # both need the same one
            seed = int(self.np_random.integers(2**31))
        seeds = None if seed is None else (seed + np.arange(self.num_envs)) % 2**31  # ale-py's are below
        (observations, info), *drawn = [game.reset(seeds) for game in self._games]
        self._keep_screens(drawn)
        self._lives, self._life_lost = info["lives"], np.zeros(self.num_envs, np.bool_)
        return observations, info

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        if self._life_lost.any():
            actions = actions.copy()
            actions[self._life_lost] = self._after_life
        (observations, rewards, terminated, truncated, info), *drawn = [game.step(actions) for game in self._games]
        self._keep_screens(drawn)
        info[OWN_REWARDS] = rewards.astype(np.float64)
        rewards = (rewards.clip(-1, 1) if self._clips else rewards).astype(np.float64)
        if self._ends_with_lives:
            ended, lives = terminated | truncated, info["lives"]
            self._life_lost = (lives < self._lives) & (lives > 0) & ~ended  # some games go on for a while without lives
            self._lives = lives
            if self._life_lost.any():
                info[OWN_ENDS] = ended
                terminated = terminated | self._life_lost
        return observations, rewards, terminated, truncated, info

    def _keep_screens(self, drawn: list[Any]) -> None:
        for observations, *_ in drawn:
            self._screens = observations[:, 0]

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Return a picture of each screen, [210, 160, 3]; None if none are drawn."""
        return None if self._screens is None else tuple(self._screens)

    def close_extras(self, **kwargs: Any) -> None:
        self._games = []  # ends ale-py's threads
