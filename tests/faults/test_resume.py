"""Rows 23, 24, 41, 42: a run that is interrupted and goes on is the run that never was interrupted."""

import copy
import hashlib
import io
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import SyncVectorEnv
from helpers import COUNTDOWN, fit, make_collector, make_network, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback
from scripted_envs import Wander
from streams import cut_streams

from a3c import GAE, FullEpisode, NStep, VTrace
from a3c.batch import BatchShape, empty_batch
from a3c.envs.spec import EnvSpec
from a3c.envs.state import EnvStateError, from_plain, get_env_state, set_env_state, to_plain
from a3c.learner.hogwild.shared_optimizer import step_counts
from a3c.learner.schedules import Linear
from a3c.rollouts.collector import Life
from a3c.rollouts.segments import SegmentJoiner
from a3c.rollouts.weights import SharedWeights

UPDATES = 20
WANDER = "scripted_envs:Wander-v0"


class Until(Callback):
    """Ends the run after so many updates, or asks it to when a fragment has been collected.

    Draws from every generator of the process at each update, and keeps what it drew and the steps
    that were trained on.

    Args:
        updates: of the whole run, those before a resumption included.
        fragment: number of the fragment, from 1, after which should_stop is set.
        save: updates after which a checkpoint is saved, and where.
    """

    def __init__(self, updates=UPDATES, fragment=None, save=None):
        self.updates, self.fragment, self.save = updates, fragment, save
        self.drawn, self.trained = {}, {}

    def on_train_start(self, trainer, pl_module):
        source, count = trainer.datamodule.mode.source, 0
        collect = source.get

        def get(timeout):
            nonlocal count
            count += 1
            rollout = collect(timeout)
            trainer.should_stop = trainer.should_stop or count == self.fragment
            return rollout

        source.get = get

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.drawn[pl_module.updates] = (torch.rand(()).item(), random.random(), np.random.rand())
        self.trained[pl_module.updates] = batch.copy().to("cpu")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.updates >= self.updates:
            trainer.should_stop = True
        if self.save is not None and pl_module.updates == self.save[0]:
            trainer.save_checkpoint(self.save[1])


def run(case, until, ckpt_path=None):
    """Runs a case's fit, until 20 updates unless told otherwise."""
    case = {"max_env_steps": 10**6, **copy.deepcopy(case)}
    random.seed(1 if ckpt_path is None else 2)
    np.random.seed(1 if ckpt_path is None else 2)
    return fit(callbacks=[until], ckpt_path=ckpt_path, **case)


