"""Vector environments: how they are made, and what is refused before any is stepped."""

from __future__ import annotations

import inspect
import logging
import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper

from a3c.envs import atari, envpool
from a3c.envs.findings import comes_checked, findings
from a3c.envs.layouts import SUPPORTED
from a3c.envs.masks import ACTION_MASK, has_mask, some_actions
from a3c.envs.random_states import random_states_kept
from a3c.envs.shared_statistics import RunStatistics, unshared
from a3c.envs.single import Attendant, EnvironmentFaultError
from a3c.envs.source import EnvError, described, is_import_path, module_of, name_of, not_installed, registered
from a3c.envs.spaces import Spaces, agree, are_supported
from a3c.envs.watchdog import HangError, StepWatch
from a3c.envs.wrappers import NORMALISE_REWARD, OBSERVATION, MaskFromInfo, Wrappers, Wrapping, keep_own_rewards

SUPPORTED_API = (
    "reset(seed=…, options=…) → observation, info; step(action) → observation, reward, terminated, truncated, info"
)
MAX_EPISODE_STEPS = 10_000  # of an episode that is only looked at, where nothing else limits it
GYMNASIUM = Path(gymnasium.__file__).parent
GAMES = (atari.ENTRY_POINT, envpool.ENTRY_POINT)  # native ones of ours, however many are made
SYNC, NATIVE = "sync", "vector_entry_point"  # Gymnasium's names of the kinds of vector environments


log = logging.getLogger(__name__)


class Look(NamedTuple):
    """What is seen of environments before any is stepped in earnest.

    Attributes:
        spaces: of one of them.
        statistics: those that all of them are to share; None if their wrappers keep none.
    """

    spaces: Spaces
    statistics: RunStatistics | None


def spaces_of(env: VectorEnv) -> Spaces:
    """Return the spaces of one of the environments."""
    return Spaces(env.single_observation_space, env.single_action_space)


