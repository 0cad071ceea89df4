"""Who may import whom: the rooms of the house, read from the code itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from a3c.rollouts.forkserver import PRELOADED

PACKAGE = Path(__file__).parent.parent / "a3c"
HEAVY = {"lightning", "wandb", "matplotlib", "rich"}
LEARNING = {"a3c.returns", "a3c.losses", "a3c.objective"}
# Rooms that may see Lightning or what is built on it; no worker imports any of them.
MAIN_PROCESS = {
    "a3c.module",
    "a3c.cli",
    "a3c.training_run",
    "a3c.extras",
    "a3c.last_words",
    "a3c.loggers",
    "a3c.tracking",
    "a3c.wandb_service",
    "a3c.plots",
    "a3c.agent",
    "a3c.beliefs",
    "a3c.usage",
    "a3c.screening",
    "a3c.rollouts.datamodule",
}


def imports(path):
    """Names of all modules that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["a3c", *path.relative_to(PACKAGE).with_suffix("").parts]
        yield ".".join(part for part in parts if part != "__init__"), imports(path)


def tops(names):
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("room", "allowed"), [("a3c.batch", set()), ("a3c.returns", {"a3c.batch"}), ("a3c.losses", set())]
)
def test_the_mathematics_imports_only_torch(room, allowed):
    found = dict(rooms())[room]
    assert tops(found) - set(sys.stdlib_module_names) <= {"torch"} | tops(allowed)
    ours = {name for name in found if name.startswith("a3c.")}
    assert all(any(name.startswith(one) for one in allowed) for name in ours)


def test_collection_knows_nothing_of_learning():
    for room, found in rooms():
        if room.startswith("a3c.rollouts"):
            assert not found & LEARNING, room


def test_only_the_rooms_of_the_main_process_see_lightning_or_wandb():
    for room, found in rooms():
        if room not in MAIN_PROCESS and not room.startswith(("a3c.callbacks", "a3c.comparison")):
            assert not tops(found) & HEAVY, room


def test_only_its_own_rooms_see_a_comparison_and_only_statistics_see_scipy():
    for room, found in rooms():
        if not room.startswith("a3c.comparison"):
            assert not any(name.startswith("a3c.comparison") for name in found), room
        if room not in ("a3c.comparison.statistics", "a3c.scores"):
            assert "scipy" not in tops(found), room
        else:
            assert "scipy" in tops(found)


def test_a_comparison_reads_its_runs_without_lightning_or_wandb():
    code = "import sys, a3c.comparison.command; print(*(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"lightning", "wandb", "matplotlib"}


def test_the_learner_knows_no_gymnasium():
    assert not tops(dict(rooms())["a3c.module"]) & {"gymnasium"}


def test_only_the_command_line_sees_the_command_line():
    for room, found in rooms():
        if room not in ("a3c.cli", "a3c.training_run"):
            assert not {"a3c.cli", "a3c.training_run"} & found, room


def test_what_a_worker_imports_is_light():
    code = f"import sys, a3c, {', '.join(PRELOADED)}; print(*(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert "gymnasium" in loaded
    assert not set(loaded) & (HEAVY | {"pytorch_lightning", "torchmetrics", "jsonargparse"})


def test_the_fork_server_can_be_started_before_torch_is_imported():
    code = "import sys, a3c.rollouts.forkserver; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "False"


def test_every_public_name_can_be_imported():
    import a3c

    for name in a3c.__all__:
        assert getattr(a3c, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'NStepp'"):
        a3c.NStepp  # noqa: B018
