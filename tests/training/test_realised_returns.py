"""Realised returns: hand-computed, against a literal reference, and what must stay unresolved."""

import math

import pytest
import torch
from builders import discounts_of, make_batch

from a3c import FullEpisode, NStep
from a3c.rollouts.collector import LINEAGE
from a3c.training.probe.realised_returns import RealisedReturns

HALF = 0.5


def begin(returns, batch, targets=None, discount=HALF):
    """Takes in a batch whose targets are all 0, or these [T, B]; gives what is resolved at once."""
    targets = torch.zeros_like(batch.rewards) if targets is None else targets
    return returns.begin(batch, discounts_of(batch, discount), targets[None])


def realised(discount=HALF, hold=0):
    return RealisedReturns(discount, LINEAGE, hold)


def test_an_episode_within_the_batch_is_resolved_at_once():
    # G2 = 3, G1 = 2 + 3/2 = 3.5, G0 = 1 + 3.5/2 = 2.75; their mean is 37/12.
    ((bias, share),) = begin(realised(), make_batch([1, 2, 3], terminated=[0, 0, 1]))
    assert bias.tolist() == [pytest.approx(-37 / 12)]
    assert share == 1


def test_fragments_of_an_episode_are_put_together():
    returns = realised()
    first = make_batch([10, 20])  # as they come to an estimator: scaled
    assert begin(returns, first, torch.tensor([[1.0], [2.0]])) == []
    assert returns.follow(make_batch([3.0], segment_ids=[1]), 10.0) == []
    ((bias, share),) = returns.follow(make_batch([4, 100], terminated=[1, 0], mask=[1, 0], segment_ids=[2]), 10.0)
    # G1 = 20 + (30 + 40/2)/2 = 45, G0 = 10 + 45/2 = 32.5; targets 1 and 2.
    assert bias.tolist() == [pytest.approx((1 - 32.5 + 2 - 45) / 2)]
    assert share == 1


def test_two_fragments_of_an_environment_may_stand_in_one_batch():
    batch = make_batch([[1, 3], [2, 0]], terminated=[[0, 1], [0, 0]], mask=[[1, 1], [1, 0]], env_ids=[7, 7])
    batch = batch._replace(segment_ids=torch.tensor([0, 1]))
    ((bias, share),) = begin(realised(), batch)
    assert bias.tolist() == [pytest.approx(-37 / 12)]
    assert share == 1


def test_a_new_episode_after_the_reset_is_no_part_of_the_old_one():
    returns = realised()
    assert begin(returns, make_batch([1, 9, 1], terminated=[1, 0, 0], mask=[1, 0, 1])) == []
    ((bias, share),) = returns.follow(make_batch([4, 9, 8], terminated=[1, 0, 0], mask=[1, 0, 1], segment_ids=[1]))
    assert bias.tolist() == [pytest.approx(-(1 + 1 + 4 / 2) / 2)]
    assert share == 1


def test_a_time_limit_leaves_its_episode_unresolved():
    ((bias, share),) = begin(
        realised(), make_batch([[1, 5], [1, 1]], truncated=[[0, 0], [1, 0]], terminated=[[0, 0], [0, 1]])
    )
    assert bias.tolist() == [pytest.approx(-(5.5 + 1) / 2)]
    assert share == 0.5
    returns = realised()
    begin(returns, make_batch([1, 1]))
    ((bias, share),) = returns.follow(make_batch([1, 1], truncated=[0, 1], segment_ids=[1]))
    assert math.isnan(bias)
    assert share == 0


def test_nothing_is_waited_for_that_hardly_weighs():
    returns = realised(discount=0.05)  # its square is 0.0025, its third power 0.000125
    assert begin(returns, make_batch([1.0]), discount=0.05) == []
    assert returns.follow(make_batch([1.0], segment_ids=[1])) == []
    assert returns.follow(make_batch([1.0], segment_ids=[2])) == []
    ((bias, share),) = returns.follow(make_batch([1.0], segment_ids=[3]))
    assert bias.tolist() == [pytest.approx(-1.052625)]
    assert share == 1


@pytest.mark.parametrize(
    ("env_ids", "segment_ids"),
    [([0], [2]), ([LINEAGE], [0]), ([2**48], [5])],
    ids=["a fragment was dropped", "begun anew", "another worker"],
)
def test_a_chain_that_breaks_ends_unresolved(env_ids, segment_ids):
    returns = realised()
    begin(returns, make_batch([1.0]))
    assert returns.follow(make_batch([1.0], env_ids=[3])) == []  # of others nothing is concluded
    ((bias, share),) = returns.follow(make_batch([1.0], terminated=[1], env_ids=env_ids, segment_ids=segment_ids))
    assert math.isnan(bias)
    assert share == 0


