"""Learners agree: on numbers, on moments, on one gradient; and notice at once when one of them is gone."""

import pickle

import peer_tasks
import pytest
import torch
from peer_tasks import LEARNERS, SAMPLES
from sharing_tasks import processes

from a3c.peers import agreement
from a3c.peers.agreement import Moments
from a3c.peers.gradients import Share, join_gradients


@pytest.fixture(scope="module")
def everyones(tmp_path_factory):
    """What each of three learners has found, task by task."""
    folder = tmp_path_factory.mktemp("learners")
    with processes(peer_tasks.begin, [(str(folder), rank) for rank in range(LEARNERS)]):
        pass
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(LEARNERS)]


def test_all_come_to_know_what_each_says(everyones):
    for rank, found in enumerate(each["exchanged"] for each in everyones):
        assert found["exchange"] == [[float(other), 2.0**40 + other] for other in range(3)]  # not in 32 bits
        assert found["gather"] == [{"rank": other} for other in range(3)]
        assert found["sums"] == [[[3.0] * 3] * 2, [6]]
        assert found["first"] == [[0.0, 0.0], [0, 0, 0]]
        assert found["mean"] == [[1.0], [0]]
        assert found["who"] == (rank, 3)


def test_moments_of_all_samples_are_those_of_one(everyones):
    sample = torch.cat(SAMPLES).double()
    variance, mean = torch.var_mean(sample, 0, correction=0)
    for number, *moments in (each["pooled_moments"] for each in everyones):
        assert number == len(sample)
        torch.testing.assert_close(moments, [mean, variance], rtol=1e-12, atol=1e-12)


def test_a_gradient_of_all_counts_each_real_step_once(everyones):
    for found in (each["joined_gradients"] for each in everyones):
        gradients, share = found[True]
        assert gradients[0].tolist() == [(3 * 1 + 1 * 2) / 4] * 2
        assert gradients[1].tolist() == [1 / 4] * 2
        assert gradients[2] is None
        assert (share.loss.item(), share.steps, share.is_last) == (3.0, 4, True)
        sums, _ = found[False]
        assert sums[0].tolist() == [3.0] * 2
        assert sums[1].tolist() == [1.0] * 2
        assert found["loss"].isnan()  # of one learner, and all of them skip the update


@pytest.mark.parametrize(("task", "arguments"), [("updated", ()), ("updated_by_sums", ("sum", 1))])
def test_learners_together_make_the_update_of_one_that_has_all_columns(everyones, task, arguments):
    alone = peer_tasks.updated(0, *arguments)
    first, *others = (each[task] for each in everyones)
    for name, expected in alone.items():
        torch.testing.assert_close(first[name], expected, rtol=2e-4, atol=2e-5, msg=name)
        assert all(torch.equal(first[name], other[name]) for other in others), name


def test_counts_are_those_of_all(everyones):
    for rank, found in enumerate(each["counted"] for each in everyones):
        assert found["before"] == 105 + 10 * (rank + 1) + rank
        assert found["more"] == [[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]]
        assert found["agreed"] == (160, {"max_lag": 5, "worker_death": 3}, 255, 168)
        assert found["rejected"] == (100, 60)


def test_learners_that_are_not_alike_end_the_run_and_say_in_what(everyones):
    for beginning, weights in (each["differing"] for each in everyones):
        assert beginning.startswith(
            "ckpt_path: the learners of the run begin at different points (learner 0: 7 updates; "
        )
        assert "learner 1: 5 updates" in beginning
        assert "come to different weights, of the sums [0.0, 0.0, 2.0]" in weights


def test_one_that_is_gone_is_noticed(everyones):
    assert everyones[1]["lost"] is None
    for number in (0, 2):
        assert everyones[number]["lost"].startswith("another learner of the run is gone: ")
        assert "GLHF" not in everyones[number]["lost"]


def test_a_learner_that_is_alone_agrees_with_itself():
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    mine, moments = Share(torch.tensor(1.0), 0, False), Moments(0, torch.zeros(1), torch.zeros(1))
    assert join_gradients([parameter], mine, True) is mine
    assert parameter.grad.item() == 1.0
    assert agreement.pooled(moments) is moments
    assert agreement.exchange([1.0]) == [[1.0]]
    assert agreement.gather("me") == ["me"]
    assert (agreement.rank(), agreement.size()) == (0, 1)
