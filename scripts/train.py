"""Trains an agent: ``python scripts/train.py --help`` lists the flags, the README explains them."""

import os
import signal
import sys
from pathlib import Path

from a3c.training.cli.entry import prepare_process

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "cartpole.yaml"


def main() -> int:
    """Starts the fork server first: it imports torch while this process imports Lightning."""
    # An import may swallow a KeyboardInterrupt and go on. Nothing is lost by leaving at once: all that
    # runs yet is the fork server, which ends with this process. The run sets handlers of its own.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    prepare_process()
    from a3c.rollouts.workers.fork_server import start_fork_server

    start_fork_server()
    from a3c.training.cli.command import main as train

    status = train(DEFAULT_CONFIG)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # a scheduler's, too late to mean anything
        signal.signal(number, signal.SIG_IGN)
    return status


if __name__ == "__main__":  # workers import this file again: nothing heavy may stand above
    sys.exit(main())
