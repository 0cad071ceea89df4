"""After every test: no process of it, no name in /dev/shm and no open file is left."""

import gc
import os

import pytest
from harness import assert_no_new_names, own_processes
from processes import shared_names, wait_until

from a3c.rollouts.forkserver import start_fork_server


def open_files():
    """Open descriptors of this process, less the one that counts them."""
    gc.collect()  # rollouts that nobody holds any more keep their memory open until then
    return len(os.listdir("/proc/self/fd")) - 1


@pytest.fixture(autouse=True)
def nothing_is_left():
    start_fork_server()  # it stays, and so do its two descriptors
    processes, names, files = own_processes(), shared_names(), open_files()

    def left():
        new = [process for pid, process in own_processes().items() if pid not in processes]
        return [process for process in new if process.parent != os.getpid()]  # that would be a new fork server

    yield
    wait_until(lambda: not left(), 3, f"an end of {left()}")
    assert_no_new_names(names)
    assert open_files() <= files, f"{files} files were open before"
