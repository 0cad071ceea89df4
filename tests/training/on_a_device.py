"""Fits on a device that is pretended: test_device.py runs these in a process of their own.

torch counts the devices before its first backward pass, so that the device has to be there from the start.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "faults")]

import pretended_device

DEVICE = pretended_device.device()

import pytest
import torch
from helpers import fit
from lesson_envs import Shown
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback
from poisoned import PoisonedNStep
from test_resume import CASES, Until, assert_same, everything, run

from a3c import (
    GAE,
    UPGO,
    AdvantageNormalised,
    AverageReward,
    Compound,
    DecoupledGAE,
    FittingActorCritic,
    GroupBaseline,
    ImportanceSampled,
    L2Normalised,
    LeakyVTrace,
    NStep,
    PositiveOnly,
    Retrace,
    SlidingNStep,
    TDLambda,
    ValueRescaled,
    VTrace,
)
from a3c.networks.memory import Memory, _Gated
from a3c.rollouts.weights import shared_nbytes
from a3c.training.callbacks import EstimatorProbe, GreedyEvaluation
from a3c.training.callbacks.checkpoints import DurableCheckpointIO

ESTIMATORS = [
    *(UPGO(8), AdvantageNormalised(GAE(8)), AverageReward(8), Compound(8, 1, 4), DecoupledGAE(8), GroupBaseline()),
    *(ImportanceSampled(8), L2Normalised(NStep(8)), LeakyVTrace(8), PositiveOnly(GAE(8)), Retrace(8)),
    *(SlidingNStep(8), TDLambda(8), ValueRescaled(NStep(8)), VTrace(8)),
]
OTHERS = {
    **{type(each).__name__: {"returns": each, "envs_per_worker": 8} for each in ESTIMATORS},
    **{
        kind: {
            "returns": GAE(8),
            "env": "lesson_envs:Shown-v0",
            "env_kwargs": {"kind": kind},
            "network": {"class": FittingActorCritic},
            "learning": {"normalise_observations": kind == "pixels", "entropy_coefficient": 0.1},
        }
        for kind in Shown.KINDS
    },
    "squashed": {
        "returns": GAE(8),
        "env": "lesson_envs:Shown-v0",
        "env_kwargs": {"kind": "target"},
        "network": {"hidden_sizes": (8,), "squash": True},
    },
}


class OnDevice(Callback):
    """Sees to it that batches and weights are on the device, and that whoever acts is not."""

    def __init__(self):
        self.batches = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches += 1
        assert all(field.device == DEVICE for field in batch)
        tensors = [*pl_module.network.parameters(), *pl_module.network.buffers()]
        assert all(tensor.device == DEVICE for tensor in tensors)
        acting = pl_module.acting_network
        for ours, theirs in zip(tensors, [*acting.parameters(), *acting.buffers()], strict=True):
            assert theirs.device.type == "cpu"
            assert torch.equal(ours.cpu(), theirs)


def there(**arguments):
    """Gives the Trainer's arguments for the device."""
    return {"strategy": pretended_device.strategy(), "accelerator": "auto", **arguments}


def step_by_step(core, features, state):
    """Does what torch's own kernels do, of which the pretended device has none."""
    return Memory.unroll(core, features, state, torch.zeros(features.shape[:2], dtype=torch.bool).to(features.device))


@pytest.mark.parametrize("name", {**CASES, **OTHERS})
def test_a_run_on_a_device_is_the_run_on_the_cpu(name, monkeypatch):
    for gated in _Gated.__subclasses__():
        monkeypatch.setattr(gated, "kernel", step_by_step)
    case = {**CASES, **OTHERS}[name]
    here = run(case, Until())
    watch = OnDevice()
    over_there = fit(callbacks=[Until(), watch], trainer=there(), **{"max_env_steps": 10**6, **case})
    assert watch.batches == 20
    assert_same(move_data_to_device(everything(over_there), "cpu"), everything(here))


def test_evaluations_and_the_probe_see_what_they_see_on_the_cpu():
    found = []
    for trainer in ({}, there()):
        evaluation, probe = GreedyEvaluation(200, 4, 4, stop_when_solved=False), EstimatorProbe()
        model, *_ = fit(callbacks=[evaluation, probe], trainer=trainer, max_env_steps=600)
        found.append((model.latest["eval/episode_return"], evaluation.final.episodes, probe.table()))
    assert found[0][:2] == found[1][:2]
    assert len(found[0][2][1]) == 4
    for (label, *ours), (same_label, *theirs) in zip(found[0][2][1], found[1][2][1], strict=True):
        assert label == same_label
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(("first", "second"), [("here", "there"), ("there", "here"), ("there", "there")])
@pytest.mark.parametrize("name", ["n steps", "passes over episodes", "everything normalised"])
def test_a_run_goes_on_elsewhere_bit_for_bit(name, first, second, tmp_path):
    def trainer_for(place):
        return {"plugins": [DurableCheckpointIO()], **(there() if place == "there" else {})}

    case = {"max_env_steps": 10**6, **CASES[name]}
    whole = fit(callbacks=[Until()], **case)
    *_, trainer = fit(callbacks=[Until(updates=7)], trainer=trainer_for(first), **case)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)  # with no word of where it may be put
    assert {tensor.device.type for tensor in saved["state_dict"].values()} == {"cpu"}
    resumed = fit(callbacks=[Until()], trainer=trainer_for(second), ckpt_path=tmp_path / "run.ckpt", **case)
    assert_same(move_data_to_device(everything(resumed), "cpu"), everything(whole))


class Handing(Callback):
    """Notes what left the device in one transfer at each update, and what workers could see then."""

    def __init__(self):
        self.transfers, self.lags = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pretended_device.crossings.clear()

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.transfers.append(max(pretended_device.crossings))
        self.lags.append(pl_module.mode.version - pl_module.mode.weights.version)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_weights_leave_the_device_in_one_piece(mode):
    handing = Handing()
    model, data, _ = fit(callbacks=[handing], trainer=there(), mode=mode, max_env_steps=640)
    assert set(handing.transfers) == {shared_nbytes(model.network)}
    assert max(handing.lags) <= (mode == "async")  # where rollouts may be old the learner goes on meanwhile
    data.mode._published.settle()
    assert data.mode.version == data.mode.weights.version == model.updates


@pytest.mark.parametrize("inject_lag", [None, 2])
def test_every_env_step_of_workers_is_accounted_for(inject_lag):
    model, data, _ = fit(trainer=there(), mode="async", workers=2, inject_lag=inject_lag, max_env_steps=1500)
    progress = data.progress
    assert progress.env_steps >= 1500
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    if inject_lag is not None:
        assert set(model.lags.counts) == {inject_lag}
    assert data.mode.exit_codes == [0, 0]


def test_an_update_that_is_not_finite_leaves_the_weights_as_they_were():
    learning = {"passes": 2, "minibatches": 2}
    here, over_there = (
        fit(PoisonedNStep(8, 5, 3), callbacks=[Until()], trainer=trainer, learning=learning, max_env_steps=10**6)
        for trainer in ({}, there())
    )
    assert here[0].skipped_updates == 3
    assert_same(move_data_to_device(everything(over_there), "cpu"), everything(here))


def test_what_workers_learn_by_themselves_stays_on_the_cpu():
    with pytest.raises(ValueError, match=r"^accelerator: got PretendedAccelerator in mode hogwild, must be cpu: "):
        fit(trainer=there(), mode="hogwild", max_env_steps=100)
