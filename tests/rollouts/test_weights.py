import multiprocessing
import threading

import pytest
import torch
from helpers import make_network
from torch import nn

from a3c.rollouts import weights as weights_room
from a3c.rollouts.weights import SharedWeights


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()


def test_a_published_version_arrives_unchanged():
    ours, theirs = make_network(), make_network()
    weights = SharedWeights(ours)
    assert weights.pull(theirs) == 0
    assert torch.equal(vector(ours), vector(theirs))
    for version in (1, 2):
        with torch.no_grad():
            for parameter in ours.parameters():
                parameter.add_(version)
        assert weights.publish(ours) == version
        assert not torch.equal(vector(ours), vector(theirs))
        assert weights.pull(theirs) == version
        assert torch.equal(vector(ours), vector(theirs))


def test_buffers_and_mixed_dtypes_travel_too():
    ours, theirs = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    ours.running_mean += 2.5
    ours.num_batches_tracked += 7
    SharedWeights(ours).pull(theirs)
    assert theirs.running_mean.tolist() == [2.5, 2.5, 2.5]
    assert theirs.num_batches_tracked.item() == 7


def test_what_was_published_does_not_follow_the_network_afterwards():
    ours, theirs = make_network(), make_network()
    weights = SharedWeights(ours)
    before = vector(ours)
    with torch.no_grad():
        next(ours.parameters()).add_(1)
    weights.pull(theirs)
    assert torch.equal(vector(theirs), before)


def publish_in_child(weights, value, done):
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, value)
    weights.publish(network)
    done.send(weights.version)


def test_another_process_writes_into_the_same_memory():
    weights = SharedWeights(nn.Linear(1, 1))
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    child = context.Process(target=publish_in_child, args=(weights, 42.0, theirs))
    child.start()
    assert ours.poll(30)
    assert ours.recv() == 1
    child.join()
    mine = nn.Linear(1, 1)
    assert weights.pull(mine) == 1
    assert mine.weight.item() == 42.0


def test_a_write_that_never_ends_is_given_up_on():
    weights = SharedWeights(make_network())
    weights._counter[0] += 1  # odd: somebody is writing, and died at it
    with pytest.raises(TimeoutError, match="middle of a write"):
        weights.pull(make_network(), timeout=0.05)


def test_a_reader_never_sees_half_a_version():
    network = nn.Linear(300, 300)
    weights, mine = SharedWeights(network), nn.Linear(300, 300)
    stop = threading.Event()

    def write():
        value = 0
        while not stop.is_set():
            value += 1
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.fill_(value)
            weights.publish(network)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            version = weights.pull(mine)
            if version:
                values = {parameter.min().item() for parameter in mine.parameters()} | {
                    parameter.max().item() for parameter in mine.parameters()
                }
                assert values == {float(version)}
    finally:
        stop.set()
        writer.join()


def test_a_copy_torn_by_a_write_is_made_again(monkeypatch):
    ours, theirs = make_network(), make_network()
    weights = SharedWeights(ours)
    real, calls = weights_room.copy_tensors, []

    def tearing_copy(targets, sources):
        calls.append(len(targets))
        real(targets, sources)
        if len(calls) == 1:
            weights._counter[0] += 2  # a whole publish took place during the first copy

    monkeypatch.setattr(weights_room, "copy_tensors", tearing_copy)
    assert weights.pull(theirs) == 1
    assert len(calls) == 2