def test_while_too_many_columns_wait_the_oldest_batch_is_given_up_but_never_the_last(monkeypatch):
    monkeypatch.setattr("a3c.training.probe.realised_returns.MOST_COLUMNS", 5)
    returns = realised(discount=1.0)

    def two(segment):
        return begin(returns, make_batch([[1.0, 1.0]], segment_ids=[segment, segment]), discount=1.0)

    assert two(0) == two(1) == []
    ((bias, share),) = two(2)
    assert math.isnan(bias)
    assert share == 0
    assert len(returns) == 2
    wide = make_batch([[1.0] * 6], env_ids=range(10, 16))
    assert [share for _, share in begin(returns, wide, discount=1.0)] == [0, 0]
    assert len(returns) == 1
    assert [share for _, share in returns.close()] == [0]
    assert len(returns) == 0


def test_a_batch_that_is_given_up_does_not_speak_of_its_short_episodes_alone():
    batch = make_batch([[5.0, 1.0], [5.0, 1.0]], terminated=[[0, 0], [1, 0]])
    returns = realised()
    assert begin(returns, batch) == []
    ((bias, share),) = returns.close()
    assert math.isnan(bias)
    assert share == 0


@pytest.mark.parametrize("hold", [0, 10, 1000])
@pytest.mark.parametrize("every", [1, 4])
def test_the_bias_is_that_of_a_literal_reference(every, hold):
    """Three environments in fragments of 4 steps, with ends of both kinds anywhere."""
    discount, length, count, envs = 0.9, 4, 15, 3  # 0.9 to the 60th is more than 0.001
    generator = torch.Generator().manual_seed(5)
    rewards = torch.rand(length * count, envs, generator=generator)
    draws = torch.rand(length * count, envs, generator=generator)
    mask = torch.ones_like(draws, dtype=torch.bool)
    terminated, truncated = draws < 0.04, draws > 0.98
    for t in range(1, len(draws)):  # the step after an end is the reset
        mask[t] = ~(terminated | truncated)[t - 1]
        terminated[t] &= mask[t]
        truncated[t] &= mask[t]

    def reference(t, env):
        total, weight = 0.0, 1.0
        for later in range(t, len(rewards)):
            total += weight * float(rewards[later, env])
            if terminated[later, env]:
                return total
            if truncated[later, env]:
                return None
            weight *= discount
        raise LookupError("the episode goes on")

    returns, found = realised(discount, hold), []
    for segment in range(count):
        rows = slice(segment * length, (segment + 1) * length)
        fields = {"terminated": terminated[rows], "truncated": truncated[rows], "mask": mask[rows]}
        batch = make_batch(rewards[rows], **fields, segment_ids=[segment] * envs)
        if segment % every:
            found += returns.follow(batch)
            continue
        values = torch.full((length + 1, envs), 0.5)
        targets = [
            estimator(batch, values, batch.rewards, discounts_of(batch, discount)).value_targets
            for estimator in (NStep(1), FullEpisode())
        ]
        found += returns.begin(batch, discounts_of(batch, discount), torch.stack(targets))
        found += [(segment, targets)]
    results = [entry for entry in found if hasattr(entry, "bias")] + returns.close()
    inputs = dict(entry for entry in found if not hasattr(entry, "bias"))
    assert len(results) == len(inputs) == -(-count // every)

    expected = []
    for segment, targets in inputs.items():
        errors, real, given_up = [], 0, False
        for t in range(length):
            for env in range(envs):
                if mask[segment * length + t, env]:
                    real += 1
                    try:
                        known = reference(segment * length + t, env)
                    except LookupError:
                        given_up = True
                        continue
                    if known is not None:
                        errors.append([float(each[t, env]) - known for each in targets])
        errors = [] if given_up else errors
        mean = torch.tensor(errors, dtype=torch.float64).mean(0).tolist() if errors else [math.nan] * 2
        expected.append((len(errors) / real, mean))
    assert any(0 < share < 1 for share, _ in expected)

    def in_order(pairs):
        return sorted(pairs, key=lambda pair: (pair[0], round(pair[1][0], 5) if pair[0] else 0))

    got = in_order((share, bias.tolist()) for bias, share in results)
    for (share, bias), (true_share, true_bias) in zip(got, in_order(expected), strict=True):
        assert share == true_share
        assert bias == pytest.approx(true_bias, abs=1e-6, nan_ok=True)
