"""Workers that hang, in whatever way: found at the deadline, killed with their children, replaced."""

import logging
import os
import re
import signal
import time

import pytest
from harness import IMPATIENT, PATIENT, REPLACED_WITHIN, SLACK, Collection, exists, own_processes, restarts_of
from processes import wait_until

from a3c.rollouts.workers.failures import RestartPolicy, WorkerError

DEADLINE = IMPATIENT.timeout
WITHIN = DEADLINE + REPLACED_WITHIN + SLACK


def state_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("hang", "_hang"),
        ("hang_holding_gil", "_hang_holding_gil"),
        ("hang_reset", "in reset"),
        ("ignore_sigterm", "_ignore_sigterm"),
    ],
)
def test_row_10_a_hang_is_found_at_the_deadline_named_by_its_stack_and_replaced(kind, place, tmp_path, caplog):
    with (
        caplog.at_level(logging.WARNING, "a3c"),
        Collection(kind, at_step=13, worker=1, once=str(tmp_path / "once"), policy=IMPATIENT) as run,
    ):
        first = run.pool.pids[1]
        run.until_replaced(1, seconds=WITHIN)
        assert not exists(first)
        assert run.steps(1, restarts=0) + run.lost["worker_death"] in ([13] if kind != "hang_reset" else range(13, 40))
        run.until_rollouts(3)
    assert re.search(r"worker 1 gave no sign of life for 1 s \(worker_timeout\) and was killed", caplog.text)
    assert re.search(rf"(?s)faulty\.py.*{place}", caplog.text)
    assert len(run.deaths) == 1


def test_row_10_a_constructor_that_hangs_once_does_not_keep_the_run_from_starting(tmp_path, caplog):
    run = Collection("hang_constructor", worker=1, once=str(tmp_path / "once"), policy=IMPATIENT)
    start = time.monotonic()
    with caplog.at_level(logging.WARNING, "a3c"), run:
        assert time.monotonic() - start < WITHIN
        run.until_rollouts(2)
    assert "_hang" in caplog.text


def test_row_10_constructors_that_always_hang_end_the_start(tmp_path):
    run = Collection("hang_constructor", policy=IMPATIENT)
    start = time.monotonic()
    with pytest.raises(WorkerError, match="no sign of life"):
        run.pool.start()
    assert time.monotonic() - start < 6 * WITHIN
    assert run.pool.pids == []


def test_row_10_a_hang_ends_the_run_with_its_stack_where_workers_are_not_replaced():
    policy = RestartPolicy(timeout=DEADLINE, restart=False)
    with (
        pytest.raises(WorkerError, match=r"(?s)worker 0 gave no sign of life.*_hang"),
        Collection("hang", worker=0, policy=policy) as run,
    ):
        run.until_rollouts(10_000)


def test_row_10_a_slow_environment_is_no_hang():
    with Collection("slow", at_step=0, seconds=0.5, worker=0, policy=IMPATIENT) as run:
        run.until_rollouts(2, [0])  # of 2.5 s each
        assert not run.deaths


@pytest.mark.parametrize("kind", ["hang_close", "ignore_sigterm"])
def test_row_11_an_environment_that_will_not_end_is_killed_after_a_grace(kind):
    with Collection(kind, at_step=5, policy=PATIENT) as run:
        if kind == "hang_close":
            run.until_rollouts(2)
        pids = run.pool.pids
        start = time.monotonic()
        run.pool.close(grace=0.5)
        assert time.monotonic() - start < 0.5 + SLACK
        assert not any(exists(pid) for pid in pids)


def test_row_11_workers_and_their_fork_server_outlive_a_sigterm_that_was_meant_for_the_parent():
    with Collection("slow", at_step=0, seconds=0.01) as run:
        run.until_rollouts(1)
        server = own_processes()[run.pool.pids[0]].parent
        for pid in (server, *run.pool.pids):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                os.kill(pid, number)
        run.until_rollouts(5)
        assert not run.deaths
        assert state_of(server) != "Z"


def test_row_12_a_stopped_worker_is_killed_and_reaped_before_another_takes_its_place(caplog):
    with (
        caplog.at_level(logging.WARNING, "a3c"),
        Collection("slow", at_step=0, seconds=0.01, policy=IMPATIENT) as run,
    ):
        run.until_rollouts(1)
        stopped = run.pool.pids[0]
        os.kill(stopped, signal.SIGSTOP)
        run.until(lambda: run.deaths, WITHIN, "notice")
        with pytest.raises(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)  # too late to wake a writer into someone else's slot
        run.until_replaced(0)
        run.until_rollouts(3)
    assert "it was stopped by a signal" in caplog.text


def test_row_12_a_worker_that_goes_on_before_the_deadline_is_left_alone():
    with Collection("slow", at_step=0, seconds=0.01, policy=PATIENT) as run:
        run.until_rollouts(1)
        os.kill(run.pool.pids[0], signal.SIGSTOP)
        wait_until(lambda: state_of(run.pool.pids[0]) == "T", 5, "the worker's stop")
        run.until_rollouts(20, [1])
        os.kill(run.pool.pids[0], signal.SIGCONT)
        run.until_rollouts(3)
        assert not run.deaths
        assert all(restarts_of(batch) == 0 for batch in run.batches[0])


def children(count):
    """Waits for what environments have started: sleeping programs with this test's mark."""

    def found():
        return [process.pid for process in own_processes().values() if process.command.startswith("sleep ")]

    wait_until(lambda: len(found()) == count, 10, f"{count} children")
    return found()


@pytest.mark.parametrize("end", ["killed", "closed"])
def test_row_14_what_an_environment_has_started_ends_with_its_worker(end, tmp_path):
    with Collection("children", at_step=3, worker=0, once=str(tmp_path / "once")) as run:
        run.until_rollouts(2)
        started = children(2)
        if end == "killed":
            os.kill(run.pool.pids[0], signal.SIGKILL)
            run.until_replaced(0)
        else:
            run.pool.close()
        wait_until(lambda: not any(exists(pid) for pid in started), 2, "an end of the children")


def test_row_14_what_an_environment_has_started_can_be_ended_by_it(tmp_path):
    with Collection("children", at_step=3, worker=0, once=str(tmp_path / "once")) as run:
        run.until_rollouts(2)
        for pid in children(2):
            os.kill(pid, signal.SIGTERM)  # ignored signals stay ignored in a program that is started
            wait_until(lambda pid=pid: state_of(pid) == "Z", 2, "an end of the child")
        assert not run.deaths
