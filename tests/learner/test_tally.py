"""The tally: totals, exact counts from several processes, and workers that hold still."""

import time

import pytest
from sharing_tasks import count, processes, step_until_told

from a3c.learner.hogwild import tally as tally_room
from a3c.learner.hogwild.tally import STEPPING, Tally
from a3c.rollouts.workers.shared_memory import shared_zeros

WORKERS = 3


def at_once():
    return True


def released(workers=WORKERS):
    tally = Tally(workers)
    tally.release()
    return tally


def wait_for_all(tally):
    while tally.total("collected") < WORKERS:  # each counts one when it runs
        time.sleep(0.001)


# Counting


def test_totals_are_sums_over_the_workers():
    tally = Tally(3)
    tally.add(0, updates=1, trained=10)
    tally.add(0, updates=1, trained=20)
    tally.add(2, updates=1, trained=40)
    tally.add(1, dropped=5)
    tally.add(2, dropped=6)
    assert tally.updates == 3
    assert tally.total("trained") == 10 + 20 + 40
    assert tally.total("dropped") == 5 + 6
    assert tally.env_steps == 70 + 11
    assert tally.total("collected") == 0


def test_collected_env_steps_are_added_and_not_used_yet():
    tally = Tally(2)
    for worker, env_steps in [(0, 8), (1, 4), (0, 16)]:
        tally.add(worker, collected=env_steps)
    assert tally.total("collected") == 8 + 4 + 16
    assert tally.env_steps == 0  # none of them used yet


def test_env_steps_before_count_among_those_used_and_nowhere_else():
    tally = Tally(2, env_steps_before=1000)
    assert tally.env_steps == 1000
    tally.add(1, updates=1, trained=10)
    tally.add(0, dropped=5)
    assert tally.env_steps == 1000 + 10 + 5
    assert (tally.total("trained"), tally.total("dropped")) == (10, 5)


def test_no_increment_of_several_processes_is_lost():
    tally, times = Tally(WORKERS, env_steps_before=100), 50_000
    with processes(count, [(tally, worker, times) for worker in range(WORKERS)]):
        wait_for_all(tally)
        tally.release()
    assert tally.updates == 3 * times
    assert tally.total("trained") == 3 * times * 4
    assert tally.total("dropped") == 3 * times * 3
    assert tally.env_steps == 100 + 3 * times * 7


# Holding


def test_workers_are_held_from_the_start_until_the_release():
    tally = Tally(2)
    assert not tally.enter_step(0, at_once)
    tally.release()
    assert tally.enter_step(0, at_once)
    assert tally.enter_step(1, at_once)


def test_a_worker_waits_while_it_is_held_and_enters_after_the_release():
    tally, looks = Tally(1), []

    def look():
        looks.append(tally.hold(timeout=0))
        if len(looks) == 3:
            tally.release()
        return False

    assert tally.enter_step(0, look)
    assert looks == [[], [], []]  # held three times, and not inside a step while it waited
    assert tally.hold(timeout=0) == [0]


def test_a_worker_that_is_told_to_stop_has_begun_no_step():
    tally = released(1)
    tally.hold()
    answers = iter([False, False, True])
    assert not tally.enter_step(0, lambda: next(answers))
    assert next(answers, None) is None
    assert tally.hold(timeout=0) == []


def test_a_worker_that_is_not_held_is_never_asked_whether_to_stop():
    assert released(1).enter_step(0, lambda: pytest.fail("asked"))


def test_waiting_for_the_release_ends_with_it_or_with_a_stop():
    tally, looks = Tally(1), []

    def release_at_the_third_look():
        looks.append(1)
        if len(looks) == 3:
            tally.release()
        return False

    tally.wait_for_release(release_at_the_third_look)
    assert len(looks) == 3
    tally.wait_for_release(lambda: pytest.fail("asked"))
    tally.hold()
    tally.wait_for_release(at_once)
    assert not tally.enter_step(0, at_once)  # held still: it was the stop


def test_the_hold_waits_for_the_worker_inside_a_step(monkeypatch):
    tally, sleeps = released(), []
    assert tally.enter_step(1, at_once)

    def sleep(seconds):
        sleeps.append(tally.enter_step(0, at_once))
        if len(sleeps) == 5:
            tally.leave_step(1)

    with monkeypatch.context() as patch:
        patch.setattr(tally_room.time, "sleep", sleep)
        assert tally.hold(timeout=60) == []
    assert sleeps == [False] * 5  # the flag is up before the marks are read: nobody comes in meanwhile


def test_the_hold_names_the_workers_that_stay_inside_their_step():
    tally = released()
    for worker in (0, 2):
        assert tally.enter_step(worker, at_once)
    assert tally.hold(timeout=0.01) == [0, 2]
    tally.leave_step(0)
    assert tally.hold(timeout=0.01) == [2]


def test_the_mark_stands_before_the_flag_is_read():
    tally, marks = Tally(1), []

    class Flag:
        def __getitem__(self, index):
            marks.append(int(tally._cells[0, STEPPING]))
            return 0

    tally._flag = Flag()
    assert tally.enter_step(0, at_once)
    assert marks == [1]


def test_a_worker_that_died_inside_a_step_holds_nobody_up_once_it_is_written_off():
    tally = released()
    tally.enter_step(1, at_once)
    tally.write_off(1, 0)
    assert tally.hold(timeout=0.0) == []


def test_while_processes_are_held_nothing_is_counted():
    tally, stop = Tally(WORKERS), shared_zeros(1, dtype=tally_room.torch.int64)
    with processes(step_until_told, [(tally, worker, stop) for worker in range(WORKERS)]):
        wait_for_all(tally)
        before = 0
        for _ in range(10):
            tally.release()
            while tally.updates == before:  # they go on
                time.sleep(0.001)
            assert tally.hold(timeout=60) == []
            before = tally.updates
            assert tally.total("trained") == 4 * before  # nobody stands between the two counts
            time.sleep(0.01)
            assert (tally.updates, tally.total("trained")) == (before, 4 * before)
        stop.fill_(1)
