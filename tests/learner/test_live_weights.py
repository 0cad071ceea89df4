"""Weights that are stepped in place, and the one block of shared memory in which they lie."""

import math

import pytest
import torch
from helpers import make_network
from sharing_tasks import fill, fill_weights, processes
from torch import nn

from a3c.learner.hogwild import live_weights as weights_room
from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.tally import Tally
from a3c.rollouts.workers.shared_memory import ALIGNMENT, Field, SharedBlock, carve, layout


def live(network, workers=2):
    tally = Tally(workers)
    return LiveWeights(network, tally), tally


def tensors(network):
    return [*network.parameters(), *network.buffers()]


def assert_same(ours, theirs):
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


# Live weights


def test_the_networks_tensors_are_there_from_the_start_in_its_order():
    network, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.normal_(network.weight)
    network.running_mean += 2.5
    network.num_batches_tracked += 7  # int64 among float32
    weights, _ = live(network)
    assert_same(weights.parameters, list(network.parameters()))
    assert_same(weights.buffers, list(network.buffers()))
    assert weights.pull(other) == 0
    assert_same(tensors(other), tensors(network))


def test_a_step_in_place_is_what_the_next_pull_gives():
    network, other = make_network(), make_network()
    weights, _ = live(network)
    for step in (1, 2):
        for parameter in weights.parameters:
            parameter.add_(step)
        weights.pull(other)
        assert_same(other.parameters(), weights.parameters)
    for parameter, before in zip(other.parameters(), network.parameters(), strict=True):
        assert torch.allclose(parameter, before + 3)


def test_neither_the_mirrored_network_nor_a_pulled_one_is_tied_to_the_weights():
    network, other = make_network(), make_network()
    weights, _ = live(network)
    weights.pull(other)
    before = [parameter.clone() for parameter in weights.parameters]
    with torch.no_grad():
        for parameter in [*network.parameters(), *other.parameters()]:
            parameter.add_(1)
    assert_same(weights.parameters, before)


def test_the_version_is_the_number_of_updates_of_all_workers():
    weights, tally = live(make_network(), workers=3)
    for worker in (0, 1, 1, 2):
        tally.add(worker, updates=1, trained=10)
    assert weights.version == weights.pull(make_network()) == 4


def test_a_pull_claims_no_update_that_came_while_it_copied(monkeypatch):
    weights, tally = live(make_network())
    tally.add(0, updates=1, trained=10)
    real = weights_room.copy_tensors

    def copy_while_another_steps(targets, sources):
        real(targets, sources)
        tally.add(1, updates=1, trained=10)

    monkeypatch.setattr(weights_room, "copy_tensors", copy_while_another_steps)
    assert weights.pull(make_network()) == 1  # what it has at least
    assert weights.version == 2


def test_of_buffers_written_by_several_the_last_ones_stay_and_parameters_are_left_alone():
    shared, first, last, pulled = (nn.BatchNorm1d(2) for _ in range(4))
    weights, _ = live(shared)
    for writer, value in ((first, 1.0), (last, 2.0)):
        writer.running_mean.fill_(value)
        nn.init.constant_(writer.weight, 50.0)
        weights.write_buffers(writer)
    weights.pull(pulled)
    assert pulled.running_mean.tolist() == [2, 2]
    assert pulled.weight.tolist() == [1, 1]


def test_a_network_without_buffers_has_none_to_write():
    network = nn.Linear(2, 2)
    weights, _ = live(network)
    assert weights.buffers == []
    weights.write_buffers(network)
    assert_same(weights.parameters, list(network.parameters()))


def test_another_process_steps_the_same_memory_and_counts_in_the_same_tally():
    network = nn.BatchNorm1d(3)
    weights, tally = live(network)
    with processes(fill_weights, [(weights, tally, 42)]):
        pass
    assert weights.pull(network) == 1
    assert [len(weights.parameters), len(weights.buffers)] == [2, 3]
    assert all((tensor == 42).all() for tensor in tensors(network))


# Blocks of shared memory

FIELDS = [
    Field("odd", (3,), torch.float32),
    Field("scalar", (), torch.float64),
    Field("flags", (2, 5), torch.bool),
    Field("empty", (0, 4), torch.float32),
    Field("wide", (17,), torch.int64),
    Field("last", (2, 2), torch.float32),
]


def test_the_layout_is_the_hand_computed_one():
    # 3·4 = 12 bytes, 8, 2·5 = 10, 0, 17·8 = 136 and 4·4 = 16, each rounded up to 64s: 1, 1, 1, 0, 3 and 1 of them
    assert layout(FIELDS) == ([0, 64, 128, 192, 192, 384], 448)
    assert layout([]) == ([], 0)


def test_a_block_holds_zeros_of_every_fields_shape_and_dtype_each_aligned():
    views = SharedBlock(FIELDS).views
    assert list(views) == [field.name for field in FIELDS]
    for name, shape, dtype in FIELDS:
        assert views[name].shape == torch.Size(shape)
        assert views[name].dtype == dtype
        assert not views[name].any()
        assert views[name].data_ptr() % ALIGNMENT == 0 or not math.prod(shape)
        assert views[name].is_shared()


def test_no_field_lies_in_another():
    views = SharedBlock(FIELDS).views
    values = {"odd": -1.5, "scalar": 2.25, "flags": True, "empty": 9.0, "wide": -(2**40), "last": 0.125}
    for order in (list(values), list(values)[::-1]):
        for name in order:
            views[name].fill_(values[name])
        for name, value in values.items():
            assert (views[name] == value).all()
            views[name].zero_()


def test_fields_are_views_of_the_block():
    block = torch.zeros(layout(FIELDS)[1], dtype=torch.uint8)
    carve(block, FIELDS)["odd"].fill_(1.0)  # 0x3f800000 in IEEE 754, the lowest byte first
    assert block.nonzero().flatten().tolist() == [2, 3, 6, 7, 10, 11]
    assert block[:4].tolist() == [0, 0, 0x80, 0x3F]


def test_a_block_without_fields_is_allowed():
    assert SharedBlock([]).views == {}


def test_another_process_writes_into_the_same_block():
    block = SharedBlock(FIELDS)
    values = {"odd": -1.5, "scalar": 2.25, "flags": True, "wide": -(2**40), "last": 0.125}
    with processes(fill, [(block, values)]):
        pass
    for name, value in values.items():
        assert (block.views[name] == value).all()


@pytest.mark.parametrize("fields", [FIELDS[:1], FIELDS])
def test_a_block_is_one_mapping_however_many_fields_it_has(fields):
    block = SharedBlock(fields)
    storages = {view.untyped_storage().data_ptr() for view in block.views.values()}
    assert len(storages) == 1
