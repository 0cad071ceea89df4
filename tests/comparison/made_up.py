"""Run folders as scripts/train.py leaves them, made up: curves that rise to a given return, on a small budget."""

import csv
import json

import numpy as np
import yaml

from a3c.returns.labels import parse
from a3c.runs.descriptions import describe


def make_run(
    folder, label="NStep", mode="async", seed=1, env="CartPole-v1", budget=100_000, final=300.0, probes=(), **more
):
    """Writes a run folder; gives it.

    Args:
        folder: the run folder.
        label: of its estimator.
        mode: update mode.
        seed: its seed.
        env: environment id.
        budget: env steps.
        final: return that the evaluations rise to, and the final one.
        probes: (label, measure) of probed estimators, whose value is `final` in every fifth row.
        more: settings by dotted key, instead of the usual ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "seed_everything": seed,
        "mode": mode,
        "stop_when_solved": more.pop("stop_when_solved", False),
        "data": {"env": env, "max_env_steps": budget, "envs_per_worker": 64},
        "model": {"returns": returns_of(label), "optimizer": {"init_args": {"lr": 0.002}}},
    }
    for key, value in more.items():
        *path, last = key.split(".")
        part = config
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    keys = ["env_steps", "updates", "time/train_seconds", "eval/episode_return", "rollout/episode_return"]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*keys, *(f"probe/{label}/{measure}" for label, measure in probes)])
        writer.writeheader()
        for row, share in enumerate(np.linspace(0.1, 1.0, 10)):
            values = (share * budget, share * budget / 2048, share * 2.0, share * final, share * final / 2)
            line = dict(zip(keys, values, strict=True))
            if row % 5 == 4:
                line |= {f"probe/{label}/{measure}": final for label, measure in probes}
            writer.writerow(line)
            writer.writerow({"env_steps": share * budget, "rollout/episode_return": share * final})
    summary = {"estimator_label": label, "interrupted": False, "eval_return_mean": final, "env_steps": budget}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def returns_of(label):
    """How config.yaml describes an estimator."""
    return describe(parse(label))


def make_runs(folder, finals, mode="async", env="CartPole-v1", **more):
    """Writes a run for each final return, by label; seeds count from 1."""
    for label, returns in finals.items():
        for seed, final in enumerate(returns, 1):
            make_run(folder / env / f"{label}-{mode}" / f"seed{seed}", label, mode, seed, env, final=final, **more)
    return folder
