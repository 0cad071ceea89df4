"""The published results are what the runs in the files beside them came to."""

import csv
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
COMMANDS = re.findall(r"^python scripts/compare\.py (.*)$", PAGE, re.MULTILINE)
FILES = {  # by the sections' titles, each of which begins with the environment's id
    "CartPole-v1": "cartpole",
    "Acrobot-v1": "acrobot",
    "LunarLander-v3": "lunarlander",
    "Pendulum-v1": "pendulum",
    "LunarLanderContinuous-v3": "lunarlander_continuous",
    "CartPole-v1 without velocities, with an LSTM": "cartpole_lstm",
    "CartPole-v1 without velocities, without a memory": "cartpole_no_memory",
}


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
    (section,) = [part for part in PAGE.split("\n## ") if part.startswith(f"{title}\n")]
    lines = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.*) \|$", section, re.MULTILINE)
    assert {(label, mode) for label, mode, _ in lines} == set(cells(title))
    for label, mode, rest in lines:
        runs = cells(title)[label, mode]
        finals, areas = (np.array([float(run[name]) for run in runs]) for name in ("final_return", "area"))
        solved = [float(run["solved_at_env_steps"] or "inf") for run in runs]
        median = float(np.median(solved))
        assert rest.split(" | ") == [
            figure_of(score([finals])),
            figure(float(finals.min())),
            figure_of(score([areas])),
            f"{np.isfinite(solved).sum()} of {len(runs)}",
            f"{median:,.0f}" if np.isfinite(median) else "never",
        ], (label, mode)


@pytest.mark.parametrize(("title", "words"), list(zip(FILES, COMMANDS, strict=True)))
def test_the_command_beside_a_table_makes_its_runs(title, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    words, _, _ = words.partition(" -- ")  # what every run is given
    grid = make_grid(comparison.axes_of(comparison.make_parser().parse_args(shlex.split(words))))
    made = {(run.env, run.variant.label, run.variant.mode, str(run.seed), str(grid.budget)) for run in grid.runs}
    rows = [row for runs in cells(title).values() for row in runs]
    assert made == {(row["env"], row["label"], row["mode"], row["seed"], row["budget"]) for row in rows}
