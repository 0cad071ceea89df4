"""Rows 30 and 31: the shortest episodes, batches without a step, and every split of a short chain."""

import math

import pytest
import torch
from helpers import COUNTDOWN, fit, make_collector, make_network
from lightning.pytorch import Callback

from a3c import GAE, FullEpisode, L2Normalised, NStep, Objective, VTrace
from a3c.batch import BatchShape, empty_batch
from a3c.learner.guard import UpdateGuard
from a3c.learner.metrics import mean_lag
from a3c.rollouts.progress import Progress
from a3c.rollouts.segments import SegmentJoiner

ESTIMATORS = {
    "FullEpisode": FullEpisode,
    "NStep(1)": lambda: NStep(1),
    "NStep(4)": lambda: NStep(4),
    "NStep(4) to the end": lambda: NStep(4, end_at_episode=True),
    "GAE": lambda: GAE(4, 0.5),
    "VTrace": lambda: VTrace(4),
    "L2Normalised(FullEpisode)": lambda: L2Normalised(FullEpisode()),
    "L2Normalised(NStep)": lambda: L2Normalised(NStep(4)),
}
HALF = 0.5
STATE_VALUES = torch.tensor([10.0, 20.0, 30.0, 40.0])  # of the states after 0, 1, 2 and 3 steps


def collected(lengths, *, episode=3, truncate=False, columns=1):
    """Gives fragments of these lengths, the first of which begins with an episode; rewards are 1, 2, 3 …"""
    collector = make_collector(columns, {"lengths": (episode,), "truncate": truncate})
    for length in lengths:
        batch = empty_batch(BatchShape(length, columns, (2,), torch.float32))
        collector.collect(batch)
        yield batch
    collector.close()


def targets_of(estimator, batch):
    """Asks an estimator, with a critic that says the states' values and the policy that acted."""
    values = STATE_VALUES[batch.observations[..., 1].long()]
    discounts = HALF * (~batch.terminated).float()
    return estimator(batch, values, batch.behaviour_log_probs, discounts)


# ---------------------------------------------------------------- row 30: episodes of one step, and of none


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if not name.startswith("L2")])
def test_row_30_an_episode_of_one_step_has_the_exact_target(name, truncate):
    (batch,) = collected([8], episode=1, truncate=truncate, columns=2)
    assert batch.mask.sum() == 8  # every other step is a reset
    advantages, targets, _ = targets_of(ESTIMATORS[name](), batch)
    expected = 1 + HALF * 20 if truncate else 1
    assert targets[batch.mask].tolist() == [expected] * 8
    assert advantages[batch.mask].tolist() == [expected - 10] * 8


def test_row_30_normalised_returns_of_episodes_of_one_step_are_finite_and_1():
    (batch,) = collected([1], episode=1)
    assert targets_of(L2Normalised(FullEpisode()), batch).value_targets.tolist() == [[1.0]]
    nothing = batch._replace(rewards=torch.zeros(1, 1))
    assert targets_of(L2Normalised(FullEpisode()), nothing).value_targets.tolist() == [[0.0]]


