"""What every script does first, before anything heavy is imported."""

from __future__ import annotations

import io
import locale
import os
import sys

from a3c.rollouts.workers.fork_server import THREAD_VARIABLES


def prepare_process() -> None:
    """Keep this process to one core, and its text from failing at what a terminal or a locale cannot show.

    What a terminal cannot show becomes a question mark. Where the locale says another encoding than UTF-8,
    the script starts once more with files in UTF-8: configs, and files of libraries, are written so.
    """
    if not sys.flags.utf8_mode and locale.getpreferredencoding(False).lower().replace("-", "") != "utf8":
        streams = {"PYTHONIOENCODING": f"{sys.stdout.encoding}:replace"}
        os.execve(sys.executable, sys.orig_argv, {**streams, **os.environ, "PYTHONUTF8": "1"})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
