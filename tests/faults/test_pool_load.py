"""Pools under an uneven or heavy load: nobody starves, nothing piles up, nobody is taken for dead."""

import time

import pytest
import torch
from harness import IMPATIENT, OURS, PATIENT, SLACK, Collection
from helpers import fit, make_network
from lightning.pytorch import Callback
from processes import usage_of

from a3c.rollouts.dataset import Batching, RolloutDataset
from a3c.rollouts.progress import Progress


def test_row_38_of_64_workers_on_few_cores_all_contribute_and_they_stop_within_10_seconds():
    with Collection(workers=64, policy=PATIENT) as run:
        run.until_rollouts(2, seconds=60)
        assert not run.deaths
        start = time.monotonic()
        run.pool.close(grace=10.0)
        seconds = time.monotonic() - start
        print(f"64 workers stopped in {seconds:.2f} s")
        assert seconds < 10
        assert run.pool.exit_codes == [0] * 64  # none had to be killed


def test_row_39_a_worker_a_hundred_times_slower_is_neither_starved_nor_taken_for_dead():
    run = Collection("slow", at_step=0, seconds=0.01, worker=0, policy=IMPATIENT)
    with run:
        run.until_rollouts(5, [0])
        assert not run.deaths
    slow = [batch.segment_ids.item() for batch in run.batches[0]]
    assert slow == list(range(len(slow)))  # all of its rollouts, in order
    assert len(run.batches[1]) > 2 * len(slow)  # and the other one did not wait for it


@pytest.mark.parametrize("max_lag", [1, 10_000])
def test_row_39_the_lag_of_a_slow_worker_is_bounded_by_max_lag(max_lag):
    run = Collection("slow", at_step=0, seconds=0.01, worker=0)
    network, weights, progress = make_network(2, 2), run.spec.weights, Progress()
    updates = RolloutDataset(
        run.pool, progress, Batching(max_env_steps=3000, max_lag=max_lag), version=lambda: weights.version
    )
    lags = {0: [], 1: []}
    for batch in updates:
        lags[int(batch.env_ids[0])].append(weights.version - int(batch.policy_versions[0, 0]))
        weights.publish(network)
    assert max(lags[0] + lags[1]) <= max_lag
    if max_lag == 1:
        assert progress.dropped["max_lag"] > 0  # the slow one's were older
    else:
        assert len(lags[0]) >= 2
        assert max(lags[1]) <= 4  # the quick one's only wait in the queue, of two slots a worker
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight


def test_row_40_while_the_learner_stalls_workers_wait_memory_stays_and_nobody_is_killed():
    with Collection(workers=2, slots=2, policy=IMPATIENT) as run:
        run.until_rollouts(20)
        time.sleep(0.5)  # the stall begins: all slots fill up
        before = usage_of(OURS)
        counts = [len(batches) for batches in run.batches]
        time.sleep(2.5 * IMPATIENT.timeout)
        after = usage_of(OURS)
        assert after.shared == before.shared
        assert after.files == before.files
        assert after.memory - before.memory < 2**20
        run.until_rollouts(10)
        assert not run.deaths
        for count, batches in zip(counts, run.batches, strict=True):
            assert [batch.segment_ids.item() for batch in batches] == list(range(len(batches)))  # none is lost
            stalled = {tuple(batch.observations[0, 0].tolist()) for batch in batches[count : count + 2]}
            assert len(stalled) == 2  # what waited was not written over


def test_row_40_workers_whose_rollouts_are_all_held_are_not_taken_for_dead():
    with Collection(workers=2, slots=2, policy=IMPATIENT) as run:
        held = []
        while len(held) < 4:
            if (rollout := run.take(release=False)) is not None:
                held.append(rollout)
        end = time.monotonic() + 2.5 * IMPATIENT.timeout
        while time.monotonic() < end:
            assert run.pool.get(0.1) is None
        for rollout in held:
            rollout.release()
        run.until_rollouts(3)
        assert not run.deaths


class Raises(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        if module.updates >= 5:
            raise RuntimeError("a callback failed")


class StopsEarly(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        trainer.should_stop = module.updates >= 5


@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_row_46_after_an_exception_and_an_early_stop_everything_can_be_used_again(mode):
    options = {"mode": mode, "workers": 2, "envs_per_worker": 2, "max_env_steps": 4000}
    with pytest.raises(RuntimeError, match="a callback failed"):
        fit(**options, callbacks=[Raises()])
    module, data, _ = fit(**options, callbacks=[StopsEarly()])
    assert module.updates >= 5
    assert data.progress.env_steps < 4000
    assert data.mode.exit_codes == [0, 0]
    module, data, trainer = fit(**options)
    assert data.progress.env_steps >= 4000
    updates = module.updates
    trainer.fit(module, data)  # the same objects once more
    assert module.updates > updates or data.progress.env_steps >= 4000
    assert data.progress.collected == data.progress.env_steps + data.progress.in_flight
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    assert data.mode.exit_codes == [0, 0]


def test_row_46_a_pool_can_be_started_again_after_its_end():
    run = Collection()
    for _ in range(2):
        with run:
            run.until_rollouts(2, seconds=10 + SLACK)
        assert run.pool.exit_codes == [0, 0]
