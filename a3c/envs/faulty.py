"""An environment that misbehaves on purpose, to try a run against: ``--data.env a3c.envs.faulty:Faulty-v0``."""

from __future__ import annotations

import ctypes
import difflib
import math
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Step = tuple[Any, Any, bool, bool, dict[str, Any]]
FOR_EVER = 10**9  # seconds
MESSAGE = "the pole went through the floor"


class UnpicklableError(RuntimeError):
    """An exception that no pipe can carry: it holds a lock."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


def _raise(env: FaultyEnv) -> None:
    raise ZeroDivisionError(MESSAGE)


def _raise_unpicklable(env: FaultyEnv) -> None:
    raise UnpicklableError(MESSAGE)


def _kill(env: FaultyEnv) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault(env: FaultyEnv) -> None:
    ctypes.string_at(0)


def _exit(env: FaultyEnv) -> None:
    os._exit(7)


def _hang(env: FaultyEnv) -> None:
    while True:
        time.sleep(FOR_EVER)


def _hang_holding_gil(env: FaultyEnv) -> None:
    libc = ctypes.PyDLL(None)  # unlike CDLL it keeps the interpreter's lock: no other thread runs meanwhile
    while True:
        libc.sleep(FOR_EVER)


def _ignore_sigterm(env: FaultyEnv) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _hang(env)


def _stop(env: FaultyEnv) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _slow(env: FaultyEnv) -> None:
    env.delay = env.seconds


def _children(env: FaultyEnv) -> None:
    command = ["sleep", str(FOR_EVER)]
    env.children += [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(2)]


def _observation(change: Callable[[NDArray[np.float32]], Any]) -> Callable[[Step], Any]:
    return lambda step: (change(step[0]), *step[1:])


# What goes wrong, by kind; and where, if not in `step`.
ACTS: dict[str, Callable[[FaultyEnv], None]] = {
    "raise": _raise,
    "raise_unpicklable": _raise_unpicklable,
    "raise_reset": _raise,
    "raise_constructor": _raise,
    "kill": _kill,
    "segfault": _segfault,
    "exit": _exit,
    "hang": _hang,
    "hang_holding_gil": _hang_holding_gil,
    "hang_reset": _hang,
    "hang_constructor": _hang,
    "hang_close": _hang,
    "ignore_sigterm": _ignore_sigterm,
    "stop": _stop,
    "slow": _slow,
    "children": _children,
}
PLACES = {
    "raise_reset": "reset",
    "raise_constructor": "constructor",
    "hang_reset": "reset",
    "hang_constructor": "constructor",
    "hang_close": "close",
}
# What `step` gives instead, by kind.
SPOILS: dict[str, Callable[[Step], Any]] = {
    "nan_observation": _observation(lambda observation: observation * np.nan),
    "inf_observation": _observation(lambda observation: np.full_like(observation, np.inf)),
    "wrong_shape": _observation(lambda observation: np.append(observation, observation)),
    "wrong_dtype": _observation(lambda observation: observation.astype(np.complex64)),
    "out_of_space": _observation(lambda observation: observation + 5),
    "nan_reward": lambda step: (step[0], math.nan, *step[2:]),
    "old_api": lambda step: (step[0], step[1], step[2] or step[3], step[4]),
}
KINDS = ("none", *ACTS, *SPOILS)


class FaultyEnv(gymnasium.Env[NDArray[np.float32], int]):
    """A small task that goes wrong at a chosen moment, in worker processes.

    The task: the first number of an observation is a cue, drawn from [-1, 1]; action 1 is right
    where it is positive, 0 elsewhere. A right action gives a reward of 1, a wrong one ends the
    episode. The second number is 1 after a right action, 0 in an episode's first state.

    Args:
        kind: what goes wrong, one of `KINDS`: "raise", "raise_unpicklable" (an exception that does
            not pickle), "raise_reset", "raise_constructor"; "kill" (by SIGKILL), "segfault", "exit"
            (with status 7); "hang", "hang_holding_gil" (in C, so that no thread of the process
            runs), "hang_reset", "hang_constructor", "hang_close", "ignore_sigterm" (and hang),
            "stop" (by SIGSTOP); "nan_observation", "inf_observation", "nan_reward", "wrong_shape",
            "wrong_dtype" (complex numbers from then on), "out_of_space", "old_api" (four values from `step`);
            "slow" (every step from then on); "children" (two processes that sleep for ever); "none".
        at_step: steps that this environment makes before it goes wrong, ≥ 0; in `reset` it goes
            wrong in the first one after so many steps.
        worker: number of the only worker in which it goes wrong; None for all.
        once: path of a file that is created when it goes wrong; while the file exists, nothing
            does, in any process. A worker that replaces another is healthy so.
        seconds: delay of a slow step, > 0.
        in_parent: go wrong in the main process too, in which mode "sync" collects, evaluations run
            and the data module looks at the spaces.

    Raises:
        ValueError: a value outside its range.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)  # type: ignore[assignment]  # of NumPy's int64

    def __init__(
        self,
        kind: str = "raise",
        at_step: int = 100,
        worker: int | None = None,
        once: str | None = None,
        seconds: float = 0.1,
        in_parent: bool = False,
    ) -> None:
        if kind not in KINDS:
            near = difflib.get_close_matches(str(kind), KINDS, n=1)
            nearest = f"; nearest: {near[0]}" if near else ""
            raise ValueError(f"kind: got {kind!r}, must be one of {', '.join(KINDS)}{nearest}")
        for name, value in (("at_step", at_step), ("worker", worker)):
            if value is not None and value < 0:
                raise ValueError(f"{name}: got {value}, must be at least 0")
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds: got {seconds}, must be more than 0 and finite")
        self.kind, self.at_step, self.seconds = kind, at_step, seconds
        self.children: list[subprocess.Popen[bytes]] = []
        self.delay = 0.0
        self._spoils = False
        self._marker = None if once is None else Path(once)
        self._armed = _is_here(worker, in_parent)
        self._steps = 0
        self._go_wrong_in("constructor")

    def _go_wrong_in(self, place: str) -> None:
        """Do what the kind says, if this is the place and the time."""
        if self.kind in ACTS and PLACES.get(self.kind, "step") == place and self._is_due(place):
            ACTS[self.kind](self)

    def _is_due(self, place: str) -> bool:
        early = self._steps < self.at_step and place in ("step", "reset")
        if early or not self._armed:
            return False
        self._armed = False
        return self._marker is None or _create(self._marker)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._go_wrong_in("reset")
        return self._observe(0.0), {}

    def _observe(self, was_right: float) -> NDArray[np.float32]:
        self._cue = self.np_random.uniform(-1, 1)
        return np.array([self._cue, was_right], np.float32)

    def step(self, action: int) -> Step:
        self._go_wrong_in("step")
        if self.delay:
            time.sleep(self.delay)
        right = bool(action) == (self._cue > 0)
        outcome: Step = self._observe(1.0), float(right), not right, False, {}
        if self.kind in SPOILS:
            self._spoils = self._is_due("step") or (self._spoils and self.kind == "wrong_dtype")
        self._steps += 1
        return SPOILS[self.kind](outcome) if self._spoils else outcome

    def close(self) -> None:
        self._go_wrong_in("close")


def _is_here(worker: int | None, in_parent: bool) -> bool:
    """Return whether this process is one in which things are to go wrong."""
    if multiprocessing.parent_process() is None:
        return in_parent
    name = re.match(r"a3c-worker-(\d+)", multiprocessing.current_process().name)
    return worker is None or (name is not None and int(name[1]) == worker)


def _create(path: Path) -> bool:
    """Create a file; False if it is there already. Of several processes one succeeds."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


gymnasium.register("Faulty-v0", "a3c.envs.faulty:FaultyEnv", max_episode_steps=100)
