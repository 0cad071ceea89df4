import itertools
import sys

import pytest
import torch
from helpers import COUNTDOWN, fit, make_spec
from lightning.pytorch import Callback

from a3c import GAE, FullEpisode, L2Normalised, NStep, RolloutDataModule, VTrace
from a3c.batch import BatchShape, Lost, empty_batch
from a3c.rollouts.dataset import Batching, RolloutDataset
from a3c.rollouts.inline import InlineSource
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask

ESTIMATORS = [FullEpisode(), NStep(8), NStep(8, end_at_episode=True), GAE(8), VTrace(8), L2Normalised(NStep(8))]


class Watch(Callback):
    """Keeps what every update trained on."""

    def __init__(self):
        self.batches, self.lags = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.lags.append(pl_module.mode.weights.version - batch.policy_versions[batch.mask])
        self.batches.append(batch.copy())


def make_dataset(source_class=InlineSource, length=4, num_envs=2, env_kwargs=None, spec=None, **kwargs):
    batching = Batching(**{name: kwargs.pop(name) for name in Batching._fields if name in kwargs})
    spec = make_spec(num_envs=num_envs, env_kwargs=env_kwargs, end_with_episodes=batching.segmented, **(spec or {}))
    shape = BatchShape(length, num_envs, (2,), torch.float32)
    if source_class is InlineSource:
        source = InlineSource(spec, [empty_batch(shape) for _ in range(batching.rollouts_per_update)])
    else:
        source = WorkerPool(CollectTask(spec), 2, 2, shape)
    progress = Progress()
    return RolloutDataset(source, progress, batching, **kwargs), progress


def test_the_budget_ends_the_stream_and_the_last_batch_is_announced_before_it_is_given():
    said = []
    dataset, progress = make_dataset(
        max_env_steps=30, env_kwargs={"lengths": (100,)}, on_last_batch=lambda: said.append(1)
    )
    seen = [(int(batch.mask.sum()), len(said)) for batch in dataset]
    assert seen == [(8, 0), (8, 0), (8, 0), (8, 1)]
    assert progress.env_steps == progress.trained == 32


def test_a_spent_budget_gives_nothing_and_says_so():
    said = []
    dataset, progress = make_dataset(max_env_steps=30, on_last_batch=lambda: said.append(1))
    progress.trained = progress.collected = 30
    assert list(iter(dataset)) == []
    assert said == [1]


def test_a_rollout_is_given_back_only_after_its_update():
    dataset, _ = make_dataset(max_env_steps=24)
    assert [len(dataset._source._free) for _ in dataset] == [0, 0, 0, 0]


def test_steps_that_are_held_for_an_unfinished_episode_are_not_counted_as_trained():
    """The budget is spent by updates, not by what collectors hand over."""
    dataset, progress = make_dataset(
        segmented=True, segments_per_rollout=2, env_kwargs={"lengths": (20,)}, max_env_steps=30
    )
    assert sum(int(batch.mask.sum()) for batch in dataset) == progress.trained == 40


def test_the_dataset_has_a_length_so_that_nothing_is_prefetched():
    assert len(make_dataset()[0]) == sys.maxsize


def test_several_rollouts_join_to_one_update():
    dataset, _ = make_dataset(rollouts_per_update=3, max_env_steps=10)
    (batch,) = iter(dataset)
    assert batch.columns == 6
    assert batch.segment_ids.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("source", [InlineSource, WorkerPool])
@pytest.mark.parametrize("segmented", [False, True])
def test_every_step_is_trained_or_dropped_or_in_flight(source, segmented):
    dataset, progress = make_dataset(
        source,
        segmented=segmented,
        segments_per_rollout=2,
        env_kwargs={"lengths": (3, 1, 7, 2)},
    )
    stream = iter(dataset)
    trained = 0
    for batch in itertools.islice(stream, 25):
        trained += int(batch.mask.sum())
        held = dataset._joiner.steps_held if segmented else 0
        assert progress.trained == trained
        assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
        assert progress.in_flight == held
    stream.close()
    assert trained > 0


@pytest.mark.parametrize("source", [InlineSource, WorkerPool])
def test_an_episode_budget_is_used_up_to_the_last_episode(source):
    """500 episodes a worker, as in the book: one environment each, rollouts that end with them."""
    dataset, progress = make_dataset(
        source,
        num_envs=1,
        segmented=True,
        horizon=4,
        env_kwargs={"lengths": (3, 9, 1)},
        spec={"max_episodes": 6},
    )
    workers = 1 if source is InlineSource else 2
    steps = sum(int(batch.mask.sum()) for batch in dataset)
    assert progress.episodes == 6 * workers
    assert steps == 2 * (3 + 9 + 1) * workers
    assert progress.in_flight == 0


def test_a_request_to_stop_is_seen_while_no_rollout_comes():
    class Silent:
        exhausted = False
        polls = 0

        def start(self):
            pass

        def get(self, timeout):
            self.polls += 1

        def close(self):
            self.closed = True

    source = Silent()
    dataset = RolloutDataset(source, Progress(), should_stop=lambda: source.polls >= 3)
    assert list(iter(dataset)) == []
    assert source.polls == 3
    assert source.closed


