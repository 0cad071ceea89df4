"""A W&B run folder, as W&B's own reader finds it."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from shared_server import run_script

COMMAND = [sys.executable, str(Path(find_spec("wandb").origin).with_name("__main__.py"))]


def records_of(record):
    """Return all records of a run's folder, as `wandb leet inspect` tells them."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = run_script([*COMMAND, "leet", "inspect", "--json", str(record)], Path(record).parent, kept)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
