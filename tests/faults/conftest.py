"""After every test: no process of it, no name in /dev/shm and no open file is left."""

import gc
import os
from collections import Counter
from contextlib import suppress

import pytest
from harness import assert_no_new_names, own_processes
from processes import shared_names, wait_until

from a3c.rollouts.workers.fork_server import start_fork_server

OURS = ("/dev/shm/", "anon_inode:[pidfd]", "pipe:")  # W&B's service and fonts, once opened, stay


def open_files(folder):
    """Names of open shared memory, handles on processes, pipes, and files of a folder, and how often each is open."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return Counter(name for name in names if name.startswith((*OURS, f"{folder}/")))


@pytest.fixture(autouse=True)
def nothing_is_left(request, caplog, tmp_path):
    start_fork_server()  # it stays, and so do its descriptors
    processes, names, files = own_processes(), shared_names(), open_files(tmp_path)

    def left():
        new = [process for pid, process in own_processes().items() if pid not in processes]
        if "local_ray" in request.fixturenames:  # it keeps processes at hand, until its own end
            new = [process for process in new if "ray" not in process.command]
        return [process for process in new if process.parent != os.getpid()]  # that would be a new fork server

    yield
    wait_until(lambda: not left(), 3, f"an end of {left()}")
    assert_no_new_names(names)
    caplog.get_records("call").clear()  # an error among them holds its frames, and so all that they held
    more = open_files(tmp_path) - files
    if more:
        gc.collect()  # rollouts that nobody holds any more keep their memory open until then
        more = open_files(tmp_path) - files
    if {"whole_runs", "local_ray"} & set(request.fixturenames):  # which keep shared memory for later tests
        return
    # A new fork server, where a test has killed the old one, has a pipe of its own.
    assert not [name for name in more if not name.startswith("pipe:")], f"left open: {more}"
    assert len(more) <= 1, f"left open: {more}"
