"""Tasks for worker processes: this module is imported there, so it imports nothing heavy."""

import multiprocessing
import os
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


class AnnounceLate:
    """Takes its time for each slot, without a sign of life meanwhile."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, context):
        from a3c.rollouts.collector import Fragment

        context.ready()
        while (slot := context.next_slot()) is not None:
            context.heartbeat.begin(slot)
            time.sleep(self.seconds)
            context.announce(slot, Fragment(1, [], False))
            context.heartbeat.end()


def die_twice(context):
    """Dies in the middle of a fragment; the next one before its first; the third one stays."""
    context.ready()
    slot = context.next_slot()
    if context.life.restarts == 0:
        context.heartbeat.begin(slot)
        context.slots[slot].mask[0] = True
        context.heartbeat.step(3)
    if context.life.restarts < 2:
        os._exit(7)
    context.next_slot()


def report_child(context):
    """Has a process of its own, and reports how that ended."""
    context.ready()
    child = multiprocessing.get_context("fork").Process(target=os._exit, args=(7,))
    child.start()
    child.join()
    context.report(child.exitcode, True)
