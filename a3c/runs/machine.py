"""What figures were measured with, for those who read them later."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import a3c

PACKAGES = ("torch", "gymnasium", "numpy")


def cpu_model() -> str:
    """Return the processor's name, or its architecture where the system does not tell."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_in_words() -> str:
    """Return processor, cores, system and versions in a phrase."""
    # A checkout may be used without being installed, so its own version is not asked of the installer.
    versions = ", ".join([f"a3c {a3c.__version__}", *(f"{name} {version(name)}" for name in PACKAGES)])
    return f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, {versions}"
