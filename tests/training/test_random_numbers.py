"""The process's own random generators, from which environments and networks may draw: they are the run's too."""

import os
import random

import numpy as np
import pytest
import torch
from helpers import fit, make_network

from a3c import NStep
from a3c.envs.random_states import global_states
from a3c.envs.spec import EnvSpec
from a3c.evaluation.evaluator import Evaluator
from a3c.training.callbacks import GreedyEvaluation

ENV = "drawing_env:Drawing-v0"


def draws_of(folder, seed=1, **data):
    """Train, and return what each process has drawn, without this one if it does not collect."""
    folder.mkdir(parents=True, exist_ok=True)
    kwargs = {"path": str(folder), **data.pop("env_kwargs", {})}
    # What Gymnasium's check_env has it draw, in this process, is no run's.
    fit(NStep(5), seed=seed, env=ENV, env_kwargs=kwargs, envs_per_worker=1, max_env_steps=60, check_env=False, **data)
    drawn = {path.name: path.read_text().splitlines() for path in folder.iterdir() if path.name != "died"}
    return [lines for name, lines in drawn.items() if name != str(os.getpid()) or data["mode"] == "sync"]


@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_every_worker_draws_numbers_of_its_own_which_the_seed_says(tmp_path, mode):
    first = draws_of(tmp_path / "first", mode=mode, workers=3)
    again, other = (
        draws_of(tmp_path / name, seed, mode=mode, workers=3) for name, seed in (("again", 1), ("other", 2))
    )
    beginnings = {lines[0] for lines in first}
    assert len(beginnings) == len(first) == 3
    assert {lines[0] for lines in again} == beginnings
    assert not {lines[0] for lines in other} & beginnings
    resets = [{lines[1] for lines in each} for each in (first, again, other)]
    assert resets[0] == resets[1]
    for place in range(4):  # Python's, NumPy's, torch's and the space's
        assert len({line.split()[place] for line in resets[0] | resets[2]}) == 6


def test_a_successor_does_not_repeat_its_predecessors_numbers(tmp_path):
    first, second = draws_of(tmp_path, mode="async", workers=1, env_kwargs={"die_after": 3})
    assert not set(first) & set(second)


def test_what_sync_draws_is_the_seeds_whatever_was_drawn_before_and_between(tmp_path):
    (plain,) = draws_of(tmp_path / "plain", mode="sync")
    np.random.rand(7), random.random(), torch.rand(3)
    (again,) = draws_of(tmp_path / "again", mode="sync")
    assert plain == again
    assert draws_of(tmp_path / "other", 2, mode="sync") != [plain]


def test_evaluations_draw_numbers_of_their_seed_and_disturb_no_training(tmp_path):
    spec = EnvSpec(ENV, {"path": str(tmp_path)})
    file = tmp_path / str(os.getpid())

    def drawn_with(seed):
        evaluator = Evaluator(spec, 3)
        evaluator(make_network(), seed)
        evaluator.close()
        lines = file.read_text()
        file.unlink()
        return lines

    first, again, other = map(drawn_with, (1, 1, 20))
    assert first == again
    assert not set(first.split()) & set(other.split())

    def returns(callbacks):
        model, _, _ = fit(NStep(5), callbacks=callbacks, env=ENV, env_kwargs={"path": str(tmp_path)}, max_env_steps=200)
        return model.state_dict()

    plain, evaluated = returns([]), returns([GreedyEvaluation(every_env_steps=20, episodes=2)])
    assert all(torch.equal(plain[name], evaluated[name]) for name in plain)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_fit_leaves_this_processs_generators_as_they_were(tmp_path, mode):
    torch.manual_seed(1)  # as `fit` does before it builds its network
    make_network(2, 3, (16,))
    expected = global_states()
    fit(NStep(5), mode=mode, env=ENV, env_kwargs={"path": str(tmp_path)}, envs_per_worker=1, max_env_steps=40)
    left = global_states()
    assert left["python"] == expected["python"]
    assert left["numpy"] == expected["numpy"]
    assert torch.equal(left["torch"], expected["torch"])
