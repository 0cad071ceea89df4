"""Row 37: too little shared memory, too few file descriptors, too little memory: said before the start."""

import os
import re
import resource
import sys
from pathlib import Path

import pytest
import torch
from helpers import fit, make_network, make_spec
from shared_server import run_script

from a3c import A3C, FullEpisode, MLPActorCritic, NStep, RolloutDataModule
from a3c.batch import BatchShape
from a3c.learner.hogwild.shared_optimizer import SharedOptimizer
from a3c.rollouts.weights import SharedWeights
from a3c.rollouts.workers import resources as preflight
from a3c.rollouts.workers.fork_server import start_fork_server
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask
from a3c.rollouts.workers.resources import Demand, Limits, check
from a3c.rollouts.workers.shared_memory import SharedBlock
from a3c.training.cli.command import main

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs" / "cartpole.yaml"
PLENTY = {
    "shared_memory": 10**9,
    "memory": 10**10,
    "open_descriptors": 10,
    "descriptors": 1024,
    "most_descriptors": 1024,
}
SMALL = {
    "workers": 4,
    "envs_per_worker": 8,
    "rollouts_per_update": 1,
    "slot_steps": 32,
    "steps": 500,
    "inject_lag": 0,
    "mode": "async",
    "slots": 4000,
    "learned": 500,
    "rollouts": 1000,
    "delayed": 0,
}


def limits(**others):
    return Limits(**{**PLENTY, **others})


def demand(**others):
    return Demand(**{**SMALL, **others})


def test_row_37_what_just_fits_is_allowed():
    check(demand(), limits(shared_memory=4500, memory=5500 + 4 * preflight.WORKER_BYTES, descriptors=10 + 32 + 4 * 6))


@pytest.mark.parametrize(
    ("asked", "there", "message"),
    [
        (
            {},
            {"shared_memory": 4499},
            r"workers: got 4, whose rollouts take 4,500 bytes of shared memory, and 4,499 are free in /dev/shm; "
            r"must be fewer",
        ),
        (
            {},
            {"shared_memory": 1499},
            r"envs_per_worker: got 8, whose rollouts of 32 steps take 4,500 bytes of shared memory, and 1,499 are free "
            r"in /dev/shm; must be fewer, or shorter ones",
        ),
        (
            {"rollouts_per_update": 9},
            {"shared_memory": 1499},
            r"rollouts_per_update: got 9, whose rollouts of 32 steps take 4,500 bytes of shared memory, .*",
        ),
        (
            {"mode": "hogwild", "slots": 0},
            {"shared_memory": 499},
            r"mode: got hogwild, whose weights and optimizer statistics take 500 bytes of shared memory, and 499 .*",
        ),
        (
            {},
            {"memory": 5499 + 4 * 100 * 2**20},
            r"workers: got 4, which takes 419,430,400 of 419,435,900 bytes of memory in all, and 419,435,899 are "
            r"available; must be fewer",
        ),
        (
            {"rollouts": 10**12},
            {},
            r"envs_per_worker: got 8, in rollouts of 500 steps, which takes 1,000,000,004,000 of 1,[\d,]+ bytes of .*",
        ),
        (
            {"delayed": 10**12, "inject_lag": 70},
            {},
            r"inject_lag: got 70, which takes 1,000,000,000,000 of 1,[\d,]+ bytes of memory in all, .*",
        ),
        (
            {},
            {"descriptors": 65, "most_descriptors": 65},
            r"workers: got 4, which take 66 file descriptors, and 65 are allowed \(ulimit -n\); must be fewer",
        ),
        (
            {"workers": 20},  # the fork server needs 36 itself, and began with 35
            {"descriptors": 35, "most_descriptors": 4096},
            r"workers: got 20, which take 162 file descriptors, and 35 are allowed \(ulimit -n\); must be fewer",
        ),
    ],
)
def test_row_37_one_line_says_the_argument_what_is_needed_and_what_there_is(asked, there, message):
    with pytest.raises(ValueError) as caught:
        check(demand(**asked), limits(**there))
    assert re.fullmatch(message, str(caught.value))


def test_row_37_the_limit_of_descriptors_is_raised_where_that_is_enough(monkeypatch, caplog):
    raised = []
    monkeypatch.setattr(preflight, "_raise_descriptors", raised.append)
    check(demand(), limits(descriptors=65, most_descriptors=4096))
    assert raised == [4096]
    assert caplog.messages == ["raised the limit of open files from 65 to 4096: 4 workers take 66"]


def test_row_37_the_systems_limit_is_raised_and_not_the_one_above_it():
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
        preflight._raise_descriptors(soft)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_row_37_without_workers_no_descriptors_are_asked_for():
    check(demand(workers=0), limits(descriptors=11, most_descriptors=11))