@dataclass(frozen=True)
class EnvSpec:
    """Which environment, so that every process can make its own.

    Attributes:
        id: Gymnasium's id, "module:Name-v0", which imports the module first, or the import path of a
            class or function that makes one environment; or that itself, of which this keeps the path.
        kwargs: arguments of its constructor.
        max_episode_steps: time limit in steps, or None for the environment's own.
        wrappers: import paths of wrappers, from the innermost on, each as "module.Class" or with
            arguments as {class_path: module.Class, init_args: {...}}. One derived from Gymnasium's
            `Wrapper` goes around each environment, which then is not native; one derived from its
            `VectorWrapper` goes around all of them together.
        statistics: those of wrappers, that all environments made from this share; see `sharing`.
        factory: the class or function that was given; it reaches other processes by value.

    Raises:
        ValueError: a wrapper is given in another form, or an environment instead of what makes one.
    """

    id: str | Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    wrappers: Sequence[Any] = ()
    statistics: RunStatistics | None = field(default=None, init=False, compare=False, repr=False)
    factory: CloudpickleWrapper | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            if not callable(self.id):
                raise EnvError(
                    f"env: got {self.id!r}, must be an id, an import path, or a class or function that makes one "
                    "environment"
                )
            object.__setattr__(self, "factory", CloudpickleWrapper(self.id))
            path, bound = described(self.id)
            object.__setattr__(self, "id", path)
            object.__setattr__(self, "kwargs", {**bound, **self.kwargs})
        object.__setattr__(self, "wrappers", tuple(map(Wrapping.read, self.wrappers)))

    def make(
        self,
        num_envs: int,
        render_mode: str | None = None,
        like: Spaces | None = None,
        attendant: Attendant | None = None,
        learns: bool = False,
    ) -> VectorEnv:
        """Make `num_envs` environments as one; several are native where there is a native version.

        Args:
            num_envs: how many, ≥ 1.
            render_mode: how they draw themselves, one of their own `render_modes`; None for not at all.
            like: the spaces of a policy that is going to act: where single and native environments
                differ in theirs, those that it can act in are made.
            attendant: what stands around each single one.
            learns: what they see changes the statistics that wrappers share; else these stay as they are, and
                games are played to their end, where an argument of theirs has each life be an episode.

        Raises:
            EnvError: the id is unknown, or the environment is not supported, or not `like` that.
        """
        first, *others = self._kinds(num_envs)
        attendant = attendant or Attendant()
        env = self._make(num_envs, render_mode, first, attendant, learns)
        for kind in others if like is not None and not _fits(like, env) else ():
            env.close()
            env = self._make(num_envs, render_mode, kind, attendant, learns)
        if like is not None:
            env = suited(like, env)
        if self.statistics is not None:
            self.statistics.attach(env, learns)
        return env

    def sharing(self, statistics: RunStatistics | None) -> EnvSpec:
        """Return the same, of which all environments share the statistics that their wrappers keep."""
        spec = copy(self)
        object.__setattr__(spec, "statistics", statistics)
        return spec

    def discounting(self, discount: float) -> EnvSpec:
        """Return the same, whose rewards are normalised, if they are, by returns of a learner's discount, γ."""
        wrappers = [
            each._replace(init_args={"discount": discount, **each.init_args})
            if each.class_path == NORMALISE_REWARD
            else each
            for each in self.wrappers
        ]
        spec = copy(self)
        object.__setattr__(spec, "wrappers", tuple(wrappers))
        return spec

    def look(self, num_envs: int, timeout: float = math.inf, check_env: bool = False) -> Look:
        """Return what must be known of the environments where `num_envs` are stepped together.

        Few environments of that kind are made, reset and stepped once, so that what does not work at
        all is said before anything is started. This process's random generators stay as they are.

        Args:
            num_envs: how many are going to be made, ≥ 1.
            timeout: seconds that the constructor, and the first reset and step, may take.
            check_env: have Gymnasium's `check_env` look at one more, and tell what it finds, unless it is
                an environment that comes with Gymnasium or with a package that checks its own.

        Raises:
            EnvError: they cannot be made, hang, are not supported, or have Gym's old API.
            RuntimeError: the environment's reset or step raised; its own exception is the cause.
        """
        try:
            attendant = Attendant()
            with random_states_kept(0):
                with StepWatch(timeout, "its constructor"):
                    few = 2 if num_envs > 1 and self._kinds(num_envs)[0] == NATIVE else 1
                    env = self.make(few, attendant=attendant)
                with closing(env), StepWatch(timeout, "its first reset and step"):
                    with self._said("first reset"):
                        observations, info = env.reset(seed=0)
                    env, observations = self._with_masks(env, observations, info)
                    with self._said("first step"):
                        *_, info = env.step(some_actions(env.single_action_space, env.num_envs, observations))
                    if ACTION_MASK in info and not has_mask(env.single_observation_space):
                        raise EnvError(
                            f"env: {self.name} gave an {ACTION_MASK} in the info of its first step and not of its "
                            "first reset; must give it in both"
                        )
                    for cast in sorted(attendant.casts):
                        log.warning("env: %s gives %s", self.name, cast)
                    for name in unshared(env):
                        log.warning(
                            "env: %s keeps statistics in %s that no other environment has: workers and evaluations "
                            "act on other numbers; take gymnasium.wrappers.NormalizeObservation, whose are shared",
                            self.name,
                            name,
                        )
                    look = Look(spaces_of(env), RunStatistics.of(env))
                # Once the other is closed: there may be place for one only. It knows nothing of masks.
                if check_env and not has_mask(look.spaces.observation):
                    self._tell_findings(timeout)
                return look
        except HangError as error:
            raise EnvError(f"env: {self.name} cannot be made: {error}") from error

    def _with_masks(self, env: VectorEnv, observations: Any, info: dict[str, Any]) -> tuple[VectorEnv, Any]:
        """Have masks that come in `info` be a part of the observations; return what was given where there are none."""
        if ACTION_MASK not in info or has_mask(env.single_observation_space):
            return env, observations
        try:
            masked = MaskFromInfo(env)
            return masked, masked.observation(observations, info)
        except EnvironmentFaultError as error:
            raise EnvError(f"env: {self.name}: {error}") from error

    def _tell_findings(self, timeout: float) -> None:
        registered = self._registered()
        if comes_checked(registered):
            return
        with StepWatch(timeout, "Gymnasium's check_env (check_env false leaves it out)"):
            for finding in findings(registered, self.kwargs):
                log.warning("env: %s: check_env: %s", self.name, finding)

    def _kinds(self, num_envs: int) -> list[str]:
        """Return the kinds of vector environments that can be made, the one to be preferred first."""
        registered = self._registered()
        if registered.vector_entry_point in GAMES:
            if self._wrappers().single:
                raise EnvError(
                    f"wrappers: got one for single environments, must be a VectorWrapper around those of {self.id}: "
                    "gymnasium.wrappers.vector has them"
                )
            return [NATIVE]
        if registered.vector_entry_point is None or registered.additional_wrappers or self._wrappers().single:
            return [SYNC]
        if registered.entry_point is None:
            return [NATIVE]
        return [SYNC, NATIVE] if num_envs == 1 else [NATIVE, SYNC]  # of one, native arrays cost more than they save

    def _make(self, num_envs: int, render_mode: str | None, kind: str, attendant: Attendant, learns: bool) -> VectorEnv:
        kwargs = dict(self.kwargs)
        if self.max_episode_steps is not None:
            kwargs["max_episode_steps"] = self.max_episode_steps
        registered, wrappers = self._registered(), self._wrappers()
        takes_mode = self.factory is None or _takes(self.factory.fn, "render_mode")
        if render_mode is not None and takes_mode:
            kwargs["render_mode"] = render_mode
        if registered.vector_entry_point in GAMES and not learns:
            kwargs.pop("episodic_life", None)
        with self._said("constructor", attendant):
            env = gymnasium.make_vec(
                registered,
                num_envs=num_envs,
                vectorization_mode=kind,
                wrappers=[*wrappers.single, attendant] if kind == SYNC else None,
                **kwargs,
            )
            if env.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
                # A native version that resets in the same step hides the final observation.
                env.close()
                env = gymnasium.make_vec(
                    registered, num_envs=num_envs, vectorization_mode=SYNC, wrappers=[attendant], **kwargs
                )
            for wrap in wrappers.vector:
                env = wrap(env)
            keep_own_rewards(env)
        if not takes_mode and render_mode not in (None, env.render_mode):
            env.close()
            raise EnvError(
                f"env: {self.name} cannot be drawn: it takes no render_mode, must take render_mode={render_mode!r}"
            )
        given = spaces_of(env)
        if not are_supported(given):
            env.close()
            raise EnvError(f"env: {self.name} has {given.words}; supported: {SUPPORTED}")
        return env

    def _wrappers(self) -> Wrappers:
        try:
            return Wrappers.load(self.wrappers)
        except ValueError as error:
            raise EnvError(str(error)) from error

    @contextmanager
    def _said(self, call: str, attendant: Attendant | None = None) -> Iterator[None]:
        """Say of an exception in a call whose it is; the environment's own becomes the cause of a RuntimeError.

        As such it is shown with its traceback, whatever its type: a ValueError of ours is said in one line.
        """
        try:
            yield
        except HangError:
            raise
        except EnvironmentFaultError as error:
            raise EnvError(f"env: {self.name} gave in its {call}: {error}") from error
        except Exception as error:
            if _is_of_old_api(error):
                raise EnvError(
                    f"env: {self.name} has the old API of Gym ({call}: {error}); supported: {SUPPORTED_API}"
                ) from error
            own = error.__context__ if "was raised from the environment creator" in str(error) else None
            own = own or error  # Gymnasium says a TypeError anew
            if isinstance(own, gymnasium.error.DependencyNotInstalled):
                raise EnvError(f"env: {self.name} cannot be made: {not_installed(self._registered(), own)}") from error
            if isinstance(own, gymnasium.error.Error) or (call == "constructor" and self._is_of_arguments(own)):
                raise EnvError(f"env: {self.name} cannot be made: {own}") from error
            beside = "; there is one already, and with envs_per_worker 1, or evaluation.episodes 1, no other beside it"
            alone = beside if attendant is not None and attendant.made else ""
            raise RuntimeError(f"env: {self.name} raised in its {call}: {own}{alone}") from own

    def _is_of_arguments(self, error: BaseException) -> bool:
        """Return whether a constructor, or a wrapper's, did not take the arguments that it was given."""
        if isinstance(error, ValueError):  # of a wrapper of ours
            return _raised_in(error, Path(__file__).parent)
        if not isinstance(error, TypeError):
            return False
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        given = {*self.kwargs, "render_mode"}
        handed_on = unexpected is not None and unexpected[1] in given  # by a constructor to that of its base
        return handed_on or _raised_in(error, GYMNASIUM, Path(__file__).parent)

    @property
    def name(self) -> str:
        """How reports, logs and files call it: its id, or the name of its class or function."""
        return name_of(self._text)

    @property
    def module(self) -> str:
        """The module that is imported before the environment is made; empty if there is none."""
        return module_of(self._text)

    @property
    def is_import_path(self) -> bool:
        """Whether a class or function is named by its import path."""
        return is_import_path(self._text)

    @property
    def is_local(self) -> bool:
        """Whether it was made in a script, a notebook or a function, and can be imported from nowhere."""
        return self._text.startswith("<")

    @property
    def _text(self) -> str:
        return str(self.id)  # a callable is given, and never kept there

    def _registered(self) -> gymnasium.envs.registration.EnvSpec:
        return registered(self._text, self.factory and self.factory.fn, self.kwargs)

    @property
    def time_limit(self) -> int | None:
        """Most steps of an episode, or None where nothing limits it."""
        return self.max_episode_steps or self._registered().max_episode_steps

    def bounded(self, steps: int | None = None) -> EnvSpec:
        """Return the same environment with a time limit, so that an episode of any policy ends.

        Args:
            steps: most steps of an episode, ≥ 1; None for the environment's own limit, and for
                `MAX_EPISODE_STEPS` where it has none.
        """
        limit = self.time_limit
        if limit is not None and (steps is None or steps >= limit):
            return self
        spec = copy(self)
        object.__setattr__(spec, "max_episode_steps", steps or MAX_EPISODE_STEPS)
        return spec

    @property
    def reward_threshold(self) -> float | None:
        """Mean episode return at which Gymnasium calls the environment solved, if it says."""
        return None if self.is_local else self._registered().reward_threshold


