"""Measures what the estimator probe costs: CPU time of fits with and without it, in turn, in one process.

``python scripts/probe_cost.py --every 50 --n_steps 32 --pairs 8`` prints the median of the ratios.
"""

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path
from statistics import median


def main() -> None:
    """Runs pairs of fits in mode sync, where one process collects and learns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=50, help="updates from one comparison to the next")
    parser.add_argument("--n_steps", type=int, default=32, help="steps of a rollout, of 64 environments")
    parser.add_argument("--env_steps", type=int, default=300_000, help="budget of a fit")
    parser.add_argument("--pairs", type=int, default=8)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    seconds_of(0, options.n_steps, 20_000)
    ratios = []
    for pair in range(options.pairs):
        order = (0, options.every) if pair % 2 == 0 else (options.every, 0)
        seconds = {every: seconds_of(every, options.n_steps, options.env_steps) for every in order}
        ratios.append(seconds[options.every] / seconds[0])
        print(f"{seconds[0]:.2f} s without, {seconds[options.every]:.2f} s with: {ratios[-1]:.3f}", flush=True)
    print(f"median {median(ratios):.3f}")


def seconds_of(every: int, n_steps: int, env_steps: int) -> float:
    """Gives the CPU seconds of one fit's training; without a probe if `every` is 0."""
    import torch
    from lightning.pytorch import Callback, Trainer

    from a3c import A3C, EstimatorProbe, MLPActorCritic, NStep, ProbePlan, RolloutDataModule
    from a3c.runs.metrics_file import MetricsFile

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    times: list[float] = []

    class Clock(Callback):
        def on_train_start(self, *args: object) -> None:
            times.append(time.process_time())

        def on_train_end(self, *args: object) -> None:
            times.append(time.process_time())

    data = RolloutDataModule("CartPole-v1", mode="sync", envs_per_worker=64, max_env_steps=env_steps, seed=1)
    network = MLPActorCritic(data.observation_space, data.action_space)
    probe = [EstimatorProbe(ProbePlan(every))] if every else []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=-1,
            logger=MetricsFile(Path(folder, "metrics.csv")),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
            callbacks=[*probe, Clock()],
        )
        trainer.fit(A3C(network, NStep(n_steps), reward_scale=0.01, entropy_coefficient=0.003), data)
    return times[1] - times[0]


if __name__ == "__main__":
    main()