def test_row_37_the_limits_of_this_process_are_read():
    here = Limits.here()
    status = os.statvfs("/dev/shm")
    assert 0 < here.shared_memory <= status.f_blocks * status.f_frsize
    assert here.memory > 0
    assert 0 < here.open_descriptors < here.descriptors <= here.most_descriptors
    assert here.descriptors == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_row_37_a_worker_costs_no_more_descriptors_than_are_asked_for():
    start_fork_server()
    before = len(os.listdir("/proc/self/fd"))
    pool = WorkerPool(CollectTask(make_spec()), 6, 2, BatchShape(5, 2, (2,), torch.float32))
    try:
        pool.start()
        while_running = len(os.listdir("/proc/self/fd"))
    finally:
        pool.close()
    # Six workers; what the pool opens once is among the others.
    assert while_running - before <= 6 * preflight.WORKER_DESCRIPTORS + preflight.OTHER_DESCRIPTORS // 2


def shared_numbers(monkeypatch):
    """Sums the bytes of shared memory that are asked for."""
    blocks = []
    make = SharedBlock.__init__

    def counted(self, fields):
        make(self, fields)
        blocks.append(self._bytes.numel())

    monkeypatch.setattr(SharedBlock, "__init__", counted)
    return blocks


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
def test_row_37_the_bytes_of_weights_and_statistics_are_those_that_are_allocated(monkeypatch, optimizer, shared):
    network = make_network()
    model = A3C(network, NStep(8), optimizer=lambda params: optimizer(params, lr=0.01), shared_optimizer=shared)
    modes = [RolloutDataModule(mode=name, workers=3).mode for name in ("hogwild", "async")]
    expected = [mode.demand(model).learned for mode in modes]
    blocks = shared_numbers(monkeypatch)
    weights = SharedWeights(network)
    assert sum(blocks) == expected[1]
    for _ in range(1 if shared else 3):
        SharedOptimizer(model.make_optimizer(network.parameters()), network.parameters())
    assert sum(blocks) == expected[0]
    assert weights.version == 0
    assert not network.actor_head.weight.grad  # the network is as it was


def demand_of(returns, **arguments):
    data = RolloutDataModule(**{"envs_per_worker": 4, **arguments})
    network = MLPActorCritic(data.observation_space, data.action_space, hidden_sizes=(16,))
    return data, data.mode.demand(A3C(network, returns))


def test_row_37_the_bytes_of_slots_are_those_of_the_pool():
    data, asked = demand_of(NStep(8), mode="async", workers=3, rollouts_per_update=2)
    fragment = data.mode.collection.shape(8, 4).nbytes
    assert asked.slots == 3 * 2 * fragment
    assert asked.workers == 3
    assert asked.rollouts == 2 * fragment


def test_row_37_sync_has_no_slots_and_hogwild_as_many_as_an_update_takes():
    data, asked = demand_of(NStep(8), mode="sync", rollouts_per_update=2)
    assert (asked.workers, asked.slots) == (0, 0)
    _, asked = demand_of(NStep(8), mode="hogwild", workers=3)
    assert asked.workers == 3
    assert asked.slots == asked.rollouts == 3 * data.mode.collection.shape(8, 4).nbytes


@pytest.mark.parametrize("returns", [NStep(8), FullEpisode()])
def test_row_37_a_large_injected_lag_is_refused_with_the_bytes_it_holds_back(returns):
    with pytest.raises(ValueError, match=r"^inject_lag: got 1000000000,"):
        fit(returns, mode="sync", inject_lag=10**9)


def test_row_37_rollouts_in_shared_memory_are_no_longer_than_a_fragment():
    _, asked = demand_of(FullEpisode(), mode="async", fragment_steps=4)
    assert (asked.slot_steps, asked.steps) == (4, 500)


def test_row_37_in_a_notebook_the_fit_is_refused_before_a_worker_starts(monkeypatch):
    started = []
    monkeypatch.setattr(WorkerPool, "start", started.append)
    monkeypatch.setattr(preflight, "free_shared_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"^envs_per_worker: got 4, whose rollouts of 8 steps take [\d,]+ bytes"):
        fit(NStep(8), mode="async")
    assert not started


def test_row_37_the_program_ends_with_status_2_one_line_and_no_folder(tmp_path):
    script = str(Path(__file__).with_name("limited.py"))
    command = [sys.executable, script, "40", "--data.workers", "8", "--run_dir", "run"]
    done = run_script(command, tmp_path, environment())
    assert done.returncode == 2, done.stderr
    message = r"data\.workers: got 8, which take \d+ file descriptors, and 40 are allowed \(ulimit -n\); must be fewer"
    assert re.fullmatch(rf"train\.py: error: {message}\n", done.stderr)
    assert not (tmp_path / "run").exists()


def environment():
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**own, "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}


def test_row_37_the_command_line_says_how_many_bytes_are_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert main(CONFIG, ["--data.envs_per_worker", "1000000000", "--run_dir", "run"]) == 2
    message = (
        r"data\.envs_per_worker: got 1000000000, whose rollouts of 32 steps take [\d,]+ bytes of shared memory, and "
        r"[\d,]+ are free in /dev/shm; must be fewer, or shorter ones"
    )
    assert re.fullmatch(rf"train\.py: error: {message}\n", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