def _has_masks_from_info(policy: Spaces) -> bool:
    """Return whether a policy was made for environments that `MaskFromInfo` stands around."""
    space = policy.observation
    return isinstance(space, gymnasium.spaces.Dict) and set(space) == {OBSERVATION, ACTION_MASK}


def _fits(policy: Spaces, env: VectorEnv) -> bool:
    """Return whether a policy can act in environments, if need be with masks from their `info`."""
    found = spaces_of(env)
    if _has_masks_from_info(policy) and not agree(policy, found):
        policy = policy._replace(observation=policy.observation[OBSERVATION])  # type: ignore[index]
    return agree(policy, found)


def suited(policy: Spaces, env: VectorEnv) -> VectorEnv:
    """Return environments as a policy takes them, with masks of their `info` if it was made with such.

    Raises:
        EnvError: it cannot act in them; they are closed then. Says what they have, and what it was made for.
    """
    if _has_masks_from_info(policy) and not agree(policy, spaces_of(env)):
        env = MaskFromInfo(env)
    found = spaces_of(env)
    if not agree(policy, found):
        env.close()
        name = env.unwrapped.spec.id if env.unwrapped.spec else type(env.unwrapped).__name__
        raise EnvError(f"env: {name} has {found.words}, must have those that the policy was made for: {policy.words}")
    return env


def _takes(function: Callable[..., Any], argument: str) -> bool:
    """Return whether a function or class has an argument, or hands on all that it is given."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of one that is not written in Python
        return True
    return argument in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _is_of_old_api(error: Exception) -> bool:
    """Return whether Gymnasium, or what stands in between, failed over what a method takes or returns."""
    if not isinstance(error, ValueError | TypeError | AttributeError):
        return False
    pattern = r"values to unpack|unexpected keyword argument '(seed|options)'|has no attribute 'items'"
    return _raised_in(error, GYMNASIUM, Path(__file__).parent) and bool(re.search(pattern, str(error)))


def _raised_in(error: BaseException, *folders: Path) -> bool:
    """Return whether it was raised by a file of one of the folders, and not by what that has called."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return any(map(raised_in.is_relative_to, folders))
