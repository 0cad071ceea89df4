"""Compares return estimators on equal budgets: ``python scripts/compare.py --help`` lists the flags."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Keeps this process to one core: the runs need the others."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from a3c.comparison.command import main as compare

    return compare(sys.argv[1:], HERE / "train.py", HERE.parent / "configs" / "cartpole.yaml")


if __name__ == "__main__":
    sys.exit(main())
