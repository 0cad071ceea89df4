"""Workers that are Ray's actors: replaced when they die, hang or lose their node; counted; nothing left behind."""

import logging
import os
import pickle
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import TRAIN, Collection, complaints, own_processes, restarts_of, running
from processes import wait_until

from a3c.batch import BatchShape
from a3c.envs.source import EnvError
from a3c.rollouts.dataset import Batching, RolloutDataset
from a3c.rollouts.on_ray.cluster import Cluster
from a3c.rollouts.on_ray.pool import RayPool
from a3c.rollouts.on_ray.weights import SentWeights
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.failures import RestartPolicy, WorkerError
from a3c.training.datamodule import RolloutDataModule

ray = pytest.importorskip("ray", reason="pip install 'a3c[ray]'")
PATIENT = RestartPolicy(timeout=60.0, restart=True, max_restarts=10_000)
IMPATIENT = RestartPolicy(timeout=2.0, restart=True, max_restarts=10_000)
REPLACED = 120.0  # seconds at most: a process starts, and imports torch, beside other tests
ENDED = 120.0  # seconds at most: agents of a Ray that was killed look for it for a minute


class Actors(Collection):
    """A pool of actors over environments that go wrong, wherever they are."""

    def __init__(self, kind="none", *, workers=2, orders=2, num_envs=1, steps=5, policy=PATIENT, seed=0, **arguments):
        super().__init__(kind, workers=workers, num_envs=num_envs, steps=steps, in_parent=True, **arguments)
        self.network = pickle.loads(self.spec.network)
        self.weights = SentWeights(self.network)
        self.spec = replace(self.spec, weights=self.weights, seed=seed)
        shape = BatchShape(steps, num_envs, (2,), torch.float32)
        cluster = Cluster(cores=0.5)
        self.pool = RayPool(self.spec, self.weights, workers, orders, shape, cluster, policy, self.deaths.append)

    def __exit__(self, *_):
        self.pool.close()

    def pids(self):
        """Process ids of the actors."""
        actors = ray.util.state.list_actors(filters=[("state", "=", "ALIVE")])
        return [actor.pid for actor in actors]


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for all pools here, which find it and leave it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()

    def left():  # our own fork server has a folder of Ray's in its command
        of_ray = ("ray::", "raylet", "gcs_server")
        return [
            each for each in own_processes().values() if Path((each.command.split() or [""])[0]).name.startswith(of_ray)
        ]

    wait_until(lambda: not left(), 90, "the end of Ray")


