"""Rows 3 and 43: what a worker that learns leaves when it is killed, and counts that nobody shares."""

import os
import signal

import pytest
import torch
from helpers import fit
from lightning.pytorch import Callback
from optimizers import DyingAdam

from a3c.learner.hogwild.shared_optimizer import step_counts


def hogwild(**kwargs):
    return fit(**{"mode": "hogwild", "workers": 2, "max_env_steps": 20_000, **kwargs})


def check(model, data, trainer):
    progress = data.progress
    assert progress.env_steps >= data.mode.collection.max_env_steps
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert progress.in_flight >= 0
    assert all(torch.isfinite(parameter).all() for parameter in model.network.parameters())
    assert {int(count) for count in step_counts(trainer.optimizers[0])} == {model.gradient_steps}
    # A worker may be killed between its step and the update that the step makes.
    assert 0 <= model.gradient_steps - model.updates <= progress.worker_deaths


def test_row_3_a_worker_killed_inside_an_update_leaves_the_others_at_work_and_is_replaced(tmp_path):
    def optimizer(parameters):
        return DyingAdam(parameters, lr=1e-3, at_step=20, once=str(tmp_path / "died"))

    model, data, trainer = hogwild(learning={"optimizer": optimizer})
    assert (data.progress.worker_deaths, data.progress.worker_restarts) == (1, 1)
    assert data.progress.dropped["worker_death"] > 0  # the rollout whose update was not counted
    assert model.updates > 100
    check(model, data, trainer)


class KillAll(Callback):
    """Kills every worker, one after the other, a few reports apart."""

    def __init__(self, kills):
        self.left = kills

    def on_train_batch_end(self, trainer, pl_module, *args):
        pool = trainer.datamodule.mode.source
        worker = self.left % 2
        if self.left and pl_module.updates > 20 and pool.is_alive(worker):
            self.left -= 1
            os.kill(pool.pids[worker], signal.SIGKILL)


@pytest.mark.parametrize("shared", [True, False])
def test_rows_3_and_43_counts_stay_exact_whoever_is_killed(shared):
    kill = KillAll(4)
    model, data, trainer = hogwild(
        callbacks=[kill], learning={"shared_optimizer": shared}, max_env_steps=150_000, envs_per_worker=16
    )
    assert kill.left == 0
    assert data.progress.worker_deaths == data.progress.worker_restarts == 4
    if shared:
        check(model, data, trainer)
    else:
        counts = [int(step_counts(optimizer)[0]) for optimizer in trainer.optimizers]
        assert abs(sum(counts) - model.updates) <= 4  # a step that was made, and not counted, for each that was killed
