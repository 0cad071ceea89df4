"""Training from where workers could not import the main module again: standard input, a script without a guard."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import torch
from lightning.pytorch import Trainer
import a3c

print("main runs")

class Net(a3c.MLPActorCritic):
    def __init__(self, observation_space, action_space):
        super().__init__(observation_space, action_space, (8,))

class Mine(a3c.NStep):
    pass

class Steps(torch.optim.SGD):
    pass

for mode in ("async", "hogwild"):
    data = a3c.RolloutDataModule("CartPole-v1", mode=mode, workers=2, envs_per_worker=4, max_env_steps=2000)
    model = a3c.A3C(Net(data.observation_space, data.action_space), Mine(8), lambda params: Steps(params, lr=0.01)
                    if mode == "async" else torch.optim.SGD(params, lr=0.01))
    trainer = Trainer(max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(model, data)
    print(mode, data.progress.env_steps >= 2000, data.mode.exit_codes, data.progress.worker_deaths)
"""


@pytest.mark.parametrize("source", ["stdin", "file"])
def test_a_training_runs_once_and_its_own_classes_reach_the_workers(tmp_path, source):
    file = tmp_path / "unguarded.py"
    file.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-" if source == "stdin" else str(file)],
        input=SCRIPT if source == "stdin" else None,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith(("main", "async", "hogwild"))]
    assert said == ["main runs", "async True [0, 0] 0", "hogwild True [0, 0] 0"]
    assert "Traceback" not in done.stderr
