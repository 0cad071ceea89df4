"""Which runs a comparison is made of: every value of every axis with every other, each with the flags it is run by."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from a3c.comparison.variants import Variant, label_with, short_names, word_of
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.returns import ReturnEstimator
from a3c.returns.labels import OWN, label_of, parse
from a3c.runs.descriptions import describe
from a3c.training.cli.usage import UsageError
from a3c.training.modes import MODES

RETURNS, MODE, ENV, SEED = "model.returns", "mode", "data.env", "seed_everything"
BUDGET, INTERVAL, STOP = "data.max_env_steps", "evaluation.every_env_steps", "stop_when_solved"
# Keys of train.py that a comparison sets itself, and by what; the rest may be passed on to every run.
OURS = {
    RETURNS: "--returns",
    MODE: "--modes",
    ENV: "--env",
    SEED: "--seeds or --seed_list",
    BUDGET: "--max_env_steps",
    INTERVAL: "--evaluate_every",
    STOP: "nothing: every run uses its whole budget",
    "run_dir": "--output",
    "run_name": "--output",
    "ckpt_path": "nothing: runs go on by themselves",
}

Axes = Mapping[str, Sequence[Any]]


class PlannedRun(NamedTuple):
    """One run that is to be.

    Attributes:
        env: environment id.
        variant: what it is a run of.
        seed: its seed.
        flags: keys of train.py and their values.
        passed: further words, the same for every run.
    """

    env: str
    variant: Variant
    seed: int
    flags: tuple[tuple[str, str], ...]
    passed: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The run folder, within that of the comparison."""
        return Path("runs", env_folder(self.env), self.variant.slug, f"seed{self.seed}")

    @property
    def name(self) -> str:
        """How it is called in messages: the folder, without the first part."""
        return str(Path(*self.folder.parts[1:]))

    @property
    def words(self) -> list[str]:
        """The command line, without the folder; what is passed on comes first, so nothing there is overruled."""
        return [*self.passed, *(f"--{key}={value}" for key, value in self.flags)]


@dataclass(frozen=True)
class Grid:
    """All runs of a comparison, in the order of their start: a seed of every cell, then the next.

    Attributes:
        runs: the runs.
        budget: env steps of each.
    """

    runs: tuple[PlannedRun, ...]
    budget: int


def make_grid(axes: Axes, passed: Sequence[str] = ()) -> Grid:
    """Make the runs of a grid.

    Args:
        axes: values by key of train.py. An estimator is given by labels under ``model.returns``, or by a
            class there and its arguments under ``model.returns.…``; what has several values, and is
            neither environment nor mode nor seed, names the variants.
        passed: words of the command line that every run gets.

    Raises:
        UsageError: a value that cannot be, is there twice, or belongs to another flag.
    """
    _check_passed(passed, axes)
    budget = _only(axes, BUDGET, "must be one number, the same for all runs")
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1:
        raise UsageError(f"max_env_steps: got {word_of(budget)}, must be a whole number, at least 1")
    if _only(axes, STOP, "must be false") is not False:
        raise UsageError(f"{STOP}: got {word_of(axes[STOP][0])}, must be false: every run uses its whole budget")
    for mode in axes[MODE]:
        if mode not in MODES:
            raise UsageError(f"modes: got {mode!r}, must be one of {', '.join(MODES)}")
    for env in axes[ENV]:
        try:
            _ = EnvSpec(env).reward_threshold
        except EnvError as error:
            raise UsageError(str(error)) from error
    for key in axes:
        owner = key.rpartition(".")[0]
        if key.startswith(f"{RETURNS}.") and owner not in axes:
            raise UsageError(f"{key}: got without {owner}, must come with it")
    keys = [key for key in axes if key not in (ENV, MODE, SEED)]
    others = [key for key in keys if key != RETURNS and not key.startswith(f"{RETURNS}.")]
    names = short_names([key for key in others if len(axes[key]) > 1])
    cells: dict[tuple[str, Variant], tuple[tuple[str, str], ...]] = {}
    for values in product(*(axes[key] for key in keys)):
        point = dict(zip(keys, values, strict=True))
        estimator = _estimator(point)
        label = label_with(label_of(estimator), {names[key]: point[key] for key in others if key in names})
        settings = [(key, word_of(point[key])) for key in others]
        for env, mode in product(axes[ENV], axes[MODE]):
            variant = Variant(label, mode)
            if (env, variant) in cells:
                raise UsageError(f"{_field(axes)}: got {env} · {variant} twice, must differ")
            flags = [(MODE, mode), (ENV, env), *_flags_of(estimator, RETURNS), *settings]
            cells[env, variant] = tuple(flags)
    runs = [
        PlannedRun(env, variant, _seed(seed), (*flags, (SEED, str(seed))), tuple(passed))
        for seed in axes[SEED]
        for (env, variant), flags in cells.items()
    ]
    twice = {run.folder for run in runs if sum(run.folder == other.folder for other in runs) > 1}
    if twice:
        raise UsageError(f"seeds: got {min(twice).name} twice, must differ")
    return Grid(tuple(runs), budget)


