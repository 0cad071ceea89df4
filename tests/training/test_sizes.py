"""Workers by the machine's cores, and what they leave as it is: the update."""

import os

import pytest
from helpers import COUNTDOWN, fit
from lightning.pytorch import Callback

from a3c import GAE, RolloutDataModule
from a3c.training.modes import MODES

ENDLESS = {"env": COUNTDOWN, "env_kwargs": {"lengths": (10**6,)}}


@pytest.fixture
def cores(monkeypatch):
    """Makes believe that there are so many."""

    def pretend(number):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(number)))

    return pretend


@pytest.mark.parametrize(
    ("mode", "number", "given", "sizes"),
    [
        ("async", 1, (16, 1), (1, 16, 1)),
        ("async", 2, (16, 1), (1, 16, 1)),
        ("async", 3, (16, 1), (2, 8, 2)),
        ("async", 8, (16, 1), (4, 4, 4)),  # seven would not share 16 columns out
        ("async", 64, (16, 1), (16, 1, 16)),
        ("async", 8, (5, 3), (5, 3, 5)),
        ("async", 5, (7, 1), (1, 7, 1)),
        ("sync", 8, (16, 2), (1, 16, 2)),
        ("hogwild", 8, (16, 2), (8, 16, 2)),
    ],
)
def test_workers_share_the_columns_of_an_update_out_as_the_cores_allow(cores, mode, number, given, sizes):
    cores(number)
    assert MODES[mode].shared_out(*given) == sizes


class Columns(Callback):
    """Keeps the shapes of all updates."""

    def __init__(self):
        self.shapes = set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.shapes.add(tuple(batch.mask.shape))


@pytest.mark.parametrize(("number", "workers"), [(2, 1), (4, 3)])
def test_an_update_is_the_same_whatever_the_cores(cores, number, workers):
    cores(number)
    watch = Columns()
    sizes = {"workers": "auto", "envs_per_worker": 6}
    model, data, _ = fit(GAE(8), callbacks=[watch], mode="async", max_env_steps=480, **sizes, **ENDLESS)
    assert watch.shapes == {(8, 6)}
    assert data.mode.exit_codes == [0] * workers
    assert model.updates == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": "all"}, "^workers: got 'all', must be a whole number, at least 1, or auto$"),
        ({"workers": 1.5}, "^workers: got 1.5, must be a whole number, at least 1$"),
        ({"workers": True}, "^workers: got True, must be a whole number, at least 1$"),
        ({"workers": [1]}, r"^workers: got \[1\], must be a whole number, at least 1$"),
        ({"envs_per_worker": 1.5}, "^envs_per_worker: got 1.5, must be a whole number, at least 1$"),
        ({"rollouts_per_update": None}, "^rollouts_per_update: got None, must be a whole number, at least 1$"),
        ({"workers": 0}, "^workers: got 0, must be at least 1$"),
        (
            {"workers": "auto", "max_episodes_per_worker": 3},
            "^workers: got auto with max_episodes_per_worker, must be a number: each has that budget$",
        ),
    ],
)
def test_other_words_kinds_and_a_budget_of_each_worker_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RolloutDataModule(**arguments)


def test_a_budget_of_each_worker_is_no_trouble_where_there_are_none():
    data = RolloutDataModule(mode="sync", workers="auto", max_episodes_per_worker=3)
    assert (data.mode.workers, data.mode.collection.envs_per_worker) == (1, 64)
