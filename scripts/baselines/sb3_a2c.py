"""Trains Stable-Baselines3's A2C on a Gymnasium environment and prints its figures as one JSON line.

The yardstick of ``scripts/benchmark.py``: the same environment, the same evaluations, and a clock that stands still
meanwhile. Ids that end in ``NoFrameskip-v4`` are Atari games, which it plays from four grey frames of 84 x 84 with
its own preprocessing and convolutional policy.
"""

from __future__ import annotations

import argparse
import json
import time

import gymnasium
import numpy as np
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize


def greedy_return(model: BaseAlgorithm, env_id: str, episodes: int, seed: int) -> tuple[float, float]:
    """Mean return of one greedy episode of each of `episodes` environments, and its standard error."""
    env = gymnasium.make_vec(env_id, num_envs=episodes)
    observation, _ = env.reset(seed=seed)
    returns, playing = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while playing.any():
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        returns += np.where(playing, reward, 0)
        playing &= ~(terminated | truncated)
    env.close()
    return float(returns.mean()), float(returns.std() / np.sqrt(episodes))


class StopWhenSolved(BaseCallback):
    """Evaluates every so many env steps, off the clock, and stops at the threshold."""

    def __init__(self, env_id: str, every: int, episodes: int, threshold: float) -> None:
        super().__init__()
        self.env_id, self.every, self.episodes, self.threshold = env_id, every, episodes, threshold
        self.paused_seconds, self.evaluations, self.next_at = 0.0, 0, every
        self.solved_at_env_steps: int | None = None

    def _on_step(self) -> bool:
        if self.num_timesteps < self.next_at:
            return True
        self.next_at += self.every
        self.evaluations += 1
        started = time.perf_counter()
        # Reached, and reached again on other episodes with a standard error to spare, as a3c asks for.
        mean, _ = greedy_return(self.model, self.env_id, self.episodes, 10_000 + self.evaluations)
        solved = mean >= self.threshold
        if solved:
            mean, error = greedy_return(self.model, self.env_id, self.episodes, 50_000 + self.evaluations)
            solved = mean - error >= self.threshold
        self.paused_seconds += time.perf_counter() - started
        if not solved:
            return True
        self.solved_at_env_steps = self.num_timesteps
        return False


def is_atari(env_id: str) -> bool:
    """Says whether an id is one of the Atari games that SB3's preprocessing is for."""
    return env_id.endswith("NoFrameskip-v4")


def made(env_id: str, envs: int, seed: int) -> VecEnv:
    """Makes a DummyVecEnv, of an Atari game with SB3's preprocessing."""
    if not is_atari(env_id):
        return make_vec_env(env_id, envs, seed=seed)
    import ale_py  # the extra `atari`

    gymnasium.register_envs(ale_py)
    return VecFrameStack(make_atari_env(env_id, envs, seed=seed), 4)


def main() -> None:
    """Trains once and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max_env_steps", type=int, default=500_000)
    parser.add_argument("--envs", type=int, default=8, help="environments in a DummyVecEnv; RL Zoo's CartPole has 8")
    parser.add_argument("--n_steps", type=int, default=5, help="steps of a rollout; SB3's own default")
    parser.add_argument("--normalise", action="store_true", help="observations and rewards, as RL Zoo does for MuJoCo")
    parser.add_argument("--solve", action="store_true", help="evaluate, and stop at the reward threshold")
    options = parser.parse_args()

    torch.set_num_threads(1)
    policy = "CnnPolicy" if is_atari(options.env) else "MlpPolicy"
    env = made(options.env, options.envs, options.seed)
    if options.normalise:
        env = VecNormalize(env)
    model = A2C(policy, env, n_steps=options.n_steps, seed=options.seed, device="cpu")
    callback = None
    if options.solve:
        threshold = gymnasium.spec(options.env).reward_threshold
        assert threshold is not None, "the environment names no threshold"
        callback = StopWhenSolved(options.env, 10_000, 64, threshold)
    started = time.perf_counter()
    model.learn(options.max_env_steps, callback=callback)
    seconds = time.perf_counter() - started - (callback.paused_seconds if callback else 0.0)
    figures = {
        "env": options.env,
        "seed": options.seed,
        "envs": options.envs,
        "env_steps": model.num_timesteps,
        "train_seconds": seconds,
        "env_steps_per_second": model.num_timesteps / seconds,
    }
    if callback:
        figures["solved_at_env_steps"] = callback.solved_at_env_steps
        figures["solved_at_seconds"] = seconds if callback.solved_at_env_steps else None
        figures["eval_return_mean"], _ = greedy_return(model, options.env, 100, 20_000)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
