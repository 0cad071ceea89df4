"""Limits on policy lag, and lag that is injected."""

import pytest
import torch
from builders import make_batch
from helpers import COUNTDOWN, fit, make_spec
from lightning.pytorch import Callback

from a3c import FullEpisode, NStep, RolloutDataModule
from a3c.batch import BatchShape, empty_batch
from a3c.rollouts.dataset import Batching, RolloutDataset
from a3c.rollouts.delay_line import DelayLine
from a3c.rollouts.inline import InlineSource
from a3c.rollouts.progress import Progress
from a3c.rollouts.segments import SegmentJoiner

SHAPE = BatchShape(5, 2, (2,), torch.float32)


class Lags(Callback):
    """Keeps every update's lags, of all its real steps, and the steps it trained on."""

    def __init__(self):
        self.first, self.all, self.steps = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        lags = pl_module.mode.weights.version - batch.policy_versions
        self.first.append(lags[0].tolist())
        self.all.append(sorted(set(lags[batch.mask].tolist())))
        keys = zip(batch.env_ids.tolist(), batch.segment_ids.tolist(), strict=True)
        self.steps += [
            (*key, pl_module.mode.weights.version - lag) for key, lag in zip(keys, lags[0].tolist(), strict=True)
        ]


def version_batch(version):
    return make_batch([[1.0]])._replace(policy_versions=torch.tensor([[version]]))


def test_a_delay_line_gives_a_batch_exactly_when_it_is_due():
    line = DelayLine(2)
    taken = {}
    for version in range(5):
        line.add(version, version_batch(version))
        taken[version] = line.take(version)
    assert [taken[version] is None for version in range(5)] == [True, True, False, False, False]
    assert [taken[version].policy_versions.item() for version in (2, 3, 4)] == [0, 1, 2]
    assert line.take(4) is None


def test_a_delay_line_keeps_a_copy():
    line, batch = DelayLine(1), version_batch(0)
    line.add(0, batch)
    batch.rewards.fill_(9.0)
    assert line.take(1).rewards.item() == 1.0


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("rollouts_per_update", [1, 2])
@pytest.mark.parametrize("lag", [0, 1, 5])
def test_injected_lag_is_exact_after_the_warm_up(mode, lag, rollouts_per_update):
    lags = Lags()
    model, data, _ = fit(
        NStep(8),
        callbacks=[lags],
        mode=mode,
        inject_lag=lag,
        rollouts_per_update=rollouts_per_update,
        max_env_steps=1500,
    )
    assert len(lags.all) == model.updates > 15
    assert lags.all[:lag] == [[0]] * lag  # the warm-up trains on fresh ones
    assert lags.all[lag:] == [[lag]] * (model.updates - lag)
    assert set(model.lags.counts) == {lag}
    assert sum(model.lags.counts.values()) == 4 * rollouts_per_update * (model.updates - lag)
    assert len(set(lags.steps)) == len(lags.steps)  # nothing is trained on twice
    progress = data.progress
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert progress.dropped.total() == 0  # one worker: nothing is collected that is not needed
    held = (lag + 1) * rollouts_per_update * 32
    assert 0 <= progress.in_flight <= held


def test_with_more_workers_than_rollouts_the_surplus_is_dropped_and_counted():
    lags = Lags()
    _, data, _ = fit(NStep(8), callbacks=[lags], mode="async", workers=3, inject_lag=2, max_env_steps=4000)
    assert lags.all[2:] == [[2]] * (len(lags.all) - 2)
    progress = data.progress
    assert progress.dropped["inject_lag"] > 0
    assert progress.env_steps == progress.trained + progress.dropped["inject_lag"] >= 4000
    assert progress.collected == progress.env_steps + progress.in_flight


def test_with_injected_lag_an_episodes_last_step_is_so_old_and_the_others_older():
    lags = Lags()
    fit(FullEpisode(), callbacks=[lags], inject_lag=3, envs_per_worker=1, fragment_steps=500, max_env_steps=1500)
    assert lags.all[:3] == [[0]] * 3
    assert lags.all[3:] == [[3]] * (len(lags.all) - 3)
    assert len(lags.all) > 10


def test_the_warm_up_is_logged_apart():
    rows = []

    class Rows(Callback):
        def on_fit_start(self, trainer, pl_module):
            pl_module.log_now, log_now = (lambda metrics: (rows.append(metrics), log_now(metrics))), pl_module.log_now

    model, _, _ = fit(NStep(8), callbacks=[Rows()], inject_lag=60, max_env_steps=4000)
    first, second = rows[:2]  # Lightning's default is a line every 50 updates
    assert first["warm_up/lag/policy_versions"] == 0
    assert not any(key.startswith(("loss/", "lag/")) for key in first)
    assert {"warm_up/loss/total", "loss/total", "warm_up/gradient/norm", "gradient/norm"} <= set(second)
    assert second["lag/policy_versions"] == 60
    assert second["lag/histogram"] == {60: 4 * 40}
    assert model.updates > 100


def test_no_rollout_older_than_the_limit_is_trained_on():
    lags = Lags()
    model, data, _ = fit(NStep(8), callbacks=[lags], mode="async", workers=3, max_lag=1, max_env_steps=6000)
    assert max(max(lags) for lags in lags.first) <= 1
    progress = data.progress
    assert progress.dropped["max_lag"] > 0
    assert progress.trained + progress.dropped["max_lag"] == progress.env_steps >= 6000
    assert model.updates == len(lags.first)


def test_a_limit_of_zero_ends_at_the_budget_too():
    lags = Lags()
    _, data, _ = fit(NStep(8), callbacks=[lags], mode="async", workers=2, max_lag=0, max_env_steps=3000)
    assert {lag for lags in lags.first for lag in lags} == {0}
    assert data.progress.env_steps >= 3000


def test_a_limit_judges_an_episode_by_its_first_step():
    spec = make_spec(num_envs=2, env_kwargs={"lengths": (3, 12)})
    version, progress = [0], Progress()
    dataset = RolloutDataset(
        InlineSource(spec, [empty_batch(SHAPE)]),
        progress,
        Batching(segmented=True, segments_per_rollout=2, max_lag=2, max_env_steps=500),
        version=lambda: version[0],
    )
    lengths = []
    for batch in dataset:
        assert int((version[0] - batch.policy_versions[0]).max()) <= 2
        lengths += batch.mask.sum(0).tolist()
        version[0] += 1
        spec.weights.publish(_network_of(spec))
    assert progress.env_steps == progress.trained + progress.dropped["max_lag"]
    assert lengths


def _network_of(spec):
    import pickle

    return pickle.loads(spec.network)


def test_segments_older_than_a_version_are_dropped():
    joiner = SegmentJoiner(None)
    for version in (1, 4):
        batch = make_batch([[1.0], [1.0], [1.0]], terminated=[0, 0, 1])
        joiner.add(batch._replace(policy_versions=torch.tensor([[version], [9], [9]])))
    assert joiner.drop_before(4) == 3
    assert len(joiner) == 1
    assert joiner.take(1).policy_versions[0].item() == 4
    assert joiner.drop_before(99) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_lag": -1}, "^max_lag: got -1, must be at least 0"),
        ({"inject_lag": -2}, "^inject_lag: got -2, must be at least 0"),
        ({"inject_lag": 3, "mode": "hogwild"}, "^inject_lag: got 3 in mode hogwild, must be none there"),
        ({"inject_lag": 3, "max_lag": 2}, "^max_lag: got 2, must be at least inject_lag, 3"),
    ],
)
def test_lags_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RolloutDataModule(env=COUNTDOWN, **arguments)
