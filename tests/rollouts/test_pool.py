import itertools
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import make_spec
from shared_server import run_script
from tasks import AnnounceLate, die_twice, never_ready, report_child, report_imports, sleep_for_ever

from a3c.batch import BatchShape
from a3c.rollouts.workers.failures import RestartPolicy, WorkerError
from a3c.rollouts.workers.handle import WorkerHandle
from a3c.rollouts.workers.heartbeat import Heartbeat
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask, WorkerContext, WorkerPlace

SHAPE = BatchShape(5, 2, (2,), torch.float32)


def make_pool(workers=2, slots=2, task=None, policy=None, on_death=lambda death: None, **spec):
    return WorkerPool(task or CollectTask(make_spec(**spec)), workers, slots, SHAPE, policy, on_death)


@pytest.fixture
def pool():
    pool = make_pool()
    pool.start()
    yield pool
    pool.close()


def get(pool, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rollout = pool.get(0.2)
        if rollout is not None:
            return rollout
    raise AssertionError("no rollout came")


def drain(pool, count):
    rollouts = []
    for _ in range(count):
        rollout = get(pool)
        rollouts.append((rollout.worker, rollout.batch.copy(), list(rollout.episodes)))
        rollout.release()
    return rollouts


def gone(pids, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        time.sleep(0.02)
    return False


def test_every_worker_contributes_and_its_stream_is_unbroken(pool):
    rollouts = drain(pool, 40)
    assert {worker for worker, _, _ in rollouts} == {0, 1}
    for worker in (0, 1):
        batches = [batch for number, batch, _ in rollouts if number == worker]
        assert [batch.segment_ids[0].item() for batch in batches] == list(range(len(batches)))
        assert batches[0].env_ids.tolist() == [2 * worker, 2 * worker + 1]
        for before, after in itertools.pairwise(batches):
            ended = before.terminated[-1].all()
            assert ended or torch.equal(before.observations[-1], after.observations[0])


def test_workers_act_differently(pool):
    first = {}
    for worker, batch, _ in drain(pool, 40):
        first.setdefault(worker, batch.actions)
    assert not torch.equal(first[0], first[1])


def test_ctrl_c_is_the_parents_affair(pool):
    for pid in pool.pids:
        os.kill(pid, signal.SIGINT)
    drain(pool, 20)


def test_a_raised_stop_flag_goes_before_slots_that_are_still_in_the_pipe():
    ours, theirs = multiprocessing.Pipe()
    ours.send(0)
    place = WorkerPlace(0, 0, None, Heartbeat.allocate(1)[0], torch.ones(1, dtype=torch.bool), theirs, theirs)
    context = WorkerContext(place)
    assert context.next_slot() is None


ORPHANS = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tasks import sleep_for_ever
from test_pool import make_pool

if __name__ == "__main__":
    pool = make_pool(task=sleep_for_ever)
    pool.start()
    print(*pool.pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    done = run_script([sys.executable, script, Path(__file__).parent], tmp_path, os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert gone(pids)


def test_a_slot_that_is_held_is_not_written():
    pool = make_pool(workers=1, slots=2)
    pool.start()
    try:
        held = get(pool)
        before = held.batch.copy()
        drain(pool, 10)
        assert all(torch.equal(a, b) for a, b in zip(before, held.batch, strict=True))
        held.release()
        drain(pool, 4)
        assert not torch.equal(before.observations, held.batch.observations)
    finally:
        pool.close()


def test_a_learner_that_holds_all_slots_stops_the_workers_without_loss():
    pool = make_pool(workers=1, slots=2)
    pool.start()
    try:
        held = [get(pool), get(pool)]
        assert pool.get(0.3) is None
        for rollout in held:
            rollout.release()
        assert get(pool).batch.segment_ids[0].item() == 2
    finally:
        pool.close()


def test_close_leaves_no_process_and_can_be_called_twice():
    pool = make_pool()
    pool.start()
    pids = pool.pids
    assert len(pids) == 2
    get(pool)
    pool.close()
    pool.close()
    assert gone(pids)


def test_a_killed_worker_ends_the_run_with_the_name_of_its_signal(pool):
    get(pool)
    os.kill(pool.pids[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match="worker 1 was killed by SIGKILL"):
        drain(pool, 1000)


def test_an_exception_in_an_environment_arrives_with_its_traceback():
    pool = make_pool(env="scripted_envs:Broken-v0", env_kwargs={"kind": "raise", "at_step": 13})
    pool.start()
    try:
        with pytest.raises(WorkerError, match=r"(?s)Traceback.*in step.*ZeroDivisionError: the pole went through"):
            drain(pool, 1000)
    finally:
        pool.close()


def test_an_environment_that_cannot_be_made_fails_the_start_and_leaves_nothing():
    pool = make_pool(env="scripted_envs:Broken-v0", env_kwargs={"kind": "constructor"})
    with pytest.raises(WorkerError, match="no such simulator here"):
        pool.start()
    assert pool.pids == []


def test_what_one_worker_left_unfinished_is_not_lost_again_with_the_next():
    deaths = []
    pool = make_pool(1, task=die_twice, policy=RestartPolicy(restart=True), on_death=deaths.append)
    pool.start()
    try:
        while len(deaths) < 2:
            pool.get(0.1)
        assert [death.env_steps for death in deaths] == [6, 0]  # 3 steps of 2 environments
    finally:
        pool.close()


def test_a_worker_may_have_processes_of_its_own():
    pool = make_pool(1, slots=0, task=report_child)
    pool.start()
    try:
        assert get(pool) == 7
    finally:
        pool.close()


def test_a_worker_that_does_not_stop_is_killed():
    pool = make_pool(task=sleep_for_ever)
    pool.start()
    pids = pool.pids
    pool.close(grace=0.2)
    assert gone(pids)


def test_a_start_that_takes_too_long_is_given_up():
    pool = make_pool(task=never_ready, policy=RestartPolicy(timeout=0.5))
    with pytest.raises(WorkerError, match=r"(?s)no sign of life for 0\.5 s.*in never_ready"):
        pool.start()


def test_a_worker_imports_neither_lightning_nor_wandb_and_keeps_to_one_thread():
    pool = make_pool(workers=1, task=report_imports)
    pool.start()
    try:
        with pytest.raises(WorkerError, match=r"imported \[\], 1 thread"):
            get(pool)
    finally:
        pool.close()


def test_a_worker_ends_on_its_own_when_its_episodes_are_played():
    pool = make_pool(env_kwargs={"lengths": (2,)}, max_episodes=4)
    pool.start()
    try:
        episodes = {0: 0, 1: 0}
        while not pool.exhausted:
            for worker, _, played in drain(pool, 1):
                episodes[worker] += len(played)
        assert all(4 <= count < 8 for count in episodes.values())
        assert pool.get(0.1) is None
    finally:
        pool.close()


def test_a_start_ends_when_it_is_asked_to():
    asked = []
    pool = WorkerPool(never_ready, 1, should_stop=lambda: len(asked) > 2 or asked.append(None))
    pool.start()
    assert pool.pids == []
    assert not pool.exhausted
    assert pool.get(0.1) is None


def test_who_has_no_slot_to_write_is_not_silent():
    deaths = []
    pool = make_pool(workers=1, policy=RestartPolicy(timeout=1.0), on_death=deaths.append)
    pool.start()
    try:
        held = [get(pool), get(pool)]
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            assert pool.get(0.1) is None
        for rollout in held:
            rollout.release()
        get(pool)
        assert deaths == []
    finally:
        pool.close()


def test_time_in_which_nobody_looked_counts_for_a_second_at_most():
    pool = make_pool(workers=1, task=AnnounceLate(5.0), policy=RestartPolicy(timeout=2.5))
    pool.start()
    try:
        assert pool.get(0.1) is None
        time.sleep(4.0)  # as long as an evaluation: the worker is silent, and is not killed for it
        assert get(pool).worker == 0
    finally:
        pool.close()


def test_whose_silence_is_seen_is_killed():
    pool = make_pool(workers=1, task=AnnounceLate(3600), policy=RestartPolicy(timeout=1.0))
    pool.start()
    pids = pool.pids
    try:
        with pytest.raises(WorkerError, match=r"(?s)no sign of life for 1 s.*in __call__"):
            get(pool)
        assert gone(pids)
    finally:
        pool.close()


def test_a_first_sign_of_life_may_take_as_long_as_imports_do():
    worker = WorkerHandle.__new__(WorkerHandle)
    worker._heartbeat, worker._given, worker.ready = Heartbeat.allocate(1)[0], set(), False
    worker._beats = worker._beats_before = worker._heartbeat.beats
    worker._silence, worker._looked = 5.0, time.monotonic()
    assert not worker.is_silent(1.0)
    worker._heartbeat.beat()
    assert not worker.is_silent(1.0)  # this one has been heard just now
    worker._silence = 5.0
    assert worker.is_silent(1.0)
