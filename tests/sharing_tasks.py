"""What other processes do with shared memory: this module is imported there, so it imports nothing heavy."""

import contextlib
import multiprocessing

from a3c.rollouts.workers.fork_server import start_fork_server


@contextlib.contextmanager
def processes(target, arguments):
    """Runs the target once for each tuple of arguments; waits at the end for all to end well."""
    start_fork_server()
    context = multiprocessing.get_context("forkserver")
    children = [context.Process(target=target, args=each, daemon=True) for each in arguments]
    try:
        for child in children:
            child.start()
        yield
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * len(children)
    finally:
        for child in children:
            child.kill()
            child.join()


def count(tally, worker, times):
    tally.add(worker, collected=1)  # here, and waiting for the others
    tally.wait_for_release(lambda: False)
    for _ in range(times):
        tally.add(worker, updates=1, trained=4)
        tally.add(worker, dropped=3)


def step_until_told(tally, worker, stop):
    tally.add(worker, collected=1)
    while tally.enter_step(worker, lambda: bool(stop[0])) and not stop[0]:
        tally.add(worker, updates=1, trained=4)
        tally.leave_step(worker)
    tally.leave_step(worker)


def fill(block, values):
    for name, value in values.items():
        block.views[name].fill_(value)


def fill_weights(weights, tally, value):
    for tensor in [*weights.parameters, *weights.buffers]:
        tensor.fill_(value)
    tally.add(0, updates=1, trained=1)


def step_with_gradient(optimizer, weights, value):
    import torch

    for parameter in weights.parameters:
        parameter.grad = torch.full_like(parameter, value)
    optimizer.attach(weights.parameters).step()
