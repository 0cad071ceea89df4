"""Workers that die: they are replaced, what is lost is counted, and the error says what happened."""

import logging
import os
import re
import signal

import pytest
import torch
from fault_tasks import HalfAMessage
from harness import FAULTY, IMPATIENT, Collection, exists, own_processes, restarts_of
from helpers import make_network, make_spec

from a3c.rollouts.collector import Life
from a3c.rollouts.dataset import Batching, RolloutDataset
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.failures import RestartPolicy, WorkerError

RAISE = RestartPolicy(timeout=30.0, restart=False)


def test_row_1_a_killed_worker_is_replaced_and_what_it_had_not_handed_over_is_counted(tmp_path):
    with Collection("kill", at_step=13, worker=1, once=str(tmp_path / "once")) as run:
        run.until_replaced(1)
        assert run.steps(1, restarts=0) + run.lost["worker_death"] == 13
        assert run.lost["worker_death"] < 5  # a rollout
        (death,) = run.deaths
        assert (death.worker, death.restarted) == (1, True)
        run.until_rollouts(3)
        assert len(run.deaths) == 1


def test_row_1_a_kill_from_outside_costs_at_most_the_rollouts_in_flight():
    with Collection("slow", at_step=0, seconds=0.05, worker=0) as run:
        run.until_rollouts(1, [0])
        os.kill(run.pool.pids[0], signal.SIGKILL)
        run.until_replaced(0)
        assert run.lost["worker_death"] <= 5
        assert all(restarts_of(batch) == 0 for batch in run.batches[1])


def test_row_1_every_env_step_of_a_run_with_deaths_is_trained_dropped_or_in_flight():
    run = Collection("kill", at_step=18, num_envs=2)
    progress = Progress()
    updates = RolloutDataset(run.pool, progress, Batching(max_env_steps=2000))
    trained = sum(int(batch.mask.sum()) for batch in updates)
    assert len(run.deaths) > 20
    assert progress.trained == trained
    told, dropped = [death.env_steps for death in run.deaths], progress.dropped["worker_death"]
    # Of the last death of each worker the budget's end may have overtaken the loss.
    assert dropped in (sum(told), sum(told[:-1]), sum(told[:-2]))
    assert dropped > 0
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert 0 <= progress.in_flight <= 2 * 2 * 5 * 2  # two workers, two slots each


def test_row_2_a_slot_that_was_being_written_is_never_announced_and_is_usable_again(tmp_path):
    with Collection("kill", workers=1, slots=1, at_step=13, once=str(tmp_path / "once")) as run:
        run.until_replaced(0)
        run.until_rollouts(5)
    first = [batch for batch in run.batches[0] if restarts_of(batch) == 0]
    assert [batch.segment_ids.item() for batch in first] == [0, 1] + ([2] if len(first) == 3 else [])
    assert all(batch.observations.abs().sum() > 0 for batch in run.batches[0])


def test_row_2_a_rollout_that_is_held_outlives_its_worker_unchanged():
    with Collection("kill", workers=1, at_step=8) as run:
        held = next(rollout for _ in range(1000) if (rollout := run.take(release=False)))
        before = held.batch.copy()
        run.until_replaced(0, deaths=3)
        assert all(torch.equal(a, b) for a, b in zip(before, held.batch, strict=True))
        held.release()  # its worker is gone: nobody is to take it for a slot of the new one
        run.until_replaced(0, deaths=5)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_row_2_half_a_message_does_not_hold_up_the_pool(tmp_path, end):
    task = HalfAMessage(make_spec(FAULTY, 1, {"kind": "none"}, make_network(2, 2)), int(end), str(tmp_path / "once"))
    with Collection(task=task, policy=IMPATIENT) as run:
        run.until_replaced(0)
        run.until_rollouts(3)


def test_row_4_a_segmentation_fault_is_named_with_its_worker_and_survived(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "a3c"), Collection("segfault", worker=1, once=str(tmp_path / "once")) as run:
        run.until_replaced(1)
    assert re.search(r"worker 1 was killed by SIGSEGV", caplog.text)


def test_row_4_a_segmentation_fault_ends_the_run_with_its_name_and_stack_if_workers_are_not_replaced():
    with (
        pytest.raises(WorkerError, match=r"(?s)worker 0 was killed by SIGSEGV.*faulty\.py.*_segfault"),
        Collection("segfault", worker=0, policy=RAISE) as run,
    ):
        run.until_rollouts(1000)


def test_row_4_an_exit_status_is_named():
    with (
        pytest.raises(WorkerError, match=r"worker 0 exited with 7"),
        Collection("exit", worker=0, policy=RAISE) as run,
    ):
        run.until_rollouts(1000)