def everything(run):
    """Gives all that is to be the same, but for the times."""
    model, data, trainer = run
    progress = {key: value for key, value in data.progress.state_dict().items() if key != "train_seconds"}
    return {
        "weights": dict(model.network.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict(),
        "updates": (model.updates, model.gradient_steps, model.mode.weights.version, trainer.global_step),
        "progress": {**progress, "collected": data.progress.collected, "in_flight": data.progress.in_flight},
        "rates": model.learning.rates.metrics(data.progress.env_steps),
        "lags": model.lags.state_dict(),
        "collection": data.state_dict()["collection"],
    }


def assert_same(ours, theirs, path="run"):
    """Compares values of any depth, bit for bit."""
    assert type(ours) is type(theirs), path
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, path
        assert torch.equal(ours, theirs), path
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype, path
        assert np.array_equal(ours, theirs), path
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            assert_same(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), path
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{path}[{index}]")
    else:
        assert ours == theirs, path


def assert_goes_on(case, path, whole, watched, again=None):
    """Resumes from a checkpoint, and compares everything with the run that was never interrupted."""
    assert "lost" not in torch.load(path, weights_only=True)["RolloutDataModule"]["collection"]["source"]
    rest = Until() if again is None else again
    resumed = run(case, rest, path)
    for updates, drawn in rest.drawn.items():
        assert drawn == watched.drawn[updates]
        assert_same(tuple(rest.trained[updates]), tuple(watched.trained[updates]), f"update {updates}")
    assert_same(everything(resumed), everything(whole))


CASES = {
    "n steps": {"returns": NStep(8), "envs_per_worker": 8},
    "n steps, one environment": {"returns": NStep(8), "envs_per_worker": 1},
    "segments": {"returns": NStep(5, end_at_episode=True), "envs_per_worker": 8, "fragment_steps": 5},
    "segments, one environment": {"returns": NStep(8, end_at_episode=True), "envs_per_worker": 1},
    "several rollouts": {"returns": GAE(8), "rollouts_per_update": 3},
    "delayed": {"returns": VTrace(8), "inject_lag": 4, "rollouts_per_update": 2},
    "episodes": {"returns": FullEpisode(), "envs_per_worker": 8, "fragment_steps": 8},
    "episodes, one environment": {"returns": FullEpisode(), "envs_per_worker": 1, "rollouts_per_update": 2},
    "delayed episodes": {"returns": FullEpisode(), "fragment_steps": 8, "inject_lag": 3},
    "a limit on lag": {"returns": FullEpisode(), "envs_per_worker": 8, "fragment_steps": 4, "max_lag": 3},
    "schedules": {
        "returns": NStep(8),
        "max_env_steps": 1000,
        "learning": {
            "lr_schedule": Linear(),
            "entropy_schedule": Linear(0.5, env_steps=500),
            "entropy_coefficient": 0.01,
        },
    },
    "terminal reward": {"returns": NStep(8), "envs_per_worker": 8, "terminal_reward": -10.0},
    "terminal reward, one environment": {"returns": GAE(8), "envs_per_worker": 1, "terminal_reward": -10.0},
    "time limit": {"returns": NStep(8), "envs_per_worker": 8, "max_episode_steps": 11},
    "time limit, one environment": {"returns": NStep(8), "envs_per_worker": 1, "max_episode_steps": 11},
    "the user's environment": {"returns": GAE(6), "envs_per_worker": 3, "env": WANDER},
    "the user's one environment": {"returns": FullEpisode(), "envs_per_worker": 1, "env": WANDER},
    "normalisers": {"returns": NStep(8), "envs_per_worker": 2, "env": "scripted_envs:Normalised-v0"},
    "everything normalised": {
        "returns": NStep(8),
        "envs_per_worker": 4,
        "env": WANDER,
        "normalise_rewards": True,
        "clip_rewards": 1.0,
        "learning": {
            "normalise_advantages": True,
            "normalise_observations": True,
            "clip_observations": 2.0,
            "popart": True,
        },
    },
    "passes and minibatches": {
        "returns": GAE(8),
        "learning": {"passes": 3, "minibatches": 4, "ratio_clip": 0.2, "target_kl": 0.02, "recompute_targets": True},
    },
    "passes over episodes": {"returns": FullEpisode(), "learning": {"passes": 2, "minibatches": 2}},
    "a memory": {
        "returns": NStep(8),
        "envs_per_worker": 8,
        "network": {"memory": "lstm", "memory_size": 8},
    },
    "a memory, delayed episodes": {
        "returns": FullEpisode(),
        "envs_per_worker": 4,
        "fragment_steps": 8,
        "inject_lag": 3,
        "network": {"memory": "gru", "memory_size": 8},
    },
    "discarded rollouts": {
        "returns": FullEpisode(),
        "fragment_steps": 4,
        "env": WANDER,
        "env_kwargs": {"bad": 0.02},
        "on_bad_values": "discard",
    },
    "Acrobot": {"returns": NStep(8), "envs_per_worker": 2, "env": "Acrobot-v1", "max_episode_steps": 40},
    "MountainCar": {"returns": NStep(8), "envs_per_worker": 1, "env": "MountainCar-v0", "max_episode_steps": 40},
    "Pendulum": {"returns": NStep(8), "envs_per_worker": 2, "env": "Pendulum-v1", "max_episode_steps": 30},
    "Taxi with its masks": {"returns": NStep(8), "envs_per_worker": 2, "env": "Taxi-v4", "max_episode_steps": 30},
}


@pytest.fixture(scope="module")
def whole_runs():
    """The runs that are never interrupted, each made once, with a checkpoint from its middle."""
    return {}


def whole_run(whole_runs, name, folder):
    if name not in whole_runs:
        path = folder.mktemp("whole") / "middle.ckpt"
        watched = Until(save=(11, path))
        whole_runs[name] = (run(CASES[name], watched), watched, path)
    return whole_runs[name]


@pytest.mark.parametrize("name", CASES)
def test_row_23_a_run_that_goes_on_is_the_run_that_never_stopped(name, whole_runs, tmp_path_factory, tmp_path):
    """Stopped after an update, as by a second run's larger budget, and saved after the fit."""
    whole, watched, _ = whole_run(whole_runs, name, tmp_path_factory)
    assert whole[0].updates == UPDATES
    *_, trainer = run(CASES[name], Until(updates=7))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert_goes_on(CASES[name], tmp_path / "run.ckpt", whole, watched)


@pytest.mark.parametrize("name", CASES)
def test_row_23_a_checkpoint_from_the_middle_of_a_run_goes_on_as_the_run_did(name, whole_runs, tmp_path_factory):
    whole, watched, path = whole_run(whole_runs, name, tmp_path_factory)
    assert_goes_on(CASES[name], path, whole, watched)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fragment", [1, 11])
def test_row_23_a_request_to_stop_in_the_middle_of_a_collection_loses_nothing(
    name, fragment, whole_runs, tmp_path_factory, tmp_path
):
    whole, watched, _ = whole_run(whole_runs, name, tmp_path_factory)
    model, data, trainer = run(CASES[name], Until(fragment=fragment))
    assert model.updates < UPDATES
    assert data.progress.collected == data.progress.env_steps + data.progress.in_flight
    assert data.progress.collected > data.progress.trained
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert_goes_on(CASES[name], tmp_path / "run.ckpt", whole, watched)


def test_row_23_ten_updates_and_ten_more_are_twenty(tmp_path):
    """Divided by the budget, and by processes' ends in between: here, by a new trainer for each."""
    sizes = {"returns": FullEpisode(), "envs_per_worker": 8, "fragment_steps": 8}
    whole = run({**sizes, "max_env_steps": 6000}, Until(updates=10**6))
    *_, trainer = run({**sizes, "max_env_steps": 2500}, Until(updates=10**6))
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    *_, trainer = run({**sizes, "max_env_steps": 2500}, Until(updates=10**6), tmp_path / "first.ckpt")
    trainer.save_checkpoint(tmp_path / "second.ckpt")  # its budget was used up: nothing trained, and nothing lost
    resumed = run({**sizes, "max_env_steps": 6000}, Until(updates=10**6), tmp_path / "second.ckpt")
    assert_same(everything(resumed), everything(whole))


def test_row_23_what_was_collected_of_a_used_up_episode_budget_is_trained_on_after_a_stop(tmp_path):
    case = {
        "returns": NStep(3, end_at_episode=True),
        "envs_per_worker": 2,
        "max_env_steps": None,
        "max_episodes_per_worker": 4,
    }
    counting = Until()
    whole = run(case, counting)
    assert whole[1].progress.episodes >= 4
    for fragment in range(1, 40):
        model, data, trainer = run(case, Until(fragment=fragment))
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        if data.mode._episodes_left() == 0:
            break
    assert model.updates < whole[0].updates
    resumed = run(case, Until(), tmp_path / "run.ckpt")
    assert_same(everything(resumed), everything(whole))


# ---------------------------------------------------------------- where it cannot go on


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "a3c.training.modes.sync"]


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (COUNTDOWN, r"scripted_envs.Countdown has no get_state() and set_state(state)"),
        (
            "scripted_envs:Elusive-v0",
            "the state of scripted_envs.Elusive cannot be had: TypeError: got Elusive, must be",
        ),
    ],
)
def test_row_23_an_environment_that_cannot_say_its_state_starts_anew_with_one_warning(tmp_path, caplog, env, reason):
    case = {"returns": NStep(8), "env": env}
    model, data, trainer = run(case, Until(updates=5))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert warnings_of(caplog) == []
    again, more, _ = run(case, Until(), tmp_path / "run.ckpt")
    (warning,) = warnings_of(caplog)
    assert env in warning
    assert reason in warning
    assert "start anew, and the resumed run is not bit-equal" in warning
    assert (model.updates, again.updates) == (5, UPDATES)
    assert more.progress.env_steps == more.progress.trained > data.progress.trained
    assert more.progress.collected == more.progress.env_steps + more.progress.in_flight


