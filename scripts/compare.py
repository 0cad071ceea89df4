"""Compares return estimators on equal budgets: ``python scripts/compare.py --help`` lists the flags."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Keeps this process to one core: the runs need the others."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from a3c.comparison.run_server import RunServer

    runs_nothing = any(word.partition("=")[0] in ("--from", "--isolated", "--help", "-h") for word in sys.argv[1:])
    server = None if runs_nothing else RunServer()  # it imports what runs need while this process does the same
    from a3c.comparison.command import main as compare

    try:
        return compare(sys.argv[1:], HERE / "train.py", HERE.parent / "configs" / "cartpole.yaml", server)
    finally:
        if server is not None:
            server.close()


if __name__ == "__main__":
    sys.exit(main())
