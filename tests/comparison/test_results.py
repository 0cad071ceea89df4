"""The published results are what the runs in the files beside them came to."""

import csv
import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from a3c.comparison import command as comparison
from a3c.comparison.grid import make_grid
from a3c.comparison.statistics import score
from a3c.comparison.words import figure_of
from a3c.runs.figures import figure

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "results.md").read_text()
COMMAND = re.compile(r"^python scripts/compare\.py (.*)$", re.MULTILINE)
FILES = {  # by the sections' titles, each of which begins with the environment's id
    "CartPole-v1": "cartpole",
    "Acrobot-v1": "acrobot",
    "LunarLander-v3": "lunarlander",
}
TABLES = {  # of many environments, a line each
    "One configuration for all": "default",
    "Each environment with a configuration of its own": "configurations",
}


def section(title):
    """What stands under a title."""
    (found,) = [part for part in PAGE.split("\n## ") if part.startswith(f"{title}\n")]
    return found


def grid_of(words):
    """The runs that a command makes."""
    words, _, _ = words.partition(" -- ")  # what every run is given
    return make_grid(comparison.axes_of(comparison.make_parser().parse_args(shlex.split(words))))


def cells(title):
    """The rows of a section's runs, by label and mode."""
    found = {}
    with (ROOT / "docs" / "results" / f"{FILES[title]}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert row["env"] == title.split()[0]
            found.setdefault((row["label"], row["mode"]), []).append(row)
    return found


@pytest.mark.parametrize("title", FILES)
def test_every_line_of_the_tables_follows_from_the_runs(title):
    lines = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.*) \|$", section(title), re.MULTILINE)
    assert {(label, mode) for label, mode, _ in lines} == set(cells(title))
    for label, mode, rest in lines:
        runs = cells(title)[label, mode]
        areas = np.array([float(run["area"]) for run in runs])
        final, lowest, solved, median = figures_of(runs)
        assert rest.split(" | ") == [final, lowest, figure_of(score([areas])), solved, median], (label, mode)


def figures_of(runs):
    """What a line says of runs, but for the area."""
    finals = np.array([float(run["final_return"]) for run in runs])
    solved = [float(run["solved_at_env_steps"] or "inf") for run in runs]
    median = float(np.median(solved))
    return (
        figure_of(score([finals])),
        figure(float(finals.min())),
        f"{np.isfinite(solved).sum()} of {len(runs)}",
        f"{median:,.0f}" if np.isfinite(median) else "never",
    )


@pytest.mark.parametrize("title", FILES)
def test_the_command_beside_a_table_makes_its_runs(title, monkeypatch):
    monkeypatch.chdir(ROOT)
    (words,) = COMMAND.findall(section(title))
    grid = grid_of(words)
    made = {(run.env, run.variant.label, run.variant.mode, str(run.seed), str(grid.budget)) for run in grid.runs}
    rows = [row for runs in cells(title).values() for row in runs]
    assert made == {(row["env"], row["label"], row["mode"], row["seed"], row["budget"]) for row in rows}


def configurations(title):
    """The runs of a table of many environments, by the name of their configuration."""
    found = {}
    with (ROOT / "docs" / "results" / f"{TABLES[title]}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["config"], []).append(row)
    return found


@pytest.mark.parametrize("title", TABLES)
def test_every_line_of_a_table_of_environments_follows_from_the_runs(title):
    lines = re.findall(r"^\| \[(\w+)\]\(\S+\) \| ([\d,]+) \| (.*) \|$", section(title), re.MULTILINE)
    runs = configurations(title)
    assert [name for name, _, _ in lines] == list(runs)
    for name, budget, rest in lines:
        assert {row["budget"] for row in runs[name]} == {budget.replace(",", "")}, name
        assert tuple(rest.split(" | ")[:4]) == figures_of(runs[name]), name


@pytest.mark.parametrize("title", TABLES)
def test_the_commands_beside_a_table_of_environments_make_its_runs(title, monkeypatch):
    monkeypatch.chdir(ROOT)
    made, rows = set(), set()
    for words in COMMAND.findall(section(title)):
        grid = grid_of(words)
        made |= {(run.env, run.variant.label, run.variant.mode, str(run.seed), str(grid.budget)) for run in grid.runs}
    for row in itertools.chain(*configurations(title).values()):
        rows.add((row["env"], row["label"], row["mode"], row["seed"], row["budget"]))
    assert made == rows