@pytest.mark.parametrize(
    "change",
    [{"envs_per_worker": 2}, {"seed": 2}, {"terminal_reward": -1.0}, {"inject_lag": 1}, {"returns": NStep(4)}],
    ids=lambda change: next(iter(change)),
)
def test_row_23_another_run_than_the_checkpoints_starts_its_environments_anew_and_says_so(tmp_path, caplog, change):
    case = {"returns": NStep(8)}
    *_, trainer = run(case, Until(updates=5))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    model, data, _ = run({**case, **change}, Until(), tmp_path / "run.ckpt")
    (warning,) = warnings_of(caplog)
    assert "the checkpoint is of a run with" in warning
    assert model.updates == UPDATES
    assert data.progress.collected == data.progress.env_steps + data.progress.in_flight


def test_row_23_a_checkpoint_of_another_mode_goes_on_in_sync_with_a_warning(tmp_path, caplog):
    *_, trainer = fit(mode="async", max_env_steps=500)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    model, _, _ = run({"returns": NStep(8), "max_env_steps": 1000}, Until(10**6), tmp_path / "run.ckpt")
    assert "of a run with mode async" in warnings_of(caplog)[0]
    assert model.mode.weights.version == model.updates


def test_row_23_a_rollout_torn_by_an_exception_is_not_carried(tmp_path, caplog):
    """The environment raises in the middle of a fragment; what was trained before it stays."""

    class SaveOnException(Callback):
        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "run.ckpt")

    case = {"env": "scripted_envs:Broken-v0", "envs_per_worker": 1, "max_env_steps": 200}
    with pytest.raises(ZeroDivisionError):
        fit(callbacks=[SaveOnException()], env_kwargs={"at_step": 21}, **case)
    collection = torch.load(tmp_path / "run.ckpt", weights_only=True)["RolloutDataModule"]["collection"]
    assert collection["source"] == {"lost": "an exception ended the run in the middle of a rollout"}
    _, data, _ = fit(env_kwargs={"at_step": 21_000}, ckpt_path=tmp_path / "run.ckpt", **case)
    assert data.progress.env_steps >= 200
    assert len(warnings_of(caplog)) == 1


