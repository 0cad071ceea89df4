"""Tasks for worker processes: this module is imported there, so it imports nothing heavy."""

import signal
import sys
import time


def sleep_for_ever(context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context.ready()
    time.sleep(3600)


def never_ready(context):
    time.sleep(3600)


def report_imports(context):
    import torch

    found = {"lightning", "wandb", "pytorch_lightning", "matplotlib"} & set(sys.modules)
    context.ready()
    context.next_slot()
    raise AssertionError(f"imported {sorted(found)}, {torch.get_num_threads()} thread")