def _check_passed(passed: Sequence[str], axes: Axes) -> None:
    for word in passed:
        key = word.removeprefix("--").partition("=")[0]
        owner = next((ours for ours in OURS if key == ours or key.startswith(f"{ours}.")), None)
        if word.startswith("--") and owner is not None:
            raise UsageError(f"--{key}: is set by the comparison, by {OURS[owner]}")
        if word.startswith("--") and key in axes:
            raise UsageError(f"--{key}: got with a sweep that sets it, must be one of them")


def _only(axes: Axes, key: str, allowed: str) -> Any:
    values = axes[key]
    if len(values) != 1:
        raise UsageError(f"{key}: got {', '.join(map(word_of, values)) or 'nothing'}, {allowed}")
    return values[0]


def _field(axes: Axes) -> str:
    """Name the axis along which a value must have been given twice."""
    for key, name in ((ENV, "env"), (MODE, "modes")):
        if len(set(axes[key])) < len(axes[key]):
            return name
    return "returns"


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UsageError(f"seeds: got {word_of(seed)}, must be whole numbers from 0 to {2**32 - 1}")
    return seed


def _estimator(point: Mapping[str, Any]) -> ReturnEstimator:
    label = _label(point, RETURNS)
    try:
        estimator = parse(label)
        describe(estimator)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"returns: {error}") from error
    return estimator


def _label(point: Mapping[str, Any], key: str) -> str:
    """Put a class and its arguments, each under a key of its own, together to a label."""
    name = word_of(point[key])
    parts = []
    for argument in point:
        rest = argument.removeprefix(f"{key}.")
        if rest != argument and "." not in rest:
            inner = _label(point, argument)
            parts.append(f"{rest}=({inner})" if ":" in inner else f"{rest}={inner}")
    if parts and ":" in name:
        raise UsageError(
            f"{key}: got {name!r} with {key}.{parts[0].partition('=')[0]} beside it, must be a class alone"
        )
    return f"{name}:{','.join(parts)}" if parts else name


def _flags_of(estimator: ReturnEstimator, key: str) -> Iterator[tuple[str, str]]:
    """Return every argument, also one that is the default: a config file may have set it otherwise."""
    cls = type(estimator)
    yield key, cls.__name__ if OWN.get(cls.__name__) is cls else f"{cls.__module__}.{cls.__qualname__}"
    for name in inspect.signature(cls).parameters:
        value = getattr(estimator, name)
        if isinstance(value, ReturnEstimator):
            yield from _flags_of(value, f"{key}.{name}")
        else:
            yield f"{key}.{name}", word_of(value)


def env_folder(env: str) -> str:
    """Return a folder's name for an environment's id."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in env).lstrip(".")