def test_row_23_a_rollout_that_never_reached_the_learner_is_not_carried(tmp_path):
    """An exception between its collection and the update: the environments are ahead of the rollouts."""

    class Fails(Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.datamodule.mode._dataset._reason_to_drop = lambda *_: 1 / 0

        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "run.ckpt")

    with pytest.raises(ZeroDivisionError):
        fit(callbacks=[Fails()])
    collection = torch.load(tmp_path / "run.ckpt", weights_only=True)["RolloutDataModule"]["collection"]
    assert "an exception ended the run" in collection["dataset"]["lost"]


# ---------------------------------------------------------------- pieces


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@settings(max_examples=80, deadline=None)
@given(cut_streams(), st.sampled_from([None, 1, 3]), st.data())
def test_row_23_a_joiner_goes_on_from_its_state_anywhere(cut_stream, horizon, data):
    _, fragments = cut_stream
    stop = data.draw(st.integers(0, len(fragments)), label="fragments before")
    one, two = SegmentJoiner(horizon), SegmentJoiner(horizon)
    for fragment in fragments[:stop]:
        one.add(fragment)
    taken = data.draw(st.integers(0, len(one)), label="segments taken")
    if taken:
        one.take(taken)
    two.load_state_dict(through_a_file(one.state_dict()))
    assert (two.steps_held, len(two)) == (one.steps_held, len(one))
    for fragment in fragments[stop:]:
        one.add(fragment)
        two.add(fragment)
    assert_same(two.state_dict(), one.state_dict())
    if len(one):
        assert_same(tuple(two.take(len(one))), tuple(one.take(len(one))))


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_row_23_what_an_environment_says_comes_back_as_it_was(kind):
    generator = np.random.Generator(getattr(np.random, kind)(3))
    generator.integers(5, dtype=np.int32)  # leaves half a word over
    path = np.arange(6, dtype=np.uint8).reshape(2, 3)
    state = {
        "generator": generator,
        "numbers": (1, 2.5, np.float32(0.1), np.int16(3), np.bool_(True)),
        3: [None, True, "text", path],
        "tensor": torch.arange(3),
    }
    plain = to_plain(state)
    path[:] = 0  # the environment goes on, its state does not
    back = from_plain(through_a_file(plain))
    assert_same(back["numbers"], (1, 2.5, np.float32(0.1), np.int16(3), np.bool_(True)))
    assert_same(back[3], [None, True, "text", np.arange(6, dtype=np.uint8).reshape(2, 3)])
    assert_same(back["tensor"], torch.arange(3))
    assert np.array_equal(
        back["generator"].integers(9, size=9, dtype=np.int32), generator.integers(9, size=9, dtype=np.int32)
    )
    assert np.array_equal(back["generator"].normal(size=5), generator.normal(size=5))


