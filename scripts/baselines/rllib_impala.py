"""Trains RLlib's IMPALA with two env runners, on its new API stack; prints one JSON line.

The settings are those of its own CartPole example (rllib/examples/algorithms/impala/cartpole_impala.py), which other
environments get as well, with two env runners instead of four, as there are two cores, and the learner in the
driver's process. By default the driver asks for samples without a pause, and takes one of two cores for that alone;
here it waits for them, which trains more than ten times as many env steps a second on two cores. The clock starts when
the env runners are ready.
"""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from run_record import Run, arguments

WAIT = 0.1  # seconds at most, for samples
RUNNERS, ENVS, BATCH, LR, GRAD_CLIP, VALUE_COEFFICIENT, ENTROPY = 2, 16, 500, 0.0005, 40.0, 0.05, 0.0
BUDGET = 2_000_000
RETURNS = "run_returns"


def log_return(episode: Any, prev_episode_chunks: Any, metrics_logger: Any, **_: Any) -> None:
    """Log the return of a finished episode, each for itself; fragments may have ended within it before."""
    episode_return = sum(chunk.get_return() for chunk in (*(prev_episode_chunks or ()), episode))
    metrics_logger.log_value(RETURNS, episode_return, reduce="item_series")


def configured(options: Any) -> Any:
    """Build the algorithm's configuration."""
    config = (
        IMPALAConfig()
        .environment(options.env)
        .env_runners(
            num_env_runners=RUNNERS,
            num_envs_per_env_runner=ENVS,
            env_to_module_connector=lambda env, spaces, device: MeanStdFilter(),
        )
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=BATCH,
            grad_clip=GRAD_CLIP,
            grad_clip_by="global_norm",
            lr=LR,
            vf_loss_coeff=VALUE_COEFFICIENT,
            entropy_coeff=ENTROPY,
        )
        .rl_module(model_config=DefaultModelConfig(vf_share_layers=True))
        .callbacks(on_episode_end=log_return)
        .reporting(min_time_s_per_iteration=0.25)  # between looks at the episodes; 10 s by default
        .debugging(seed=options.seed, log_level="ERROR")
    )
    config.timeout_s_sampler_manager = WAIT
    return config


def main() -> None:
    """Train once and print the record."""
    options = arguments(__doc__).parse_args()
    budget = options.max_env_steps or BUDGET
    settings = (
        f"its CartPole example: {RUNNERS} env runners x {ENVS} environments, train batch {BATCH}, lr {LR}, grad clip "
        f"{GRAD_CLIP}, value coefficient {VALUE_COEFFICIENT}, entropy {ENTROPY}, observations normalised, the driver "
        f"waits {WAIT} s for samples"
    )
    run = Run.of(options, settings, budget)
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(address="local", num_cpus=4, include_dashboard=False, _temp_dir=folder, logging_level=logging.ERROR)
        algorithm = configured(options).build_algo()
        run.start()
        env_steps = 0
        while not run.is_over(env_steps):
            result = algorithm.train().get(ENV_RUNNER_RESULTS, {})
            for episode_return in np.atleast_1d(result.get(RETURNS, [])):  # of one episode it is no list
                run.add_episode(episode_return)
            env_steps = int(result.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps))
        algorithm.stop()
        ray.shutdown()
    run.write("ray", "gymnasium", "torch")


if __name__ == "__main__":
    main()
