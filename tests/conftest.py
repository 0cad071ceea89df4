"""One thread a process, W&B offline and quiet, and no process left behind by any test."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import logging
import multiprocessing
import signal
import sys
import warnings

import pytest
import torch

# A shell that starts this in the background has it ignored, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
for logger in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(logger).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


@pytest.fixture(autouse=True)
def no_worker_left():
    """Every test cleans up after itself."""
    yield
    left = multiprocessing.active_children()
    assert not left, f"left behind: {left}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder in which the command line is typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path
