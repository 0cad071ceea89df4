"""Rollouts that are there when an update begins are on their way to the learner's device meanwhile."""

from collections import deque

import pytest
import torch

from a3c.batch import BatchShape, Rollout, empty_batch
from a3c.rollouts.dataset import Batching, RolloutDataset
from a3c.rollouts.device.copies import Copies
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.failures import WorkerError


class Recorded(Copies):
    """Copies on the CPU; notes what is sent, and what has arrived."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.sent, self.arrived = [], []

    def send(self, tensors):
        self.sent.append(int(tensors.rewards[0, 0]))
        return [tensor.clone() for tensor in tensors]

    def arrive(self, sent):
        self.arrived += [int(fields[0, 0]) for fields in sent[2::11]]  # the rewards


class Scripted:
    """Gives rollouts of one step, numbered by their rewards; None of a number stands for a moment without one."""

    exhausted = False

    def __init__(self, *script, version=lambda number: 0):
        self.script, self.version, self.released, self.timeouts = deque(script), version, [], []

    def start(self):
        pass

    def close(self):
        pass

    def get(self, timeout):
        self.timeouts.append(timeout)
        number = self.script.popleft() if self.script else None
        if number is None:
            return None
        if isinstance(number, Exception):
            raise number
        batch = empty_batch(BatchShape(1, 1, (1,), torch.float32))
        batch.rewards.fill_(number)
        batch.mask.fill_(True)
        batch.policy_versions.fill_(self.version(number))
        return Rollout(batch, [], 0, False, lambda: self.released.append(number))


def updates(source, *, looks_ahead=True, version=lambda: 0, **batching):
    copies, progress = Recorded(), Progress()
    dataset = RolloutDataset(
        source, progress, Batching(**batching), version=version, copies=copies, looks_ahead=looks_ahead
    )
    return iter(dataset), copies, progress, dataset


def numbers(batch):
    return batch.rewards.flatten().int().tolist()


def test_what_is_there_is_sent_before_the_update_at_hand_is_made():
    source = Scripted(1, 2, 3, 4, None, 5, 6)
    stream, copies, progress, dataset = updates(source, rollouts_per_update=2, max_env_steps=6)
    assert numbers(next(stream)) == [1, 2]
    assert copies.sent == [1, 2, 3, 4]
    assert copies.arrived == [1, 2]
    assert source.released == []
    assert (progress.trained, progress.collected, dataset.steps_held) == (2, 4, 2)
    assert numbers(next(stream)) == [3, 4]
    assert copies.sent == [1, 2, 3, 4]  # there was a moment without one: nothing is waited for
    assert source.released == [1, 2]
    assert numbers(next(stream)) == [5, 6]
    assert copies.arrived == copies.sent == [1, 2, 3, 4, 5, 6]
    assert list(stream) == []
    assert progress.trained == progress.collected == 6
    assert source.released == [1, 2, 3, 4, 5, 6]


def test_without_looking_ahead_each_update_is_sent_whole_when_it_is_due():
    source = Scripted(1, 2, 3, 4)
    copies = Recorded()
    copies.device = torch.device("meta")  # where no batch is
    dataset = RolloutDataset(source, Progress(), Batching(2, 4), copies=copies)
    stream = iter(dataset)
    next(stream)
    assert copies.sent == [1]  # the first number of the joined batch
    assert len(source.script) == 2
    next(stream)
    assert copies.sent == [1, 3]


def test_the_limit_on_lag_is_that_of_the_update_that_a_rollout_is_for():
    """Taken in before the first update, the second one's rollouts are a version older by then."""
    source = Scripted(1, 2, 3, version=lambda number: 5 if number == 3 else 4)
    version = [5]
    stream, _, progress, _ = updates(source, version=lambda: version[0], max_lag=1, max_env_steps=3)
    assert numbers(next(stream)) == [1]
    assert progress.dropped["max_lag"] == 1  # number 2, of version 4, in an update of version 6
    version[0] = 6
    assert numbers(next(stream)) == [3]


def test_a_worker_that_fails_meanwhile_ends_the_run_before_the_update_is_counted():
    stream, _, progress, _ = updates(Scripted(1, WorkerError("it is gone")), max_env_steps=10)
    with pytest.raises(WorkerError, match="it is gone"):
        next(stream)
    assert progress.trained == 0


def test_nothing_is_waited_for_on_the_way():
    source = Scripted(1, None, 2)
    stream, *_ = updates(source, max_env_steps=2)
    next(stream)
    assert source.timeouts[0] > 0.0
    assert source.timeouts[1:] == [0.0]
