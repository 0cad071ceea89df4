"""Trains Stable-Baselines3's A2C or PPO, or sbx's PPO, with RL Baselines3 Zoo's settings; prints one JSON line.

The settings are those of the Zoo's hyperparams/a2c.yml and ppo.yml; for sbx, which has none of its own, those of PPO.
Environments are stepped one after another (DummyVecEnv), as the Zoo does by default. Pong is PongNoFrameskip-v4 in
SB3's own preprocessing: four grey frames of 84 x 84. The clock of sbx includes its compilation, in the first update.
"""

from __future__ import annotations

from typing import Any

import torch
from run_record import Run, arguments
from sb3_a2c import is_atari, made
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule

THEIR_ID = {"ALE/Pong-v5": "PongNoFrameskip-v4"}
TF_LIKE = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}

# n_envs and n_timesteps are the Zoo's own names; "lin" decays to 0 over the budget.
A2C_SETTINGS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"n_envs": 8, "n_timesteps": 500_000, "ent_coef": 0.0},
    "LunarLander-v3": {
        "n_envs": 8,
        "n_timesteps": 200_000,
        "gamma": 0.995,
        "n_steps": 5,
        "ent_coef": 0.00001,
        "learning_rate": "lin_0.00083",
    },
    "ALE/Pong-v5": {
        "n_envs": 16,
        "n_timesteps": 10_000_000,
        "ent_coef": 0.01,
        "vf_coef": 0.25,
        "policy_kwargs": TF_LIKE,
    },
}
PPO_SETTINGS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "n_envs": 8,
        "n_timesteps": 100_000,
        "n_steps": 32,
        "batch_size": 256,
        "gae_lambda": 0.8,
        "gamma": 0.98,
        "n_epochs": 20,
        "ent_coef": 0.0,
        "learning_rate": "lin_0.001",
        "clip_range": "lin_0.2",
    },
    "LunarLander-v3": {
        "n_envs": 16,
        "n_timesteps": 1_000_000,
        "n_steps": 1024,
        "batch_size": 64,
        "gae_lambda": 0.98,
        "gamma": 0.999,
        "n_epochs": 4,
        "ent_coef": 0.01,
    },
    "ALE/Pong-v5": {
        "n_envs": 8,
        "n_timesteps": 10_000_000,
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 4,
        "learning_rate": "lin_0.00025",
        "clip_range": "lin_0.1",
        "vf_coef": 0.5,
        "ent_coef": 0.01,
    },
}
SETTINGS = {"a2c": A2C_SETTINGS, "ppo": PPO_SETTINGS, "sbx_ppo": PPO_SETTINGS}


class RunCallback(BaseCallback):
    """Hands finished episodes to a run, and ends the training with it."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def _on_training_start(self) -> None:
        self._run.start()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:  # of the Monitor: rewards as the environment gave them
                self._run.add_episode(info["episode"]["r"])
        return not self._run.is_over(self.num_timesteps)


def scheduled(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the Zoo's "lin_…" replaced by a schedule that decays linearly to 0."""
    return {
        name: LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0) if str(value).startswith("lin_") else value
        for name, value in settings.items()
    }


def main() -> None:
    """Train once and print the record."""
    parser = arguments(__doc__)
    parser.add_argument("--algorithm", choices=list(SETTINGS), default="ppo")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = dict(SETTINGS[options.algorithm][options.env])
    n_envs, budget = settings.pop("n_envs"), settings.pop("n_timesteps")
    run = Run.of(
        options, f"RL Zoo: {n_envs} environments, {budget:,} env steps, {settings}", options.max_env_steps or budget
    )
    env_id = THEIR_ID.get(options.env, options.env)
    env = made(env_id, n_envs, options.seed)
    policy = "CnnPolicy" if is_atari(env_id) else "MlpPolicy"
    packages = ["stable_baselines3", "gymnasium", "torch"]
    if options.algorithm == "sbx_ppo":
        import sbx

        packages += ["sbx-rl", "jax"]
        model = sbx.PPO(policy, env, seed=options.seed, **scheduled(settings))
    else:
        algorithm = A2C if options.algorithm == "a2c" else PPO
        model = algorithm(policy, env, seed=options.seed, device="cpu", **scheduled(settings))
    model.learn(run.max_env_steps, callback=RunCallback(run))
    run.write(*packages)


if __name__ == "__main__":
    main()