def test_row_5_an_exception_arrives_with_traceback_seed_and_step():
    run = Collection("raise", at_step=13, worker=1, policy=RAISE)
    with pytest.raises(WorkerError) as caught, run:
        run.until_rollouts(1000)
    text = str(caught.value)
    assert re.search(r"(?s)worker 1 failed:\nTraceback.*in step.*ZeroDivisionError: the pole went", text)
    healthy = make_spec(FAULTY, 1, {"kind": "none"}, make_network(2, 2)).build(Life(1))
    where = re.search(rf"environment seed {healthy.env_seed}, step (\d+)", text)
    assert where, text
    assert 13 <= int(where[1]) < 26  # steps in which it is reset count there


def test_row_5_an_exception_is_survived_and_stands_in_the_log(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "a3c"), Collection("raise", worker=1, once=str(tmp_path / "once")) as run:
        run.until_replaced(1)
    assert re.search(r"(?s)worker 1 failed:\nTraceback.*ZeroDivisionError", caplog.text)


@pytest.mark.parametrize("kind", ["raise_reset", "raise_constructor"])
def test_row_6_an_environment_that_cannot_begin_fails_the_start_with_its_traceback(kind):
    run = Collection(kind, at_step=0)
    with pytest.raises(WorkerError, match=r"(?s)Traceback.*faulty\.py.*ZeroDivisionError: the pole went"):
        run.pool.start()
    assert run.pool.pids == []
    assert not run.deaths[0].restarted  # in the first set-up: a second try would end like it


def test_row_7_the_text_of_an_exception_that_does_not_pickle_arrives():
    with (
        pytest.raises(WorkerError, match=r"UnpicklableError: the pole went through the floor"),
        Collection("raise_unpicklable", policy=RAISE) as run,
    ):
        run.until_rollouts(1000)


def test_row_8_a_crash_loop_ends_with_the_last_reason():
    policy = RestartPolicy(timeout=30.0, restart=True, max_restarts=4, window=60.0)
    run = Collection("raise", at_step=13, worker=0, policy=policy)
    with pytest.raises(WorkerError, match=r"(?s)replaced 4 times within 60 s.*ZeroDivisionError"), run:
        run.until_rollouts(1000)
    assert [death.restarted for death in run.deaths] == [True] * 4 + [False]


def test_row_8_restarts_that_lie_outside_the_window_do_not_count():
    policy = RestartPolicy(timeout=30.0, restart=True, max_restarts=1, window=0.3)
    with Collection("slow", at_step=0, seconds=0.01, workers=1, policy=policy) as run:
        for deaths in (1, 2, 3):
            run.until_rollouts(10)  # of 0.05 s each
            os.kill(run.pool.pids[0], signal.SIGKILL)
            run.until_replaced(0, deaths)


@pytest.mark.parametrize("order", [1, -1])
def test_row_9_all_workers_and_their_fork_server_may_be_killed_at_once(order):
    with Collection("slow", at_step=0, seconds=0.01) as run:
        run.until_rollouts(1)
        server = own_processes()[run.pool.pids[0]].parent
        assert server != os.getpid()
        for pid in (*run.pool.pids, server)[::order]:
            os.kill(pid, signal.SIGKILL)
        run.until_replaced(0, seconds=60)  # the server imports anew
        run.until_replaced(1, seconds=60)
        assert not exists(server)


def test_row_42_no_worker_repeats_the_trajectory_of_another_or_of_its_predecessors():
    with Collection("kill", at_step=8) as run:
        for worker in range(2):
            run.until_replaced(worker, deaths=2, seconds=30)
    with Collection("none", seed=1) as other:
        other.until_rollouts(1)
    firsts = {}
    for number, batches in enumerate([*run.batches, *other.batches]):
        for batch in batches:
            firsts.setdefault((number, restarts_of(batch)), batch.observations[:2].flatten().tolist())
    assert len(firsts) >= 2 * 3 + 2
    assert len({tuple(first) for first in firsts.values()}) == len(firsts)


def test_row_42_a_restarted_worker_s_environments_have_identities_of_their_own():
    with Collection("kill", at_step=8, num_envs=2) as run:
        run.until_replaced(0, deaths=2, seconds=30)
        run.until_replaced(1, deaths=2, seconds=30)
    owners = {}
    for worker, batches in enumerate(run.batches):
        for batch in batches:
            for env in batch.env_ids.tolist():
                assert owners.setdefault(env, (worker, restarts_of(batch))) == (worker, restarts_of(batch))
