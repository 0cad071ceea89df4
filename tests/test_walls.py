"""Who may import whom: a rule about folders, read from the code itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from a3c.rollouts.workers.fork_server import PRELOADED

PACKAGE = Path(__file__).parent.parent / "a3c"
HEAVY = {"lightning", "wandb", "matplotlib", "rich"}
# Folders by floor: nothing imports from a higher one, and what a worker may import lies in the first five.
FLOORS = {
    "batch": 0,
    "peers": 0,
    "envs": 1,
    "networks": 1,
    "returns": 1,
    "testing": 2,
    "rollouts": 2,
    "learner": 3,
    "runs": 2,
    "evaluation": 3,
    "training": 4,
    "comparison": 5,
}
OF_WORKERS = ("batch", "peers", "envs", "networks", "returns", "rollouts", "learner")


def imports(path):
    """Names of all modules that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["a3c", *path.relative_to(PACKAGE).with_suffix("").parts]
        yield ".".join(part for part in parts if part != "__init__"), imports(path)


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def tops(names):
    return {name.split(".")[0] for name in names}


def test_at_the_root_stand_the_contract_and_the_rooms_alone():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__pycache__"}
    assert there == {"__init__", *FLOORS}


@pytest.mark.parametrize(
    ("module", "found"), list(modules()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_nothing_is_imported_from_a_higher_floor(module, found):
    ours = {room_of(name) for name in found if name.startswith("a3c.")} & FLOORS.keys()
    higher = {room for room in ours if module != "a3c" and FLOORS[room] > FLOORS[room_of(module)]}
    assert not higher


def test_no_room_imports_another_in_a_circle():
    edges = {}
    for module, found in modules():
        others = {room_of(name) for name in found if name.startswith("a3c.")} & FLOORS.keys()
        edges.setdefault(room_of(module), set()).update(others - {room_of(module)})
    edges.pop("")
    while edges:
        free = [room for room, others in edges.items() if not others & edges.keys()]
        assert free, f"a circle among {sorted(edges)}"
        for room in free:
            del edges[room]


@pytest.mark.parametrize("room", ["a3c.batch", "a3c.returns", "a3c.learner.losses"])
def test_the_mathematics_imports_only_torch(room):
    for module, found in modules():
        if (module == room or module.startswith(f"{room}.")) and module != "a3c.returns.labels":
            assert tops(found) - set(sys.stdlib_module_names) <= {"torch", "a3c"}, module
            assert {room_of(name) for name in found if name.startswith("a3c.")} <= {"batch", "returns"}, module


def test_what_workers_may_import_sees_neither_lightning_nor_wandb():
    for module, found in modules():
        if room_of(module) in OF_WORKERS:
            assert not tops(found) & HEAVY, module


def test_the_checks_of_a_users_classes_know_the_contract_alone_and_nobody_knows_them():
    for module, found in modules():
        rooms = {room_of(name) for name in found if name.startswith("a3c.")}
        if room_of(module) == "testing":
            assert rooms <= {"batch", "returns", "testing"}, module
            assert tops(found) - set(sys.stdlib_module_names) <= {"torch", "cloudpickle", "a3c"}, module
        else:
            assert "testing" not in rooms, module


def test_only_statistics_see_scipy():
    for module, found in modules():
        if module in ("a3c.comparison.statistics", "a3c.evaluation.scores"):
            assert "scipy" in tops(found)
        else:
            assert "scipy" not in tops(found), module


def test_a_comparison_reads_its_runs_without_lightning_or_wandb():
    code = "import sys, a3c.comparison.command; print(*(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"lightning", "wandb", "matplotlib"}


def test_the_learner_knows_no_gymnasium():
    assert not tops(dict(modules())["a3c.training.module"]) & {"gymnasium"}


def test_what_a_worker_imports_is_light():
    code = f"import sys, a3c, {', '.join(PRELOADED)}; print(*(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert "gymnasium" in loaded
    assert not set(loaded) & (HEAVY | {"pytorch_lightning", "torchmetrics", "jsonargparse"})


def test_the_fork_server_can_be_started_before_torch_is_imported():
    code = "import sys, a3c.rollouts.workers.fork_server; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "False"


def test_every_public_name_can_be_imported():
    import a3c

    for name in a3c.__all__:
        assert getattr(a3c, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'NStepp'"):
        a3c.NStepp  # noqa: B018