@pytest.mark.usefixtures("local_ray")
def test_actors_collect_what_our_own_workers_would():
    torch.manual_seed(0)
    with Collection(workers=2, num_envs=2, seed=3) as ours:
        ours.until_rollouts(3)
    torch.manual_seed(0)
    with Actors(workers=2, num_envs=2, seed=3) as theirs:
        theirs.until_rollouts(3, seconds=REPLACED)
    for worker in range(2):
        for mine, other in zip(ours.batches[worker][:3], theirs.batches[worker][:3], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


@pytest.mark.usefixtures("local_ray")
def test_orders_carry_the_newest_weights_and_say_their_version():
    with Actors(workers=1, orders=1) as run:
        run.until_rollouts(1)
        with torch.no_grad():
            for parameter in run.network.parameters():
                parameter.fill_(torch.nan)
        run.weights.publish(run.network)
        run.weights.publish(run.network)
        held = next(rollout for _ in range(1000) if (rollout := run.take(release=False)))  # ordered before
        assert held.batch.policy_versions.unique().tolist() == [0]
        held.release()
        newest = next(rollout for _ in range(1000) if (rollout := run.take(release=False)))
        assert newest.batch.policy_versions.unique().tolist() == [2]
        assert newest.batch.behaviour_log_probs.isnan().all()


@pytest.mark.usefixtures("local_ray")
def test_a_reader_who_is_slow_hears_all_workers():
    with Actors(workers=3, orders=1) as run:
        run.until_rollouts(1, seconds=REPLACED)
        before = [len(batches) for batches in run.batches]
        for _ in range(9):
            time.sleep(0.2)  # all of them have a rollout ready
            run.take()
        assert [len(batches) - number for batches, number in zip(run.batches, before, strict=True)] == [3, 3, 3]


@pytest.mark.usefixtures("local_ray")
def test_no_more_is_collected_than_is_read():
    with Actors(workers=1, orders=2) as run:
        held = []
        while len(held) < 2:
            if (rollout := run.take(release=False)) is not None:
                held.append(rollout)
        before = [batch.copy() for batch in (rollout.batch for rollout in held)]
        assert all(run.take(0.2) is None for _ in range(5))
        assert all(torch.equal(a, b) for a, b in zip(before[0], held[0].batch, strict=True))
        held[0].release()
        run.until_rollouts(1)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("kind", ["kill", "exit", "raise", "segfault"])
def test_an_actor_that_dies_is_replaced_with_other_seeds(tmp_path, kind):
    with Actors(kind, at_step=13, once=str(tmp_path / "once")) as run:
        run.until(lambda: run.deaths, REPLACED, "a death")
        (death,) = run.deaths
        run.until_replaced(death.worker, seconds=REPLACED)
        run.until_rollouts(2, seconds=REPLACED)
        assert (len(run.deaths), death.restarted) == (1, True)
        assert run.steps(death.worker, restarts=0) <= 13
        assert all(restarts_of(batch) == 0 for batch in run.batches[1 - death.worker])


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("kind", ["hang", "hang_holding_gil", "stop"])
def test_an_actor_that_hangs_is_killed_and_replaced(tmp_path, kind):
    with Actors(kind, at_step=13, once=str(tmp_path / "once"), policy=IMPATIENT) as run:
        run.until(lambda: run.deaths, REPLACED, "a death")
        run.until_replaced(run.deaths[0].worker, seconds=REPLACED)


@pytest.mark.usefixtures("local_ray")
def test_a_slow_one_is_left_alone():
    with Actors("slow", at_step=0, seconds=0.7, workers=1, policy=IMPATIENT) as run:
        run.until_rollouts(1, seconds=REPLACED)  # each takes longer than may pass between two steps
        assert not run.deaths


@pytest.mark.usefixtures("local_ray")
def test_what_is_raised_in_the_first_set_up_ends_the_run():
    with (
        pytest.raises(WorkerError, match=r"(?s)worker \d failed:.*ZeroDivisionError"),
        Actors("raise_constructor"),
    ):
        pass


@pytest.mark.usefixtures("local_ray")
def test_failures_without_end_end_the_run():
    run = Actors("raise", at_step=2, policy=RestartPolicy(60.0, True, 10, 60.0))
    with run, pytest.raises(WorkerError, match=r"3 times in a row, before anything was handed over: worker"):
        run.until(lambda: False, 3 * REPLACED, "the end")


@pytest.mark.usefixtures("local_ray")
def test_every_env_step_is_trained_dropped_or_in_flight(tmp_path):
    run = Actors("kill", at_step=40, num_envs=2, once=str(tmp_path / "once"))
    progress = Progress()
    updates = RolloutDataset(run.pool, progress, Batching(max_env_steps=1500))
    trained = sum(int(batch.mask.sum()) for batch in updates)
    assert progress.trained == trained
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert len(run.deaths) == 1
    run.pool.close()


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_cores_are_refused():
    run = Actors(workers=9)
    with pytest.raises(WorkerError, match=r"workers: got 9 of 0.5 cores each, must be at most 8"):
        run.pool.start()


def test_what_actors_cannot_do_is_refused():
    with pytest.raises(ValueError, match=r"^pool: got ray in mode sync, must be processes there; take mode async$"):
        RolloutDataModule(mode="sync", pool="ray")
    with pytest.raises(ValueError, match=r"^ray_cores: got 0.0, must be above 0 and finite$"):
        RolloutDataModule(pool="ray", ray_cores=0.0)
    with pytest.raises(ValueError, match=r"^ray_address: got auto with pool processes, must be left out there$"):
        RolloutDataModule(ray_address="auto")
    with pytest.raises(ValueError, match=r"^pool: got ray with wrappers that keep running statistics"):
        RolloutDataModule(pool="ray", normalise_rewards=True)
    with pytest.raises(EnvError):
        RolloutDataModule("None-v0", pool="ray")


def test_without_ray_the_install_line_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^pool: got ray, must be processes: .*pip install 'a3c\[ray\]'$"):
        RolloutDataModule(pool="ray")


# ---------------------------------------------------------------- runs, each with a Ray of its own

RUN = ["--data.pool", "ray", "--data.ray_cores", "0.5", "--data.workers", "2"]


def test_a_run_ends_with_its_budget_and_leaves_nothing(tmp_path):
    with running(tmp_path, *RUN, "--data.max_env_steps", "3000", within=ENDED) as run:
        assert run.wait() == 0, run.errors
    summary = run.summary()
    counted = summary["trained_env_steps"] + summary["dropped_env_steps"] + summary["in_flight_env_steps"]
    assert summary["collected_env_steps"] == counted
    assert summary["worker_deaths"] == 0
    assert complaints(run.errors) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path, number, status):
    with running(tmp_path, *RUN, "--data.max_env_steps", "1000000000", within=ENDED) as run:
        run.wait_for_updates(3)
        run.send(number)
        assert run.wait(60) == status, run.errors
    if number == signal.SIGTERM:
        assert run.checkpoints() == ["last.ckpt"]


def test_an_address_where_nothing_is_fails_in_one_line(tmp_path):
    with running(tmp_path, *RUN, "--data.ray_address", "127.0.0.1:1", within=ENDED) as run:
        assert run.wait(120) == 1
    assert "error: ray_address: got 127.0.0.1:1, must be that of a cluster: " in run.errors
    assert "Traceback" not in run.errors


def test_a_node_that_is_lost_costs_no_run(tmp_path):
    """Two nodes of a simulated cluster, one of which is killed in the middle of a run."""
    script = tmp_path / "two_nodes.py"
    script.write_text(f"import sys\nsys.path.append({str(TRAIN.parent)!r})\n{CLUSTER}")
    folder = tmp_path / "in"
    folder.mkdir()
    arguments = ["--data.pool", "ray", "--data.workers", "4", "--data.max_env_steps", "40000", *KILLED]
    with running(folder, *arguments, script=script, fresh=True, within=ENDED) as run:
        assert run.wait() == 0, run.errors
    summary = run.summary()
    assert summary["worker_deaths"] >= 2  # those of the node
    assert summary["env_steps"] >= 40000


KILLED = ["--data.ray_cores", "0.5"]
CLUSTER = """
import os, sys, threading, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray.cluster_utils import Cluster

if __name__ == "__main__":
    from train import main
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    other = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    sys.argv += ["--data.ray_address", cluster.address]

    def kill():
        while not os.path.exists("run/metrics.csv") or sum(1 for _ in open("run/metrics.csv")) < 6:
            time.sleep(0.1)
        cluster.remove_node(other, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    status = main()
    killer.join()
    cluster.shutdown()
    sys.exit(status)
"""
