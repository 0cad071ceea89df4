"""Starts the process that workers are forked from; imports nothing heavy, so it can come first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, util
from typing import Any

from a3c.rollouts.workers.process_title import show_command
from a3c.rollouts.workers.server_lifetime import PARENT_VARIABLE, SAFE_PATH, guard

# The last one takes a second, and every optimizer imports it in its first step: too late in a worker that learns.
PRELOADED = [
    "a3c.rollouts.workers.server_lifetime",
    "a3c.rollouts.workers.process",
    "a3c.networks",
    "a3c.learner.hogwild.actor_learner",
    "torch._dynamo",
]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LONGEST_FOLDER = 80  # characters, of a socket's address that may have 107


def start_fork_server() -> None:
    """Start the fork server if it does not run yet, and do not wait for it.

    It imports torch, gymnasium and the worker once, so that a worker starts in a fraction of a
    second. A server, since to fork the learner would copy its threads' locks in whatever state
    they are, and its signal handlers. Called before this process imports torch, the two imports
    run side by side.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    # One thread a worker, and the variables must stand before torch is imported there.
    # Nor may it look for its modules in the current folder first, where a user's own may be called like one.
    missing = [name for name in (*THREAD_VARIABLES, SAFE_PATH) if name not in os.environ]
    os.environ.update(dict.fromkeys(missing, "1"))
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread:  # the kernel ends the server with the *thread* that started it
        os.environ[PARENT_VARIABLE] = str(os.getpid())
    # Ignored signals stay ignored in a child: Ctrl-C, which reaches the whole group, leaves the server alone.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main_thread else None
    try:
        with _short_addresses():
            forkserver.ensure_running()
    finally:
        if main_thread:
            signal.signal(signal.SIGINT, handler)
        for name in (*missing, PARENT_VARIABLE):
            os.environ.pop(name, None)


@contextmanager
def _short_addresses() -> Iterator[None]:
    """Reach this process's own temporary folder by a number, where its path is too long for a socket's address.

    The number stays open as long as this process asks for workers. Only here: children inherit the path.
    """
    folder = util.get_temp_dir()
    if len(folder) < LONGEST_FOLDER:
        yield
        return
    config: Any = multiprocessing.current_process()
    config._config["tempdir"] = f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"
    try:
        yield
    finally:
        config._config["tempdir"] = folder


def fork_fork_server() -> None:
    """Fork the fork server from this process, which has imported what workers need and has no threads.

    `start_fork_server` then finds it running. It ends with this process, as one that was started does;
    should it end before, the next call of `start_fork_server` starts a fresh one.
    """
    server: Any = forkserver._forkserver
    listener = socket.socket(socket.AF_UNIX)
    with _short_addresses():
        address = f"{util.get_temp_dir()}/listener"
        listener.bind(address)
    listener.listen()
    alive, held = os.pipe()  # the server ends when nobody holds the second end any more
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            guard(parent)
            os.close(held)
            show_command([sys.executable, "-c", "from multiprocessing.forkserver import main"])
            forkserver.main(listener.detach(), alive, [])
        finally:
            os._exit(0)
    listener.close()
    os.close(alive)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, held, pid
