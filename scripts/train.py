"""Trains an agent: ``python scripts/train.py --help`` lists the flags, the README explains them."""

import os
import sys
from pathlib import Path

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "cartpole.yaml"


def main() -> int:
    """Starts the fork server first: it imports torch while this process imports Lightning."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # learner and workers each keep to one core
    from a3c.rollouts.forkserver import start_fork_server

    start_fork_server()
    from a3c.cli import main as train

    return train(DEFAULT_CONFIG)


if __name__ == "__main__":  # workers import this file again: nothing heavy may stand above
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still importing
        sys.exit(130)
