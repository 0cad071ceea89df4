"""Runs scripts/train.py, of whose arguments the first one is how many files it may have open."""

import resource
import runpy
import sys
from pathlib import Path

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"

if __name__ == "__main__":
    most = int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.argv[0] = str(TRAIN)
    runpy.run_path(str(TRAIN), run_name="__main__")
