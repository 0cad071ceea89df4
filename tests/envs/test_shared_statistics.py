"""Statistics that wrappers keep are the run's; returns are those from beneath every wrapper."""

import numpy as np
import pytest
import torch
from gymnasium.wrappers.utils import RunningMeanStd
from helpers import fit

from a3c import GreedyEvaluation, NStep, RolloutDataModule, load
from a3c.envs.shared_statistics import RunStatistics, SharedMeanStd
from a3c.envs.spec import EnvSpec
from a3c.training.callbacks import Checkpoints

GOAL = "goal_env:Goal-v0"
VECTOR = ["gymnasium.wrappers.vector.NormalizeObservation", "gymnasium.wrappers.vector.NormalizeReward"]
SINGLE = ["gymnasium.wrappers.NormalizeObservation", "gymnasium.wrappers.NormalizeReward"]


def train(mode="sync", env=GOAL, folder=None, **data):
    evaluation = GreedyEvaluation(every_env_steps=2000, episodes=20, final_episodes=30, stop_when_solved=False)
    learning = {"optimizer": lambda params: torch.optim.Adam(params, lr=1e-2), "reward_scale": 0.1}
    settings = {"envs_per_worker": 8, "max_env_steps": 8000, "workers": 2, **data}
    callbacks = [evaluation] if folder is None else [evaluation, Checkpoints(folder, evaluation)]
    model, data, _ = fit(NStep(8), mode=mode, env=env, callbacks=callbacks, learning=learning, **settings)
    return model, data, evaluation


def cells_of(data):
    return data.env.statistics.state_dict()


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_what_training_has_learned_holds_in_evaluations_and_for_an_agent(mode, tmp_path):
    _, data, evaluation = train(mode, folder=tmp_path / "run" / "checkpoints")
    assert evaluation.final.return_mean == 20.0
    (key,) = cells_of(data)
    mean, variance, count = cells_of(data)[key].tolist()
    assert key == "single NormalizeObservation.obs_rms 1"
    assert 1002 < mean < 1008
    assert 20 < variance < 30
    assert count > 4000  # of all workers and columns, but for updates that met
    agent = load(tmp_path / "run" / "checkpoints" / "last.ckpt", allow=["goal_env"])
    assert agent.evaluate(10).return_mean == 20.0
    saved = agent.env.statistics.state_dict()[key]
    assert saved[2] > 1000
    agent.evaluate(3)
    assert torch.equal(agent.env.statistics.state_dict()[key], saved)  # an evaluation leaves them as they are


@pytest.mark.parametrize("wrappers", [SINGLE, VECTOR])
def test_wrappers_from_the_flag_share_theirs_too(wrappers):
    _, data, evaluation = train(env="goal_env:Plain-v0", wrappers=wrappers)
    assert evaluation.final.return_mean == 20.0
    assert len(cells_of(data)) == 2


def test_all_columns_of_all_vectors_see_the_same():
    spec = EnvSpec(GOAL)
    spec = spec.sharing(spec.look(4).statistics)
    first, second = (spec.make(3, learns=True) for _ in range(2))
    watching = spec.make(2)
    for env in (first, second):
        env.reset(seed=1)
    (cells,) = spec.statistics.state_dict().values()
    assert cells[-1] == pytest.approx(6, abs=1e-3)
    before = cells.clone()
    watching.reset(seed=5)
    watching.step(np.zeros(2, np.int64))
    (cells,) = spec.statistics.state_dict().values()
    assert torch.equal(cells, before)
    for env in (first, second, watching):
        env.close()


def test_a_resumed_run_goes_on_with_them_and_others_are_refused(tmp_path):
    _, first, _ = train(folder=tmp_path, max_env_steps=1000)
    (cells,) = cells_of(first).values()
    _, again, _ = train(ckpt_path=tmp_path / "last.ckpt", max_env_steps=2000)
    (more,) = cells_of(again).values()
    assert more[-1] > cells[-1] + 900
    with pytest.raises(ValueError, match=r"statistics of wrappers: got those of \['a'\], must be of \['b'\]"):
        RunStatistics({"b": 1}).load_state_dict({"a": torch.zeros(3)})


def test_shared_means_are_those_of_gymnasiums_own():
    own, generator = RunningMeanStd(shape=(3,)), np.random.default_rng(0)
    shared = SharedMeanStd(np.array([0, 0, 0, 1, 1, 1, 1e-4], float), RunningMeanStd(shape=(3,)))
    for _ in range(5):
        batch = generator.normal(3, 2, (7, 3))
        own.update(batch), shared.update(batch)
    for name in ("mean", "var", "count"):
        np.testing.assert_allclose(getattr(shared, name), getattr(own, name), rtol=1e-12)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("env", ["goal_env:Scaled-v0", "goal_env:Negated-v0"])
def test_returns_are_the_environments_own_beneath_the_wrappers_it_is_registered_with(env, mode):
    _, data, evaluation = train(mode, env, max_env_steps=2000)
    mean = data.progress.metrics()["rollout/episode_return"]
    assert mean == pytest.approx(round(mean * 100) / 100, abs=1e-2)
    assert 0 <= mean <= 20
    assert 0 <= evaluation.final.return_mean <= 20
    assert evaluation.final.return_mean == round(evaluation.final.return_mean * 30) / 30


def test_statistics_of_another_make_are_named_before_the_start(caplog):
    RolloutDataModule("goal_env:Plain-v0", wrappers=["goal_env.OwnMeans"])
    (told,) = (record.message for record in caplog.records)
    assert told.startswith("env: goal_env:Plain-v0 keeps statistics in OwnMeans.running that no other environment has")
    assert "take gymnasium.wrappers.NormalizeObservation" in told


def test_environments_without_such_wrappers_share_nothing():
    assert RolloutDataModule("CartPole-v1").env.statistics is None