class Rows(Callback):
    def __init__(self):
        self.rows = []

    def on_fit_start(self, trainer, pl_module):
        pl_module.log_now, log_now = (lambda metrics: (self.rows.append(metrics), log_now(metrics))), pl_module.log_now


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *(("sync", name) for name in ESTIMATORS),
        *((mode, name) for mode in ("async", "hogwild") for name in ("FullEpisode", "L2Normalised(NStep)")),
    ],
)
def test_row_30_a_run_of_episodes_of_one_step_has_finite_metrics_and_exact_counters(name, mode):
    rows = Rows()
    model, data, _ = fit(
        ESTIMATORS[name](),
        env=COUNTDOWN,
        env_kwargs={"lengths": (1,)},
        max_episode_steps=5,
        mode=mode,
        fragment_steps=4,
        max_env_steps=300,
        callbacks=[rows],
    )
    progress = data.progress
    assert model.updates > 0
    assert model.skipped_updates == 0
    assert rows.rows
    for row in rows.rows:
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert progress.metrics()["rollout/episode_length"] == 1
    assert progress.metrics()["rollout/episode_return"] == 1
    assert progress.env_steps >= 300
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert all(parameter.isfinite().all() for parameter in model.network.parameters())


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_row_30_a_batch_without_a_real_step_divides_by_nothing(name, reduction):
    batch = empty_batch(BatchShape(3, 2, (2,), torch.float32))
    assert not batch.mask.any()
    estimator, network = ESTIMATORS[name](), make_network()
    assert all(numbers.isfinite().all() for numbers in targets_of(estimator, batch)[:2])
    objective = Objective(estimator, entropy_coefficient=0.1, reduction=reduction)
    loss, metrics = objective(network, batch)
    loss.backward()
    assert loss == 0
    assert all(metric.isfinite() for metric in metrics.values())
    assert UpdateGuard(0.5, 0).admit(network, [loss.detach()]) == 0
    assert all((parameter.grad == 0).all() for parameter in network.parameters() if parameter.grad is not None)


def test_row_30_a_fragment_without_a_real_step_adds_no_segment():
    joiner = SegmentJoiner(None)
    batch = empty_batch(BatchShape(1, 2, (2,), torch.float32))  # its one step is a reset
    joiner.add(batch)
    assert (len(joiner), joiner.steps_held) == (0, 0)


def test_row_30_means_of_nothing_are_left_out():
    progress = Progress()
    assert "rollout/episode_return" not in progress.metrics()
    assert progress.long_run_episode_length is None
    assert progress.take_rate() == 0
    assert mean_lag({}) is None


# ---------------------------------------------------------------- row 31: every split of a chain of three states

SPLITS = [(3,), (1, 2), (2, 1), (1, 1, 1)]
WHOLE = {
    False: [1 + HALF * (2 + HALF * 3), 2 + HALF * 3, 3],
    True: [1 + HALF * (2 + HALF * (3 + HALF * 40)), 2 + HALF * (3 + HALF * 40), 3 + HALF * 40],
}
# Where a fragment is cut off, the critic says 20 after one step and 30 after two.
CUT = {
    (3,): WHOLE,
    (1, 2): {truncate: [1 + HALF * 20, *WHOLE[truncate][1:]] for truncate in (False, True)},
    (2, 1): {truncate: [1 + HALF * (2 + HALF * 30), 2 + HALF * 30, WHOLE[truncate][2]] for truncate in (False, True)},
    (1, 1, 1): {truncate: [1 + HALF * 20, 2 + HALF * 30, WHOLE[truncate][2]] for truncate in (False, True)},
}


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("estimator", [NStep(3), GAE(3, 1.0), VTrace(3)], ids=["n_step", "gae_1", "vtrace"])
def test_row_31_a_collected_chain_has_the_hand_computed_targets_on_every_split(estimator, split, truncate):
    targets = [targets_of(estimator, batch).value_targets[:, 0] for batch in collected(split, truncate=truncate)]
    assert torch.cat(targets).tolist() == CUT[split][truncate]


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("split", SPLITS)
def test_row_31_a_chain_joined_from_any_split_has_the_targets_of_the_whole(split, truncate):
    joiner = SegmentJoiner(None)
    for batch in collected([*split, *split], truncate=truncate):  # and the episode after it
        joiner.add(batch)
    joined = joiner.take(2)
    targets = targets_of(FullEpisode(), joined).value_targets
    assert targets.T.tolist() == [WHOLE[truncate]] * 2


def test_row_31_the_next_episode_begins_anew_within_a_fragment():
    (batch,) = collected([7])  # an episode, its reset step, and the next episode
    assert batch.mask[:, 0].tolist() == [True] * 3 + [False] + [True] * 3
    targets = targets_of(NStep(7), batch).value_targets[:, 0]
    assert targets[batch.mask[:, 0]].tolist() == WHOLE[False] * 2
