"""Training from where workers could not import the main module again: standard input, a script without its guard,
a notebook's kernel. The notebook of the documents is a part of what is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

DOCS = Path(__file__).parents[2] / "docs"


def shown(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


(NOTEBOOK,) = shown("configuration.md")

SCRIPT = """
import sys
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from lightning.pytorch import Trainer
import a3c
import logging

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
print("main runs")

class Net(a3c.MLPActorCritic):
    def __init__(self, observation_space, action_space):
        super().__init__(observation_space, action_space, (8,))

class Mine(a3c.NStep):
    pass

class Steps(torch.optim.SGD):
    pass

class Pole(CartPoleEnv):
    pass

for mode, env in (("async", Pole), ("hogwild", lambda: Pole())):
    data = a3c.RolloutDataModule(env, mode=mode, workers=2, envs_per_worker=4, max_env_steps=2000)
    model = a3c.A3C(Net(data.observation_space, data.action_space), Mine(8), lambda params: Steps(params, lr=0.01)
                    if mode == "async" else torch.optim.SGD(params, lr=0.01))
    trainer = Trainer(max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(model, data)
    print(mode, data.progress.env_steps >= 2000, data.mode.exit_codes, data.progress.worker_deaths)
"""


@pytest.fixture(params=["stdin", "file", "kernel"])
def run(request):
    """Runs a program as one does from there; returns what it printed to stdout and stderr."""
    return {"stdin": from_stdin, "file": from_file, "kernel": in_a_kernel}[request.param]


def command(tmp_path, *arguments, **kwargs):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def from_stdin(tmp_path, cells):
    return command(tmp_path, "-", input="\n".join(cells))


def from_file(tmp_path, cells):
    (tmp_path / "unguarded.py").write_text("\n".join(cells))
    return command(tmp_path, "unguarded.py")


def in_a_kernel(tmp_path, cells):
    printed = {"stdout": "", "stderr": ""}

    def keep(message):
        if message["header"]["msg_type"] == "stream":
            printed[message["content"]["name"]] += message["content"]["text"]

    manager, client = start_new_kernel(cwd=str(tmp_path), env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        for cell in cells:
            answer = client.execute_interactive(cell, output_hook=keep, timeout=300)["content"]
            assert answer["status"] == "ok", answer
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    return printed["stdout"], printed["stderr"]


def test_a_training_runs_once_and_its_own_classes_reach_the_workers(tmp_path, run):
    cells = [SCRIPT, NOTEBOOK.replace("100_000", "3_000")]
    assert cells[1] != NOTEBOOK
    printed, complaints = run(tmp_path, cells)
    *said, mean = printed.splitlines()
    assert said == ["main runs", "async True [0, 0] 0", "hogwild True [0, 0] 0"]
    assert 8 < float(mean) <= 500
    assert not complaints


def test_the_cells_of_the_page_of_environments_train_one_after_another_in_a_kernel(tmp_path):
    """A class of one's own, another with Dict observations and continuous actions, and one with masks."""
    cells = [cell.replace("50_000", "2_000") for cell in shown("environments.md") if "gymnasium.register(" not in cell]
    quiet = "import logging\nimport lightning.pytorch\nlogging.getLogger('lightning.pytorch').setLevel(logging.WARNING)"
    told, complaints = in_a_kernel(tmp_path, [quiet, *cells])
    hallway, reach, cards = map(float, told.splitlines())
    assert -100 <= hallway <= -6
    assert -60 < reach < 0
    assert 0 <= cards <= 14
    assert complaints == "hallway.ckpt has no digest: damage to it would go unnoticed\n"  # which the Trainer saved
