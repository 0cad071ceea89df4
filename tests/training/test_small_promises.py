"""What a run says of its end, what it takes from the surroundings, and which optimizers and simulators it can use."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from helpers import COUNTDOWN, fit, make_network

from a3c import A3C, Agent, FullEpisode, GreedyEvaluation, NStep, ReturnEstimator
from a3c.envs.spec import EnvSpec
from a3c.runs.folder import came_to_its_end
from a3c.runs.wandb_service import Patience, choose_mode
from a3c.training.callbacks import BudgetBar
from a3c.training.cli.command import main

CONFIG = Path(__file__).parents[2] / "configs/cartpole.yaml"
SMALL = ["--mode", "sync", "--data.max_env_steps", "2000", "--data.envs_per_worker", "8", "--run_dir", "run"]


def test_the_summary_tells_a_failure_from_an_interruption(here, monkeypatch):
    def fail(self, trainer, module, *args):
        if module.updates == 3:
            raise ZeroDivisionError("a callback of mine")

    monkeypatch.setattr(BudgetBar, "on_train_batch_end", fail)
    assert main(CONFIG, SMALL) == 1
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["failed"], summary["interrupted"]) == (True, False)
    assert not came_to_its_end(summary)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("summary", "ended"),
    [
        ({"interrupted": False, "failed": False}, True),
        ({"interrupted": True, "failed": False}, False),
        ({"interrupted": False, "failed": True}, False),
        ({}, False),
    ],
)
def test_only_a_run_that_neither_failed_nor_was_interrupted_came_to_its_end(summary, ended):
    assert came_to_its_end(summary) == ended


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_agent_refuses_observations_that_are_not_finite(bad):
    agent = Agent(make_network(), EnvSpec(COUNTDOWN))
    with pytest.raises(ValueError, match=f"observation: got {bad}, must be finite"):
        agent.act([0.0, bad])


def test_a_simulator_of_which_one_may_be_open_is_trained_in_sync_without_evaluations():
    evaluation = GreedyEvaluation(every_env_steps=None, final_episodes=0)
    _, data, _ = fit(
        NStep(4), env="scripted_envs:Lonely-v0", envs_per_worker=1, max_env_steps=60, callbacks=[evaluation]
    )
    assert data.progress.env_steps >= 60
    assert (evaluation.best, evaluation.final) == (None, None)


def test_evaluations_can_be_switched_off_on_the_command_line(here):
    off = ["--evaluation.every_env_steps", "null", "--evaluation.final_episodes", "0"]
    assert main(CONFIG, [*SMALL, *off]) == 0
    assert json.loads(Path("run/summary.json").read_text())["eval_episodes"] == 0
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == ["last.ckpt"]


def test_an_unknown_mode_of_wandbs_is_named_and_the_run_kept_offline(monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert choose_mode(Patience()) == "offline"
    (told,) = (record.message for record in caplog.records)
    assert told == (
        "WANDB_MODE: got 'ofline', must be one of online, offline, disabled, shared; the run is kept offline"
    )


def test_the_name_that_wandb_is_told_by_its_variable_counts(here, monkeypatch):
    names, started = [], wandb.init

    def noted(**arguments):
        names.append(arguments["name"])
        return started(**{**arguments, "mode": "disabled"})

    monkeypatch.setattr(wandb, "init", noted)
    monkeypatch.setenv("WANDB_NAME", "mine")
    assert main(CONFIG, SMALL) == 0
    assert names[-1] == "mine"
    assert main(CONFIG, [*SMALL[:-2], "--run_name", "typed"]) == 0
    assert names[-1] == "typed"


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (torch.optim.LBFGS, "optimizer: got LBFGS, which asks for the loss many times a step; must ask for it once"),
        (torch.optim.SparseAdam, "optimizer: got SparseAdam, must be one for gradients that are not sparse"),
        (torch.optim.Muon, "optimizer: Muon only supports 2D parameters"),
    ],
)
def test_optimizers_that_cannot_be_used_are_named_before_the_start(optimizer, said):
    with pytest.raises(ValueError, match=said):
        A3C(make_network(), NStep(4), optimizer=lambda params: optimizer(params))


@pytest.mark.parametrize("said", [None, "3"])
def test_a_fit_keeps_torch_to_one_thread_unless_the_environment_says_otherwise(monkeypatch, said):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    before, seen = torch.get_num_threads(), []

    class Fail(GreedyEvaluation):
        def on_train_batch_end(self, *args):
            raise ZeroDivisionError

    class Look(GreedyEvaluation):
        def on_train_batch_end(self, *args):
            seen.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        fit(NStep(4), max_env_steps=40, callbacks=[Look(final_episodes=0)])
        assert torch.get_num_threads() == 2
        assert set(seen) == {1 if said is None else 2}
        with pytest.raises(ZeroDivisionError):
            fit(NStep(4), max_env_steps=40, callbacks=[Fail(final_episodes=0)])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert os.environ.get("OMP_NUM_THREADS") == said


class Silent(ReturnEstimator):
    """Says nothing of how it wants its rollouts."""

    def __call__(self, batch, values, log_probs, discounts):
        return NStep(8)(batch, values, log_probs, discounts)


class SilentChild(NStep):
    """Says it with the words of its parent."""


@pytest.mark.parametrize(("returns", "told"), [(Silent(), 1), (SilentChild(8), 0), (FullEpisode(), 0)])
def test_an_estimator_without_a_horizon_is_said_to_take_whole_episodes(returns, told, caplog):
    fit(returns, env="CartPole-v1", max_env_steps=100)
    sentence = "model.returns: Silent sets no horizon, so it is given whole episodes"
    assert [record.message for record in caplog.records].count(sentence) == told
