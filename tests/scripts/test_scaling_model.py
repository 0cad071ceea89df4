"""The model of scaling by hand-computed cases, and its queue by a simulation of events."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from throughput.inference import compare_inference
from throughput.model import (
    Curve,
    Parts,
    Setup,
    async_lag,
    async_period,
    collect_seconds,
    efficiency,
    predict,
    recommend,
    update_seconds,
    workers_until_full,
)
from throughput.queue import simulate

# A time step of B environments takes 4 + 4 + 2 = 10 ms, a rollout of 10 of them 100 ms, an update 20 ms.
PARTS = Parts(
    env=Curve.line(0.004),
    forward=Curve.line(0.004),
    writing=Curve.line(0.002),
    rollout=Curve.line(0.0),
    cores=Curve.line(1.0),
    send=0.0,
    receive=Curve.line(0.0),
    update=Curve.line(0.020),
)
SETUP = Setup(cores=1000, workers=1, envs_per_worker=8, n_steps=10, rollouts_per_update=1)


def test_a_curve_is_straight_between_its_sizes_and_beyond_them():
    curve = Curve((10.0, 20.0), (1.0, 3.0))
    assert [curve(size) for size in (10, 15, 20, 30)] == [1.0, 2.0, 3.0, 5.0]
    assert curve(0) == 0.0  # −1 by the line
    assert Curve((4.0,), (2.0,))(100) == 2.0


def test_a_rollout_takes_its_time_steps_and_what_comes_once():
    parts = replace(PARTS, env=Curve.line(0.001, 0.001), rollout=Curve.line(0.5))
    assert collect_seconds(parts, SETUP) == pytest.approx(10 * (0.009 + 0.004 + 0.002) + 0.5)


def test_passes_are_added_to_an_update():
    parts = replace(PARTS, passes=2, pass_share=0.4)  # 20 ms of two passes of 8 ms each
    assert update_seconds(parts, replace(SETUP, passes=2)) == pytest.approx(0.020)
    assert update_seconds(parts, replace(SETUP, passes=5)) == pytest.approx(0.020 + 3 * 0.008)


def test_sync_takes_one_after_the_other():
    found = predict(PARTS, replace(SETUP, mode="sync", rollouts_per_update=3))
    assert found.env_steps_per_second == pytest.approx(240 / (3 * 0.1 + 0.02))
    assert found.lag == (0, 0)
    assert found.limit == "process"


def test_workers_add_up_until_the_learner_is_full():
    rates = [predict(PARTS, replace(SETUP, workers=workers)).env_steps_per_second for workers in (1, 2, 4, 5, 6, 50)]
    assert rates == pytest.approx([800, 1600, 3200, 4000, 4000, 4000])  # 80 steps in 100 ms; in 20 ms at most
    assert workers_until_full(PARTS, SETUP) == 5
    assert predict(PARTS, replace(SETUP, workers=4)).limit == "workers"
    full = predict(PARTS, replace(SETUP, workers=6))
    assert (full.limit, full.learner_busy) == ("learner", 1.0)


def test_one_worker_that_waits_for_nothing_is_as_fast_as_its_collection():
    parts = replace(PARTS, update=Curve.line(1e-6))
    one = predict(parts, SETUP).env_steps_per_second
    assert one == pytest.approx(predict(parts, replace(SETUP, mode="sync")).env_steps_per_second, rel=1e-4)


def test_the_cores_limit_by_the_work_of_all_processes():
    found = predict(PARTS, replace(SETUP, workers=4, cores=2))  # 120 ms of work for 80 steps
    assert found.env_steps_per_second == pytest.approx(2 * 80 / 0.12)
    assert (found.limit, found.cores_busy) == ("cores", pytest.approx(2))


def test_to_wait_takes_no_core():
    waiting = replace(PARTS, cores=Curve.line(0.1))  # 10 + 20 ms of work for 80 steps
    found = predict(waiting, replace(SETUP, workers=4, cores=2))
    assert found.limit == "workers"
    assert found.env_steps_per_second == pytest.approx(3200)
    assert found.cores_busy == pytest.approx(40 * 0.03)


def test_busy_cores_slow_down_work_and_not_waiting():
    parts = replace(PARTS, slowdown=1.5)
    busy = predict(parts, replace(SETUP, workers=4, cores=2))
    assert busy.env_steps_per_second == pytest.approx(2 * 80 / 0.12 / 1.5)
    assert busy.collect == pytest.approx(0.15)
    assert predict(parts, replace(SETUP, mode="sync")).collect == pytest.approx(0.1)
    half = predict(replace(parts, cores=Curve.line(0.5)), replace(SETUP, workers=100, cores=2))
    assert half.collect == pytest.approx(0.05 + 0.05 * 1.5)


def test_to_receive_from_many_workers_takes_the_learner_longer():
    parts = replace(PARTS, receive=Curve.line(0.0, 0.001))
    few, many = (predict(parts, replace(SETUP, workers=workers)) for workers in (10, 100))
    assert few.env_steps_per_second == pytest.approx(80 / 0.030)
    assert many.env_steps_per_second == pytest.approx(80 / 0.120)


def test_hogwild_workers_collect_and_learn_in_turn():
    found = predict(PARTS, replace(SETUP, mode="hogwild", workers=3))
    assert found.env_steps_per_second == pytest.approx(3 * 80 / 0.12)
    assert found.lag == pytest.approx((2, 2))  # one update of each other worker between pull and step


@pytest.mark.parametrize(
    ("workers", "rollouts", "collect", "update", "period"),
    [
        (1, 1, 5, 4, 5),  # one slot is filled while the other is learned from
        (1, 1, 4, 5, 5),
        (2, 1, 5, 4, 4),
        (4, 4, 5, 1, 5),
        (1, 4, 5, 4, 20),  # four after each other, the first of them during the update
        (1, 4, 5, 6, 6 + 3 * 5),  # only one slot is left during the update
        (2, 4, 5, 6, 6 + 5),
    ],
)
def test_the_period_of_updates_is_that_of_the_simulation(workers, rollouts, collect, update, period):
    setup = Setup(workers=workers, rollouts_per_update=rollouts)
    assert async_period(collect, update, setup) == pytest.approx(period)
    simulated = simulate(setup, collect, update, updates=200)
    assert 1 / simulated.updates_per_second == pytest.approx(period, rel=0.02)


@pytest.mark.parametrize(
    ("workers", "rollouts", "update", "lag"),
    [(1, 1, 1, 1), (1, 4, 1, 0.25), (64, 1, 0.02, 64), (4, 4, 1, 1), (4, 1, 2, 7), (64, 16, 0.5, 4), (64, 1, 1, 127)],
)
def test_the_lag_is_that_of_the_simulation(workers, rollouts, update, lag):
    setup = Setup(workers=workers, rollouts_per_update=rollouts)
    predicted = async_lag(5, update, async_period(5, update, setup), setup)
    assert predicted.spread == pytest.approx(lag, rel=0.1)
    assert simulate(setup, 5, update, updates=8000).lag == pytest.approx(lag, rel=0.1)


def test_workers_that_hand_over_together_learn_from_older_rollouts():
    setup = Setup(workers=64)
    lag = async_lag(5, 0.01, 5 / 64, setup)
    assert lag == (64, 64 + 63 / 2)
    assert simulate(setup, 5, 0.01, together=True, updates=640).lag == pytest.approx(lag.together, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8, 16, 64]),
    st.sampled_from([1, 2, 4, 8]),
    st.floats(0.05, 20),
)
def test_the_period_and_the_lag_hold_for_other_sizes(workers, rollouts, update):
    setup = Setup(workers=workers, rollouts_per_update=rollouts)
    period = async_period(5, update, setup)
    lag = async_lag(5, update, period, setup)
    simulated = simulate(setup, 5, update, updates=max(2000, 300 * workers // rollouts))
    assert simulated.updates_per_second * period == pytest.approx(1, rel=0.05)
    assert lag.spread * 0.9 - 0.3 <= simulated.lag <= max(lag) * 1.1 + 0.3


def test_a_simulated_learner_is_busy_for_its_updates():
    assert simulate(Setup(workers=2), 4, 1, updates=500).learner_busy == pytest.approx(0.5, abs=0.02)


def test_rollouts_of_unequal_seconds_make_a_batch_of_all_workers_wait():
    setup = Setup(workers=16, rollouts_per_update=16)
    even, uneven = (simulate(setup, 5, 1, variation=variation, updates=500) for variation in (0, 0.5))
    assert uneven.updates_per_second < 0.95 * even.updates_per_second


def test_the_recommended_workers_keep_the_learner_busy_and_the_update_as_it_is():
    setup, found = recommend(PARTS, replace(SETUP, cores=8, envs_per_worker=64))
    assert setup.envs_per_worker * setup.rollouts_per_update == 64
    assert found.env_steps_per_second >= 0.95 * 640 / 0.02  # no update takes less
    idle = replace(PARTS, update=Curve.line(10.0))
    assert recommend(idle, replace(SETUP, cores=8))[0].workers == 1


INFERENCE = replace(SETUP, workers=16, cores=17)  # of 8 environments each


def test_batched_inference_wins_where_a_call_costs_most():
    parts = replace(PARTS, forward=Curve.line(0.004), env=Curve.line(0.001), writing=Curve.line(0.0))
    found = compare_inference(parts, INFERENCE, speed=10)
    assert found.local == pytest.approx(17 * 8 / 0.005)
    assert found.central == found.most == pytest.approx(16 * 8 / 0.001)
    slow = compare_inference(replace(parts, round_trip=0.001), INFERENCE)
    assert slow.central == pytest.approx(16 * 8 / (16 * 0.001 + 2 * 0.004))


def test_the_central_process_takes_a_core_from_the_workers():
    parts = replace(PARTS, forward=Curve.line(1e-6), writing=Curve.line(0.0))  # 4 ms a step
    found = compare_inference(parts, replace(SETUP, workers=4, cores=4))
    assert found.local == pytest.approx(4 * 8 / 0.004, rel=1e-3)
    assert found.central == found.most == pytest.approx(3 * 8 / 0.004)


def test_messages_limit_a_central_process_however_fast_it_is():
    parts = replace(PARTS, round_trip=0.002)  # 32 ms for 16 workers, who need 10 ms for a step of their own
    found = compare_inference(parts, INFERENCE, speed=1e9)
    assert found.central == pytest.approx(16 * 8 / 0.032)
    assert found.most == pytest.approx(found.central)
    assert found.speed_needed == float("inf")


def test_a_central_forward_must_be_so_many_times_as_fast():
    parts = replace(PARTS, forward=Curve.line(0.0, 0.0005), env=Curve.line(0.001), writing=Curve.line(0.0))
    found = compare_inference(parts, INFERENCE)  # 5 ms a step of 17 workers; 64 ms for the forwards of 16
    assert found.speed_needed == pytest.approx(0.064 / (0.005 * 16 / 17))
    assert compare_inference(parts, INFERENCE, speed=found.speed_needed).central == pytest.approx(found.local)


def test_efficiency_is_a_share_of_linear():
    assert efficiency([10, 30, 40], [1, 4, 4]) == [1.0, 0.75, 1.0]


@pytest.mark.parametrize("name", ["cores", "workers", "envs_per_worker", "n_steps", "rollouts_per_update", "passes"])
def test_a_setup_refuses_less_than_one(name):
    with pytest.raises(ValueError, match=f"{name}: got 0, must be at least 1"):
        replace(SETUP, **{name: 0})


def test_a_setup_refuses_another_mode():
    with pytest.raises(ValueError, match="mode: got 'fast', must be one of sync, async, hogwild"):
        replace(SETUP, mode="fast")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"collect": 0}, "collect: got 0, must be above 0"),
        ({"update": -1}, "update: got -1, must be above 0"),
        ({"updates": 9}, "updates: got 9, must be at least 10"),
        ({"variation": -0.1}, "variation: got -0.1, must be at least 0"),
    ],
)
def test_a_simulation_refuses_what_it_cannot_simulate(changed, words):
    with pytest.raises(ValueError, match=words):
        simulate(SETUP, **{"collect": 1.0, "update": 1.0, **changed})