class HeavyCartPole(CartPoleEnv):
    """May hold more than its parent."""


def test_row_23_a_child_of_a_known_environment_is_not_taken_for_it():
    env = SyncVectorEnv([HeavyCartPole])
    env.reset(seed=1)
    with pytest.raises(EnvStateError, match=r"HeavyCartPole has no get_state\(\)"):
        get_env_state(env)


def test_row_23_what_an_environment_draws_from_its_spaces_goes_on_where_it_was():
    ours, theirs = (EnvSpec("Acrobot-v1").make(2) for _ in range(2))
    ours.reset(seed=1), theirs.reset(seed=2)

    def drawn(env):
        spaces = [space for single in env.envs for space in (single.action_space, single.observation_space)]
        return [space.sample().tolist() for space in spaces for _ in range(5)]

    assert drawn(ours) != drawn(theirs)
    set_env_state(theirs, get_env_state(ours))
    assert drawn(ours) == drawn(theirs)


def test_row_23_a_state_of_other_environments_is_refused():
    pole, walk, walks = EnvSpec("CartPole-v1").make(1), SyncVectorEnv([Wander]), SyncVectorEnv([Wander, Wander])
    for env in (pole, walk, walks):
        env.reset(seed=1)
    with pytest.raises(EnvStateError, match=r"that of .*TimeLimit of .*CartPoleEnv, not of scripted_envs.Wander"):
        set_env_state(walk, get_env_state(pole))
    with pytest.raises(EnvStateError, match="that of 2 environments, not of 1"):
        set_env_state(walk, get_env_state(walks))


def test_row_23_a_resumed_collector_blames_a_fault_on_the_seed_and_step_of_the_whole_run():
    first, then = make_collector(2, env=WANDER), make_collector(2, env=WANDER, seed=5)
    batch = empty_batch(BatchShape(6, 2, (2,), torch.float32))
    first.collect(batch)
    then.load_state_dict(through_a_file(first.state_dict()))
    then.env.step = lambda action: 1 / 0
    with pytest.raises(ZeroDivisionError) as caught:
        then.collect(batch)
    assert caught.value.__notes__ == [f"environment seed {first.env_seed}, step 6 of its environments"]


def test_row_23_published_versions_count_on_from_the_checkpoints():
    network = make_network()
    weights = SharedWeights(network, 41)
    assert (weights.version, weights.pull(network)) == (41, 41)
    assert weights.publish(network) == 42


# ---------------------------------------------------------------- row 24


