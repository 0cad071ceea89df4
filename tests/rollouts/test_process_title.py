"""A process shows the command and the variables that it stands for, as far as there is room."""

import subprocess
import sys

CODE = """
import os, sys
from a3c.rollouts.workers.process_title import show_command
show_command(sys.argv[1].split(), {"NAME": "value"})
print(open("/proc/self/cmdline").read().rstrip("\\0").replace("\\0", "|"))
print(open("/proc/self/environ").read().rstrip("\\0").replace("\\0", "|"))
"""


def shown(command):
    done = subprocess.run([sys.executable, "-c", CODE, command], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_another_command_and_other_variables_are_shown():
    assert shown("python train.py --mode=sync") == ["python|train.py|--mode=sync", "NAME=value"]


def test_what_has_no_room_is_cut_and_nothing_behind_it_is_read():
    (command, variables) = shown("long " * 1000)
    assert command.startswith("long|long|")
    assert command.replace("long", "").replace("|", "") in ("", "l", "lo", "lon")
    assert variables == "NAME=value"
