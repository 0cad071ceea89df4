"""What all programs that `scripts/peers.py` compares share: their flags, when a run ends, and the record of it.

Imports the standard library alone, as each program runs in an environment of its own. A run reaches a return once the
mean of its last 100 finished training episodes, played by the policy that is trained, with its exploration, is that
high; before 100 episodes are finished it never does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Iterable
from importlib.metadata import version
from statistics import fmean
from typing import Any

EPISODES = 100


def arguments(description: str | None, default_env: str = "CartPole-v1") -> argparse.ArgumentParser:
    """Build the parser of the flags that all programs have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--env", default=default_env)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max_env_steps", type=int, default=None, help="default: the budget that the settings name")
    parser.add_argument("--max_seconds", type=float, default=60.0)
    parser.add_argument("--stop_at", type=float, default=None, help="return to reach; default: none")
    return parser


class Run:
    """Counts episodes of one training run, says when it ends, and keeps its figures.

    Args:
        env: id of the environment, as a3c names it.
        seed: of the run.
        settings: what is trained, and how, in words.
        max_env_steps: budget of the run.
        max_seconds: seconds of training after which it ends.
        stop_at: return that ends it once reached; None for none.
    """

    def __init__(
        self, env: str, seed: int, settings: str, max_env_steps: int, max_seconds: float, stop_at: float | None
    ) -> None:
        self.env, self.seed, self.settings = env, seed, settings
        self.max_env_steps, self.max_seconds, self.stop_at = max_env_steps, max_seconds, stop_at
        self.episodes = 0
        self.env_steps, self.seconds = 0, 0.0
        self.solved_at_env_steps: int | None = None
        self.solved_at_seconds: float | None = None
        self._returns: deque[float] = deque(maxlen=EPISODES)
        self._started = time.perf_counter()
        self._is_over = False

    @classmethod
    def of(cls, options: argparse.Namespace, settings: str, max_env_steps: int) -> Run:
        """Build the run that some flags ask for."""
        return cls(options.env, options.seed, settings, max_env_steps, options.max_seconds, options.stop_at)

    def start(self) -> None:
        """Start the clock: training begins."""
        self._started = time.perf_counter()

    def add_episode(self, episode_return: float) -> None:
        """Count a finished training episode, in the environment's own rewards."""
        self.episodes += 1
        self._returns.append(float(episode_return))

    def set_episodes(self, count: int, last_returns: Iterable[float]) -> None:
        """Take over from a program that counts episodes itself: their number, and the returns of the last 100."""
        self.episodes = count
        self._returns = deque(last_returns, maxlen=EPISODES)

    @property
    def return_mean(self) -> float | None:
        """Mean return of the last 100 episodes, or of all if they are fewer; None before the first."""
        return fmean(self._returns) if self._returns else None

    def is_over(self, env_steps: int, seconds: float | None = None) -> bool:
        """Return whether the run ends here; what it has reached by then is its record, and later calls change nothing.

        Args:
            env_steps: trained so far.
            seconds: of training so far; default: since `start`.
        """
        if self._is_over:
            return True
        self.env_steps = env_steps
        self.seconds = time.perf_counter() - self._started if seconds is None else seconds
        mean = self.return_mean
        if self.stop_at is not None and self.episodes >= EPISODES and mean is not None and mean >= self.stop_at:
            self.solved_at_env_steps, self.solved_at_seconds = env_steps, self.seconds
        self._is_over = (
            self.solved_at_seconds is not None or env_steps >= self.max_env_steps or self.seconds >= self.max_seconds
        )
        return self._is_over

    def record(self, *packages: str, **more: Any) -> dict[str, Any]:
        """Return the run's figures, with the versions of some packages."""
        return {
            "env": self.env,
            "seed": self.seed,
            "settings": self.settings,
            "env_steps": self.env_steps,
            "train_seconds": self.seconds,
            "env_steps_per_second": self.env_steps / self.seconds if self.seconds else None,
            "stop_at": self.stop_at,
            "solved_at_env_steps": self.solved_at_env_steps,
            "solved_at_seconds": self.solved_at_seconds,
            "episodes": self.episodes,
            "return_mean": self.return_mean,
            "versions": {package: version(package) for package in packages},
            **more,
        }

    def write(self, *packages: str, **more: Any) -> None:
        """Print the record as one line of JSON."""
        print(json.dumps(self.record(*packages, **more)), flush=True)
