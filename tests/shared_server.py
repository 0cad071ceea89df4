"""The one server of this test process, from which whole programs are forked."""

import os
from functools import cache
from pathlib import Path

from a3c.comparison.run_server import RunServer

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT, *(ROOT / "tests" / name for name in ("", "faults", "comparison"))]
PATHS = os.pathsep.join(map(str, FOLDERS))


@cache
def shared_server():
    """Return the server; it ends with this process."""
    return RunServer({**os.environ, "PYTHONPATH": PATHS, "PYTHONFAULTHANDLER": ""})
