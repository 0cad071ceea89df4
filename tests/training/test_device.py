"""A learner on a device of its own: on one that is pretended everywhere, on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import fit
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback

from a3c import GAE
from a3c.rollouts.device.copies import CudaCopies, copies_of

CASES = Path(__file__).with_name("on_a_device.py")
ON_GPU = {"accelerator": "gpu", "devices": 1}
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def test_a_fit_on_a_pretended_device():
    """In a process of its own: torch counts devices once."""
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short", str(CASES)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "WANDB_MODE": "disabled"}
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


def test_the_cpu_and_other_devices_have_no_queue():
    assert not isinstance(copies_of(torch.device("cpu")), CudaCopies)


@needs_a_gpu
@pytest.mark.parametrize("passes", [1, 3])
def test_a_gpu_learns_what_the_cpu_learns(passes):
    learning = {"passes": passes, "minibatches": passes, "normalise_observations": True}
    case = {"returns": GAE(8), "learning": learning, "max_env_steps": 640}
    here, there = (fit(trainer=trainer, **case)[0] for trainer in ({}, ON_GPU))
    weights = move_data_to_device(dict(there.network.state_dict()), "cpu")
    for name, ours in here.network.state_dict().items():
        assert torch.allclose(ours, weights[name], rtol=1e-3, atol=1e-4), name


class Asked(Callback):
    """Notes the dtype of what is published."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        assert all(parameter.is_cuda for parameter in pl_module.network.parameters())
        assert {parameter.dtype for parameter in pl_module.acting_network.parameters()} == {torch.float32}


@needs_a_gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_workers_act_on_the_cpu_while_a_gpu_learns(precision):
    trainer = {**ON_GPU, "precision": precision}
    model, data, _ = fit(trainer=trainer, callbacks=[Asked()], mode="async", workers=2, max_env_steps=5000)
    assert data.progress.collected == data.progress.trained + data.progress.dropped.total() + data.progress.in_flight
    assert model.updates == data.mode.version == data.mode.weights.version
