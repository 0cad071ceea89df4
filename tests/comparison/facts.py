"""Writes down what a program sees of itself; waits, crashes or fails as its arguments say."""

import gc
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch


def facts():
    """Everything that a fresh command and a forked one must have in common."""
    return {
        "argv": sys.argv,
        "words": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")[1:],
        "variables": sorted(Path("/proc/self/environ").read_bytes().rstrip(b"\0").decode().split("\0")),
        "environ": sorted(f"{name}={value}" for name, value in os.environ.items()),
        "path": sys.path[0],
        "folder": os.getcwd(),
        "leads": (os.getsid(0), os.getpgid(0)) == (os.getpid(), os.getpid()),
        "stdin": os.readlink("/proc/self/fd/0"),
        "files": sorted(os.readlink(f"/proc/self/fd/{number}") for number in (1, 2)),
        "main": [__name__, __file__, sys.modules["__main__"].__file__],
        "temporary": tempfile.gettempdir(),
        "parent": multiprocessing.parent_process() is None,
        "children": multiprocessing.active_children(),
        "handlers": [str(signal.getsignal(number)) for number in signal.Signals],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "threads": len(threading.enumerate()),
        "loggers": [str(handler) for handler in logging.getLogger().handlers],
        "filters": len([entry for entry in warnings.filters if entry[0] == "error"]),
        "collects": gc.isenabled(),
        "terminals": [stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "buffers": [stream.line_buffering for stream in (sys.stdout, sys.stderr)],
    }


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "facts":
        print(json.dumps(facts()))
    elif what == "draw":
        print(random.random(), np.random.rand(), float(torch.rand(())))
    elif what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "raise":
        raise ValueError("it went wrong")
    elif what == "wait":
        Path(sys.argv[2]).touch()
        time.sleep(60)
