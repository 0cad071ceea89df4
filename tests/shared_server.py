"""The one server of this test process, from which whole programs are forked: a fresh command imports for seconds."""

import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from a3c.comparison.programs import Program
from a3c.comparison.run_server import RunServer

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT, *(ROOT / "tests" / name for name in ("", "faults", "comparison"))]
PATHS = os.pathsep.join(map(str, FOLDERS))


@cache
def shared_server():
    """Return the server; it ends with this process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return RunServer({**kept, "PYTHONPATH": PATHS, "PYTHONFAULTHANDLER": ""})


class ForkedScript:
    """A script that is forked, with what tests use of ``subprocess.Popen(..., text=True)``.

    Args:
        command: Python, the script's file and its arguments.
        cwd: the folder in which it runs.
        env: its environment variables.
    """

    def __init__(self, command, cwd, env):
        self._folder = tempfile.TemporaryDirectory()
        self._output, self._errors = (Path(self._folder.name, name) for name in ("output", "errors"))
        program = Program([str(word) for word in command], dict(env), Path(cwd), self._output, self._errors)
        self._process = shared_server().start(program)
        self.pid, self.poll, self.wait = self._process.pid, self._process.poll, self._process.wait
        self.send_signal = self._process.send_signal

    @property
    def returncode(self):
        return self._process.returncode

    @property
    def output(self):
        """What it has printed so far."""
        return self._output.read_text() if self._output.exists() else ""

    def kill(self):
        self.send_signal(9)

    def communicate(self, timeout=None):
        """Waits for its end, and returns what it has printed and its errors; may be called once."""
        self.wait(timeout)
        with self._folder:
            return self._output.read_text(), self._errors.read_text()


def run_script(command, cwd, env, timeout=300):
    """Runs a script to its end, as ``subprocess.run(..., capture_output=True, text=True)`` does."""
    process = ForkedScript(command, cwd, env)
    try:
        output, errors = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
