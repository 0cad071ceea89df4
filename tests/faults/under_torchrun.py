"""Runs scripts/train.py as torchrun does: two processes of it, which know of each other by environment variables."""

import sys
from pathlib import Path

from torch.distributed.run import main

if __name__ == "__main__":
    train = Path(__file__).parent.parent.parent / "scripts" / "train.py"
    main(["--nproc_per_node", "2", "--standalone", str(train), *sys.argv[1:]])