class Counters(Callback):
    """Keeps the counters before the first update, and env steps after each batch; may ask the run to stop."""

    def __init__(self, stop_after=None):
        self.stop_after, self.env_steps, self.updates = stop_after, [], []

    def on_train_start(self, trainer, pl_module):
        self.first = counters(pl_module, trainer.datamodule)
        self.statistics = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
        tensors = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
        self.shared = all(tensor.is_shared() for tensor in tensors)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.env_steps.append(trainer.datamodule.progress.env_steps)
        self.updates.append(pl_module.updates)
        if self.stop_after is not None and pl_module.updates >= self.stop_after:
            trainer.should_stop = True


def counters(model, data):
    progress = {key: value for key, value in data.progress.state_dict().items() if key != "train_seconds"}
    return {"updates": model.updates, "lags": model.lags.state_dict(), **progress}


@pytest.mark.parametrize(
    "mode",
    [
        {"mode": "async", "workers": 2},
        {"mode": "async", "workers": 2, "inject_lag": 3},
        {"mode": "async", "workers": 2, "max_lag": 0},
        {"mode": "hogwild", "workers": 2},
        {"mode": "hogwild", "workers": 2, "max_lag": 0},
    ],
    ids=lambda mode: " ".join(map(str, mode.values())),
)
def test_row_24_counters_go_on_exactly_and_env_steps_never_rewind(mode, tmp_path):
    first = Counters(stop_after=20)
    model, data, trainer = fit(NStep(8), callbacks=[first], max_env_steps=10**6, **mode)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    saved = counters(model, data)
    statistics = torch.load(tmp_path / "run.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    then = Counters(stop_after=model.updates + 20)
    again, more, second = fit(NStep(8), callbacks=[then], max_env_steps=10**6, ckpt_path=tmp_path / "run.ckpt", **mode)
    assert then.first == saved
    assert_same(then.statistics, statistics)
    assert then.shared == (mode["mode"] == "hogwild")  # statistics are shared again
    steps = [*first.env_steps, data.progress.env_steps, *then.env_steps, more.progress.env_steps]
    assert steps == sorted(steps)
    updates = [*first.updates, model.updates, *then.updates, again.updates]
    assert updates == sorted(updates)
    assert {int(count) for count in step_counts(second.optimizers[0])} == {again.updates}
    for progress in (data.progress, more.progress):
        assert progress.collected == progress.env_steps + progress.in_flight
        assert progress.in_flight >= 0
    if "inject_lag" in mode:
        assert set(again.lags.counts) == {3}  # the delay line was lost; its second warm-up is not counted as lag


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_row_22_what_is_set_anew_of_the_optimizer_counts_from_the_resume_on(mode, tmp_path, caplog):
    def going_on(ckpt_path=None, **options):
        hyperparameters = []
        noting = Noting(lambda trainer: hyperparameters.append([options_of(each) for each in trainer.optimizers]))
        fit(
            NStep(8),
            callbacks=[Counters(stop_after=20 if ckpt_path is None else 40), noting, Saving(tmp_path / "run.ckpt")],
            learning={"optimizer": lambda params: torch.optim.Adam(params, **options)},
            mode=mode,
            max_env_steps=10**6,
            ckpt_path=ckpt_path,
        )
        return hyperparameters[-1]

    going_on(lr=1e-3, eps=1e-7)
    (resumed,) = going_on(tmp_path / "run.ckpt", lr=1e-5, weight_decay=0.5, betas=(0.8, 0.9))
    assert (resumed["lr"], resumed["weight_decay"], resumed["betas"]) == (1e-5, 0.5, (0.8, 0.9))
    assert resumed["eps"] == 1e-8  # it was typed before, and is not any more
    told = {record.message for record in caplog.records if "from here on" in record.message}
    assert told == {
        f"optimizer.{name} was {before} in the checkpoint, and is {now} from here on"
        for name, before, now in (
            ("lr", 1e-3, 1e-5),
            ("weight_decay", 0, 0.5),
            ("betas", (0.9, 0.999), (0.8, 0.9)),
            ("eps", 1e-7, 1e-8),
        )
    }


def test_row_22_what_a_callback_has_set_of_the_optimizer_stays_where_nothing_else_is_typed(tmp_path):
    found = []

    def halve(trainer):
        trainer.optimizers[0].param_groups[0]["lr"] = 5e-4

    for ckpt_path, do in ((None, halve), (tmp_path / "run.ckpt", lambda trainer: found.append(lr_of(trainer)))):
        fit(
            NStep(8),
            callbacks=[Counters(stop_after=20 if ckpt_path is None else 40), Noting(do), Saving(tmp_path / "run.ckpt")],
            learning={"optimizer": lambda params: torch.optim.Adam(params, lr=1e-3)},
            max_env_steps=10**6,
            ckpt_path=ckpt_path,
        )
    assert set(found) == {5e-4}


class Noting(Callback):
    """Does something after each batch."""

    def __init__(self, do):
        self.do = do

    def on_train_batch_end(self, trainer, *args):
        self.do(trainer)


class Saving(Callback):
    """Saves a checkpoint at the end."""

    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path)


