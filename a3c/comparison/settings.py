"""What the runs of a comparison were given: what all of them share, and what is each variant's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from a3c.comparison.analysis import Comparison
from a3c.comparison.variants import Variant, word_of

OWN = "model.returns"
# What is told of the settings that are shared, under which heading.
PARTS = {
    "environment": (
        *("data.env_kwargs", "data.max_episode_steps", "data.wrappers"),
        *("data.terminal_reward", "data.normalise_rewards", "data.clip_rewards"),
    ),
    "network": ("model.network",),
    "optimizer": ("model.optimizer", "model.lr_schedule"),
    "objective": ("model",),
    "rollouts": ("data",),
    "evaluation": ("evaluation",),
}
NOT_TOLD = (
    *("model.returns", "data.env", "data.max_env_steps", "data.worker_timeout", "data.max_restarts"),
    *("data.restart_window", "data.on_worker_failure", "data.on_bad_values", "data.check_bounds", "data.check_env"),
)
OWN_COLUMNS = ("variant", "mode", "the estimator's own arguments", "steps of a rollout", "updates, median of runs")
UNEQUAL = 1.1  # ratio of updates from which their numbers are called different


def shared_rows(comparison: Comparison) -> list[list[str]]:
    """Return, part by part, the settings that all runs have in common, but for those that are not set."""
    first, *others = [run.settings for run in comparison.runs]
    told: dict[str, list[str]] = {part: [] for part in PARTS}
    for key, value in first.items():
        part = next((part for part, keys in PARTS.items() if _lies_under(key, keys)), None)
        if part is None or value is None or _lies_under(key, NOT_TOLD):
            continue
        if all(key in settings and settings[key] == value for settings in others):
            name = [word for word in key.split(".") if word not in ("init_args", "class_path")]
            is_class = key.endswith(".class_path")
            told[part].append(word_of(value).rpartition(".")[2] if is_class else f"{name[-1]} {word_of(value)}")
    return [[part, ", ".join(words)] for part, words in told.items() if words]


def own_rows(comparison: Comparison) -> list[list[str]]:
    """Return a row for each variant, under `OWN_COLUMNS`."""
    rows = []
    for variant in comparison.variants:
        run = comparison.of(comparison.envs[0], variant)[0]
        arguments = ", ".join(f"{name}={word_of(value)}" for name, value in _arguments(run.settings))
        counts = [f"{_updates(comparison, env, variant):,.0f}" for env in comparison.envs]
        rows.append([variant.label, variant.mode, arguments or "–", run.rollout_steps, " / ".join(counts)])
    return rows


def differences(comparison: Comparison) -> Iterator[str]:
    """Say where variants differ in more than they are compared in: the length of rollouts, and how often they learn."""
    lengths: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        lengths.setdefault(run.rollout_steps, {})[run.variant.label] = None
    if len(lengths) > 1:
        parts = [f"{length} ({', '.join(labels)})" for length, labels in lengths.items()]
        yield (
            f"rollouts are not equally long: {'; '.join(parts)}. A difference between such estimators may come from "
            "the length of their rollouts, which is also how often they learn"
        )
    for env in comparison.envs:
        counts = {variant: _updates(comparison, env, variant) for variant in comparison.variants}
        fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        if counts[most] > UNEQUAL * max(1.0, counts[fewest]):
            yield (
                f"{env}: on the same env steps the numbers of updates differ, from {counts[fewest]:,.0f} ({fewest}) to "
                f"{counts[most]:,.0f} ({most}): the curves against updates tell what is left then"
            )


def _updates(comparison: Comparison, env: str, variant: Variant) -> float:
    return float(median(float(run.evaluations.updates[-1]) for run in comparison.of(env, variant)))


def _arguments(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return an estimator's arguments, those of one within it included."""
    for key, value in settings.items():
        if key.startswith(f"{OWN}.init_args."):
            name = [word for word in key.removeprefix(f"{OWN}.").split(".") if word != "init_args"]
            yield ".".join(word for word in name if word != "class_path"), value


def _lies_under(key: str, parents: tuple[str, ...]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)
