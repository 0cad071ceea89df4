"""Compares return estimators on equal budgets: ``python scripts/compare.py --help`` lists the flags."""

import sys
from pathlib import Path

from a3c.training.cli.entry import prepare_process

HERE = Path(__file__).resolve().parent
OTHERWISE = ("--from", "--isolated", "--on", "--help", "-h")  # flags with which no run is forked


def main() -> int:
    """Compares; gives the exit status."""
    prepare_process()  # among other things, this process is kept to one core: the runs need the others
    from a3c.comparison.run_server import RunServer

    forks_nothing = any(word.partition("=")[0] in OTHERWISE for word in sys.argv[1:])
    server = None if forks_nothing else RunServer()  # it imports what runs need while this process does the same
    from a3c.comparison.command import main as compare

    try:
        return compare(sys.argv[1:], HERE / "train.py", HERE.parent / "configs" / "cartpole.yaml", server)
    finally:
        if server is not None:
            server.close()


if __name__ == "__main__":
    sys.exit(main())