def options_of(optimizer):
    (group,) = optimizer.param_groups
    return {key: value for key, value in group.items() if key != "params"}


def lr_of(trainer):
    return options_of(trainer.optimizers[0])["lr"]


# ---------------------------------------------------------------- rows 41 and 42


def fingerprint(value):
    """Gives a hash of values of any depth, bit for bit."""
    digest = hashlib.sha256()

    def take_in(value):
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.numpy().tobytes())
        elif isinstance(value, dict):
            take_in(list(value.items()))
        elif isinstance(value, (list, tuple)):
            for item in value:
                take_in(item)
        else:
            digest.update(repr(value).encode())

    take_in(value)
    return digest.hexdigest()


def hashes(path):
    """Gives the hash of a run and saves another one that is interrupted."""
    *_, trainer = run(CASES["delayed episodes"], Until(updates=7))
    trainer.save_checkpoint(path)
    return fingerprint(everything(run(CASES["delayed episodes"], Until())))


def test_rows_23_and_41_two_processes_come_to_the_same_hash_interrupted_or_not(tmp_path):
    folder = Path(__file__).parent
    root = folder.parent.parent
    paths = [str(path) for path in (folder, folder.parent, root, root / "scripts")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {"WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "7"}
    program = f"import conftest, test_resume; print(test_resume.hashes({str(tmp_path / 'theirs.ckpt')!r}))"
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
    )
    theirs = finished.stdout.splitlines()[-1]
    assert hashes(tmp_path / "ours.ckpt") == theirs
    assert fingerprint(everything(run(CASES["delayed episodes"], Until(), tmp_path / "theirs.ckpt"))) == theirs


def trajectories(spec, worker):
    """Gives the observations of a worker's first fragment, by column."""
    collector = spec.build(Life(worker))
    batch = empty_batch(BatchShape(12, spec.num_envs, (4,), torch.float32))
    collector.collect(batch)
    collector.close()
    return [batch.observations[:, column].numpy().tobytes() for column in range(spec.num_envs)]


@pytest.mark.parametrize("num_envs", [1, 8])
def test_row_42_no_two_workers_see_the_same_trajectory(num_envs):
    spec = make_spec("CartPole-v1", num_envs, network=make_network(4, 2))
    seen = [
        trajectory
        for seed in (0, 1)
        for worker in range(4)
        for trajectory in trajectories(replace(spec, seed=seed), worker)
    ]
    assert len(set(seen)) == len(seen) == 2 * 4 * num_envs


class Columns(Callback):
    """Keeps what the columns of all updates saw."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen += [batch.observations[:, column].numpy().tobytes() for column in range(batch.columns)]


def test_row_42_a_resumed_run_repeats_no_trajectory_of_its_first_part(tmp_path):
    columns, sizes = Columns(), {"mode": "async", "workers": 2, "envs_per_worker": 2}
    *_, trainer = fit(NStep(8), callbacks=[columns], max_env_steps=600, **sizes)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    fit(NStep(8), callbacks=[columns], max_env_steps=1200, ckpt_path=tmp_path / "run.ckpt", **sizes)
    assert len(columns.seen) > 70
    assert len(set(columns.seen)) == len(columns.seen)