@pytest.mark.parametrize("returns", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_sync_is_never_stale_on_fixed_horizons(returns):
    watch = Watch()
    fit(returns, callbacks=[watch], max_env_steps=2000, envs_per_worker=1)
    assert len(watch.lags) > 10
    assert max(int(lags.max()) for lags in watch.lags) == 0


def test_async_lag_is_measured_and_one_workers_is_bounded_by_its_slots():
    model, _, _ = fit(NStep(8), mode="async", workers=1, max_env_steps=4000)
    assert 0 < model.lags.mean <= model.lags.largest <= 2


def test_full_episodes_arrive_whole_and_padding_is_masked():
    watch = Watch()
    fit(FullEpisode(), callbacks=[watch], max_env_steps=1500, envs_per_worker=4)
    for batch in watch.batches:
        lengths = batch.mask.sum(0)
        for column in range(batch.columns):
            length = int(lengths[column])
            assert batch.mask[:length, column].all()
            assert batch.terminated[length - 1, column] or batch.truncated[length - 1, column]
            assert not batch.terminated[: length - 1, column].any()
    ids = [(int(e), int(s)) for batch in watch.batches for e, s in zip(batch.env_ids, batch.segment_ids, strict=True)]
    assert len(set(ids)) == len(ids)  # no episode twice
    for env in range(4):
        ordinals = [segment for e, segment in ids if e == env]
        assert ordinals == list(range(len(ordinals)))  # and none left out


def test_more_rollouts_an_update_than_slots_does_not_hang():
    model, data, _ = fit(NStep(4), mode="async", workers=1, rollouts_per_update=7, max_env_steps=600)
    assert model.updates == -(-600 // (7 * 4 * 4)) or data.progress.env_steps >= 600


def test_two_fits_with_one_data_module_each_have_the_whole_budget():
    model, data, trainer = fit(NStep(8), max_env_steps=500)
    updates = model.updates
    trainer.should_stop = False
    trainer.fit(model, data)
    assert 500 <= data.progress.env_steps < 532
    assert model.updates >= 2 * updates - 1


def test_a_resumed_run_goes_on_to_a_larger_budget(tmp_path):
    model, data, trainer = fit(NStep(8), max_env_steps=1000)
    assert 1000 <= data.progress.env_steps < 1032
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    again, more, _ = fit(NStep(8), max_env_steps=2000, ckpt_path=path)
    assert 2000 <= more.progress.env_steps < 2032
    assert again.updates > model.updates
    assert more.progress.episodes > data.progress.episodes
    assert more.progress.clock.seconds > data.progress.clock.seconds
    done, same, _ = fit(NStep(8), max_env_steps=500, ckpt_path=path)
    assert done.updates == model.updates  # its budget is used up already: nothing is trained
    assert same.progress.env_steps == data.progress.env_steps


def test_a_resumed_run_plays_the_rest_of_its_episodes(tmp_path):
    budget = {"max_env_steps": None, "envs_per_worker": 1}
    model, data, trainer = fit(NStep(8, end_at_episode=True), max_episodes_per_worker=5, **budget)
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    _, more, _ = fit(NStep(8, end_at_episode=True), max_episodes_per_worker=8, ckpt_path=path, **budget)
    done, same, _ = fit(NStep(8, end_at_episode=True), max_episodes_per_worker=5, ckpt_path=path, **budget)
    assert (data.progress.episodes, more.progress.episodes, same.progress.episodes) == (5, 8, 5)
    assert done.updates == model.updates


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", -1),
        ("workers", 0),
        ("envs_per_worker", 0),
        ("rollouts_per_update", 0),
        ("fragment_steps", 0),
        ("max_env_steps", 0),
        ("max_env_steps", -5),
        ("max_episodes_per_worker", 0),
        ("max_episode_steps", 0),
        ("seed", -1),
        ("mode", "hogwild!"),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got {value!r}, must be"):
        RolloutDataModule(**{field: value})


def test_a_run_without_any_budget_is_refused():
    with pytest.raises(ValueError, match="max_env_steps"):
        RolloutDataModule(max_env_steps=None)


def test_whole_episodes_without_a_time_limit_are_refused_before_the_start():
    with pytest.raises(ValueError, match=r"max_episode_steps: got none.*no time limit"):
        fit(FullEpisode(), env=COUNTDOWN)


def test_whole_episodes_that_do_not_fit_in_memory_are_refused_with_the_bytes(monkeypatch):
    monkeypatch.setattr("a3c.training.modes.base.available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"8 episodes of 500 steps take [\d,]+ bytes, and 1,000 are available"):
        fit(FullEpisode())


def test_the_clock_stands_still_in_a_pause(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("a3c.rollouts.progress.time.perf_counter", lambda: now[0])
    progress = Progress()
    progress.clock.start()
    now[0] = 2.0
    with progress.clock.paused():
        now[0] = 10.0
    now[0] = 11.0
    progress.clock.stop()
    now[0] = 50.0
    assert progress.clock.seconds == 3.0


class LosesOne:
    """An inline source that loses its collector after two rollouts, and gives one more."""

    exhausted = False

    def __init__(self, source, lost_steps):
        self._source, self._lost_steps, self._given = source, lost_steps, 0

    def start(self):
        self._source.start()

    def get(self, timeout):
        self._given += 1
        return Lost(0, self._lost_steps, "worker_death") if self._given == 3 else self._source.get(timeout)

    def close(self):
        self._source.close()


def test_unfinished_segments_of_a_lost_collector_are_dropped_with_what_it_lost():
    dataset, progress = make_dataset(
        segmented=True, segments_per_rollout=2, env_kwargs={"lengths": (12,)}, max_env_steps=30
    )
    dataset._source = LosesOne(dataset._source, lost_steps=3)
    batches = list(iter(dataset))
    held = 2 * 8  # two rollouts of 4 steps in 2 environments, whose episodes last 12
    assert progress.dropped["worker_death"] == held + 3
    assert progress.in_flight == dataset._joiner.steps_held
    assert all(batch.observations[0, :, 1].eq(8).all() for batch in batches[:1])  # nothing before the loss is joined
