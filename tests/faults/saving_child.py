"""Forks a process that saves checkpoint after checkpoint, for every number that it reads: ``saving_child.py FOLDER``.

Says the process's id, then the number of each checkpoint once it is saved, then "gone" after its end.
"""

import itertools
import os
import sys
from pathlib import Path

import torch

from a3c.runs.checkpoints import LAST, save

folder = Path(sys.argv[1])
for line in sys.stdin:
    pid = os.fork()  # torch is imported once, not fifty times
    if pid == 0:
        for number in itertools.count(int(line)):
            save({"number": number, "weights": torch.full((50_000,), float(number))}, folder / LAST)
            os.write(1, f"{number}\n".encode())
    os.write(1, f"pid {pid}\n".encode())
    os.waitpid(pid, 0)
    os.write(1, b"gone\n")
