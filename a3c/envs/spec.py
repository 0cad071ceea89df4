"""Vector environments: how they are made, and what is refused before any is stepped."""

from __future__ import annotations

import difflib
import logging
import math
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv

from a3c.envs.random_states import random_states_kept
from a3c.envs.shared_statistics import RunStatistics, unshared
from a3c.envs.single import Attendant, EnvironmentFaultError
from a3c.envs.spaces import SUPPORTED, Spaces, action_layout, agree, are_supported
from a3c.envs.watchdog import HangError, StepWatch
from a3c.envs.wrappers import NORMALISE_REWARD, Wrappers, Wrapping, keep_own_rewards

SUPPORTED_API = (
    "reset(seed=…, options=…) → observation, info; step(action) → observation, reward, terminated, truncated, info"
)
MAX_EPISODE_STEPS = 10_000  # of an episode that is only looked at, where nothing else limits it
GYMNASIUM = Path(gymnasium.__file__).parent
SYNC, NATIVE = "sync", "vector_entry_point"  # Gymnasium's names of the kinds of vector environments


log = logging.getLogger(__name__)


class EnvError(ValueError):
    """An environment that does not exist, cannot be made, or is of a kind not supported."""

    fatal = True  # a worker that ends with it is not replaced


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
        id: Gymnasium's id; "module:Name-v0" imports the module first.
        kwargs: arguments of its constructor.
        max_episode_steps: time limit in steps, or None for the environment's own.
        wrappers: import paths of wrappers, from the innermost on, each as "module.Class" or with
            arguments as {class_path: module.Class, init_args: {...}}. One derived from Gymnasium's
            `Wrapper` goes around each environment, which then is not native; one derived from its
            `VectorWrapper` goes around all of them together.
        statistics: those of wrappers, that all environments made from this share; see `sharing`.

    Raises:
        ValueError: a wrapper is given in another form.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    wrappers: Sequence[Any] = ()
    statistics: RunStatistics | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
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
            learns: what they see changes the statistics that wrappers share; else these stay as they are.

        Raises:
            EnvError: the id is unknown, or the environment is not supported, or not `like` that.
        """
        first, *others = self._kinds(num_envs)
        attendant = attendant or Attendant()
        env = self._make(num_envs, render_mode, first, attendant)
        for kind in others if like is not None and not agree(like, spaces_of(env)) else ():
            env.close()
            env = self._make(num_envs, render_mode, kind, attendant)
        if like is not None:
            check_agreement(like, env)
        if self.statistics is not None:
            self.statistics.attach(env, learns)
        return env

    def sharing(self, statistics: RunStatistics | None) -> EnvSpec:
        """Return the same, of which all environments share the statistics that their wrappers keep."""
        spec = replace(self)
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
        return replace(self, wrappers=wrappers).sharing(self.statistics)

    def look(self, num_envs: int, timeout: float = math.inf) -> Look:
        """Return what must be known of the environments where `num_envs` are stepped together.

        Few environments of that kind are made, reset and stepped once, so that what does not work at
        all is said before anything is started. This process's random generators stay as they are.

        Args:
            num_envs: how many are going to be made, ≥ 1.
            timeout: seconds that the constructor, and the first reset and step, may take.

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
                        env.reset(seed=0)
                    with self._said("first step"):
                        env.step(action_layout(env.single_action_space).some(env.num_envs))
                    for cast in sorted(attendant.casts):
                        log.warning("env: %s gives %s", self.id, cast)
                    for name in unshared(env):
                        log.warning(
                            "env: %s keeps statistics in %s that no other environment has: workers and evaluations "
                            "act on other numbers; take gymnasium.wrappers.NormalizeObservation, whose are shared",
                            self.id,
                            name,
                        )
                    return Look(spaces_of(env), RunStatistics.of(env))
        except HangError as error:
            raise EnvError(f"env: {self.id} cannot be made: {error}") from error

    def _kinds(self, num_envs: int) -> list[str]:
        """Return the kinds of vector environments that can be made, the one to be preferred first."""
        registered = self._registered()
        if registered.vector_entry_point is None or registered.additional_wrappers or self._wrappers().single:
            return [SYNC]
        if registered.entry_point is None:
            return [NATIVE]
        return [SYNC, NATIVE] if num_envs == 1 else [NATIVE, SYNC]  # of one, native arrays cost more than they save

    def _make(self, num_envs: int, render_mode: str | None, kind: str, attendant: Attendant) -> VectorEnv:
        kwargs = dict(self.kwargs)
        if self.max_episode_steps is not None:
            kwargs["max_episode_steps"] = self.max_episode_steps
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        registered, wrappers = self._registered(), self._wrappers()
        with self._said("constructor"):
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
        given = spaces_of(env)
        if not are_supported(given):
            env.close()
            raise EnvError(f"env: {self.id} has {given.words}; supported: {SUPPORTED}")
        return env

    def _wrappers(self) -> Wrappers:
        try:
            return Wrappers.load(self.wrappers)
        except ValueError as error:
            raise EnvError(str(error)) from error

    @contextmanager
    def _said(self, call: str) -> Iterator[None]:
        """Say of an exception in a call whose it is; the environment's own becomes the cause of a RuntimeError.

        As such it is shown with its traceback, whatever its type: a ValueError of ours is said in one line.
        """
        try:
            yield
        except HangError:
            raise
        except EnvironmentFaultError as error:
            raise EnvError(f"env: {self.id} gave in its {call}: {error}") from error
        except Exception as error:
            if _is_of_old_api(error):
                raise EnvError(
                    f"env: {self.id} has the old API of Gym ({call}: {error}); supported: {SUPPORTED_API}"
                ) from error
            own = error.__context__ if "was raised from the environment creator" in str(error) else None
            own = own or error  # Gymnasium says a TypeError anew
            if isinstance(own, gymnasium.error.Error) or (call == "constructor" and self._is_of_arguments(own)):
                raise EnvError(f"env: {self.id} cannot be made: {own}") from error
            raise RuntimeError(f"env: {self.id} raised in its {call}: {own}") from own

    def _is_of_arguments(self, error: BaseException) -> bool:
        """Return whether a constructor, or a wrapper's, did not take the arguments that it was given."""
        if not isinstance(error, TypeError):
            return False
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        handed_on = unexpected is not None and unexpected[1] in self.kwargs  # by a constructor to that of its base
        return handed_on or _raised_in(error, GYMNASIUM, Path(__file__).parent)

    @property
    def module(self) -> str:
        """The module that is imported before the environment is made; empty if there is none."""
        return self.id.rpartition(":")[0]

    def _registered(self) -> gymnasium.envs.registration.EnvSpec:
        module, _, name = self.id.rpartition(":")
        if module:
            try:
                import_module(module)
            except ModuleNotFoundError as error:
                if not f"{module}.".startswith(f"{error.name}."):  # it was found, and lacks another
                    raise RuntimeError(f"env: {self.id}: its module raised: {error}") from error
                raise EnvError(f"env: got {self.id!r}, must be of a module that can be imported: {error}") from error
            except Exception as error:
                raise RuntimeError(f"env: {self.id}: its module raised: {error}") from error
        try:
            return gymnasium.spec(name)
        except gymnasium.error.Error as error:
            near = difflib.get_close_matches(self.id, gymnasium.registry, n=1, cutoff=0.3)
            nearest = f"; nearest: {near[0]}" if near else ""
            if module.partition(".")[0] in sys.stdlib_module_names:
                nearest = f"; {module} is a module of the standard library, so one of your own must be called otherwise"
            raise EnvError(
                f"env: got {self.id!r}, must be an id that Gymnasium knows (module:Name-v0 imports the module){nearest}"
            ) from error

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
        return replace(self, max_episode_steps=steps or MAX_EPISODE_STEPS).sharing(self.statistics)

    @property
    def reward_threshold(self) -> float | None:
        """Mean episode return at which Gymnasium calls the environment solved, if it says."""
        return self._registered().reward_threshold


def check_agreement(policy: Spaces, env: VectorEnv) -> None:
    """Refuse environments in which a policy made for other spaces cannot act; they are closed then.

    Raises:
        EnvError: what the environments have, and what the policy was made for.
    """
    found = spaces_of(env)
    if not agree(policy, found):
        env.close()
        name = env.unwrapped.spec.id if env.unwrapped.spec else type(env.unwrapped).__name__
        raise EnvError(f"env: {name} has {found.words}, must have those that the policy was made for: {policy.words}")


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
