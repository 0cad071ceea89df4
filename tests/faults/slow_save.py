"""The training program, in which every save after the first one takes a minute: ``slow_save.py FLAGS``."""

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    from a3c.rollouts.workers.fork_server import start_fork_server
    from a3c.runs import checkpoints
    from a3c.training.cli.command import main

    start_fork_server()
    real, saves = checkpoints._write, 0

    def slow(*args):
        global saves
        saves += 1
        real(*args)
        time.sleep(60 if saves > 1 else 0)

    checkpoints._write = slow
    sys.exit(main(Path(__file__).parent.parent.parent / "configs" / "cartpole.yaml"))
