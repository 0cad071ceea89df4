"""Row 27: updates whose loss or gradient is not finite, in the learner and in one Hogwild worker of two."""

import copy
import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from helpers import COUNTDOWN, make_network
from helpers import fit as fit_helper
from lightning.pytorch import Callback
from poisoned import CountingNetwork, PoisonedNStep

from a3c import A3C, NStep, Objective, RolloutDataModule
from a3c.batch import BatchShape, empty_batch
from a3c.learner.guard import TrainingDivergedError, UpdateGuard
from a3c.learner.hogwild.actor_learner import ActorLearner, UpdateRule
from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.shared_optimizer import SharedOptimizer
from a3c.learner.hogwild.tally import Tally
from a3c.learner.learning import Learning
from a3c.learner.reuse import Reuse
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.failures import WorkerError
from a3c.training.callbacks import Checkpoints
from a3c.training.cli.command import main

CONFIG = Path(__file__).parent.parent.parent / "configs" / "cartpole.yaml"
OPTIMIZERS = {
    "fused Adam": lambda params: torch.optim.Adam(params, lr=0.01, fused=True),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.01, momentum=0.5, weight_decay=0.1),
    "SGD with momentum": lambda params: torch.optim.SGD(params, lr=1e-5, momentum=0.9, weight_decay=0.1),
}


ENDLESS = {"env": COUNTDOWN, "env_kwargs": {"lengths": (10**6,)}}  # no reset steps: every rollout has 8 × 4 steps


def fit(*args, **kwargs):
    return fit_helper(*args, **ENDLESS, **kwargs)


def everything(network, optimizer):
    """All numbers that an update may change."""
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, statistics in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in statistics.items()}
    return {name: tensor.clone() for name, tensor in state.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class States(Callback):
    """Keeps what the learner looks like before the first update and after each."""

    def __init__(self):
        self.states, self.versions, self.skipped = [], [], []

    def on_train_batch_start(self, trainer, pl_module, *args):
        if not self.states:
            self._keep(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self._keep(trainer, pl_module)

    def _keep(self, trainer, module):
        self.states.append(everything(module.network, trainer.optimizers[0]))
        self.versions.append(module.mode.weights.version)
        self.skipped.append(module.skipped_updates)


class Rows(Callback):
    """Keeps what is logged."""

    def __init__(self):
        self.rows = []

    def on_fit_start(self, trainer, pl_module):
        pl_module.log_now, log_now = (lambda metrics: (self.rows.append(metrics), log_now(metrics))), pl_module.log_now


def poisoned_model(calls=(3,), **learning):
    data = RolloutDataModule(**ENDLESS, mode="sync")
    network = CountingNetwork(data.observation_space, data.action_space, poisoned_calls=calls)
    return A3C(network, NStep(8), **learning)


# ---------------------------------------------------------------- the guard itself


def with_gradients(**spoiled):
    network = make_network()
    for name, parameter in network.named_parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
        if name in spoiled:
            parameter.grad.view(-1)[-1] = spoiled[name]
    return network


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_grad_norm", [0.5, None])
def test_row_27_the_guard_names_the_parameter_and_takes_the_gradient_away(value, max_grad_norm, caplog):
    network, guard = with_gradients(**{"actor_head.weight": value}), UpdateGuard(max_grad_norm, 5)
    assert guard.admit(network, [torch.tensor(1.0)]) is None
    assert all(parameter.grad is None for parameter in network.parameters())
    guard.skip("worker 1: ")
    assert caplog.messages == ["worker 1: update skipped: the gradient of actor_head.weight is not finite (1 so far)"]


def test_row_27_a_loss_that_is_not_finite_is_enough(caplog):
    network, guard = with_gradients(), UpdateGuard(None, 5)
    assert guard.admit(network, [torch.tensor(1.0), torch.tensor(math.nan)]) is None
    guard.skip()
    assert caplog.messages == ["update skipped: the loss is not finite (1 so far)"]


def test_row_27_a_norm_that_overflows_is_not_finite_either(caplog):
    network, guard = with_gradients(**{"actor_head.weight": 1e30}), UpdateGuard(0.5, 5)
    assert guard.admit(network, [torch.tensor(1.0)]) is None
    guard.skip()
    assert "the norm of the gradient" in caplog.messages[0]


def test_a_finite_gradient_is_clipped_as_torch_clips_it():
    for limit in (0.5, 1e6, None):
        ours, theirs = with_gradients(), with_gradients()
        norm = UpdateGuard(limit, 5).admit(ours, [torch.tensor(1.0)])
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit or math.inf)
        assert torch.equal(norm, expected)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)


def test_row_27_warnings_become_rare_and_keep_the_count(caplog):
    guard = UpdateGuard(0.5, 100)
    for _ in range(20):
        guard.admit(with_gradients(), [torch.tensor(math.nan)])
        guard.skip()
    assert [message.split("(")[1] for message in caplog.messages] == [f"{n} so far)" for n in (1, 2, 4, 8, 16)]


def test_row_27_only_skipped_updates_in_a_row_count_towards_the_limit():
    guard = UpdateGuard(0.5, 2)
    for loss in (math.nan, math.nan, 1.0, math.nan, math.nan):
        if guard.admit(with_gradients(), [torch.tensor(loss)]) is None:
            guard.skip()
        else:
            guard.begin()
    guard.admit(with_gradients(), [torch.tensor(math.nan)])
    with pytest.raises(TrainingDivergedError, match=r"^3 updates in a row .* max_skipped_updates allows 2$"):
        guard.skip()
    assert guard.skipped == 5


def test_a_limit_below_0_is_refused():
    with pytest.raises(ValueError, match=r"^max_skipped_updates: got -1, must be at least 0"):
        poisoned_model(max_skipped_updates=-1)


def test_steps_of_a_skipped_update_move_from_trained_to_dropped():
    progress = Progress()
    progress.collected = progress.trained = 30
    progress.reject(10)
    assert (progress.trained, progress.dropped["bad_update"]) == (20, 10)
    assert (progress.env_steps, progress.in_flight) == (30, 0)


# ---------------------------------------------------------------- the learner


@pytest.mark.parametrize("max_grad_norm", [0.5, None])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_row_27_a_skipped_update_of_the_learner_changes_nothing(name, max_grad_norm):
    states = States()
    model = poisoned_model((1, 4), optimizer=OPTIMIZERS[name], max_grad_norm=max_grad_norm)
    _, data, _ = fit(model=model, callbacks=[states], max_env_steps=8 * 32)
    changed = [not same(one, other) for one, other in zip(states.states, states.states[1:], strict=False)]
    assert changed == [False, True, True, False, True, True, True, True]
    assert states.versions == [0, 0, 1, 2, 2, 3, 4, 5, 6]  # nothing is published either
    assert model.updates == 6
    assert model.skipped_updates == 2
    assert model.network.trained_on == 6
    assert all(tensor.isfinite().all() for tensor in states.states[-1].values())
    progress = data.progress
    assert (progress.trained, dict(progress.dropped)) == (6 * 32, {"bad_update": 2 * 32})
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight


def test_row_27_a_loss_of_nan_is_skipped_and_its_metrics_stay_out_of_the_means(caplog):
    rows = Rows()
    model, data, _ = fit(PoisonedNStep(first=3, count=2), callbacks=[rows], max_env_steps=20 * 32)
    assert (model.updates, model.skipped_updates) == (18, 2)
    assert data.progress.dropped == {"bad_update": 64}
    (row,) = rows.rows
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert sum(row["lag/histogram"].values()) == sum(model.lags.counts.values()) == 18 * 4
    assert model.latest["guard/skipped_updates"] == 2
    assert [message for message in caplog.messages if "skipped" in message] == [
        "update skipped: the loss is not finite (1 so far)",
        "update skipped: the loss is not finite (2 so far)",
    ]


@pytest.mark.parametrize("limit", [0, 2])
def test_row_27_too_many_in_a_row_end_the_run_and_the_last_good_checkpoint_is_kept(tmp_path, limit):
    states = States()
    returns = PoisonedNStep(first=4, count=10**9)
    with pytest.raises(TrainingDivergedError, match=rf"^{limit + 1} updates? in a row were not finite"):
        fit(
            returns,
            callbacks=[states, Checkpoints(tmp_path)],
            learning={"max_skipped_updates": limit},
            max_env_steps=10**6,
        )
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["a3c"]["updates"] == 3
    assert checkpoint["a3c"]["skipped_updates"] == limit + 1
    for name, tensor in checkpoint["state_dict"].items():
        assert torch.equal(tensor, states.states[3][name])
    assert checkpoint["RolloutDataModule"]["progress"]["dropped"] == {"bad_update": 32 * (limit + 1)}


def test_row_27_a_resumed_run_goes_on_counting_skipped_updates(tmp_path):
    _, _, trainer = fit(PoisonedNStep(first=2), max_env_steps=320)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again, data, _ = fit(PoisonedNStep(first=2), max_env_steps=640, ckpt_path=tmp_path / "run.ckpt")
    assert again.skipped_updates == 2
    assert data.progress.dropped["bad_update"] == 64


def test_row_27_workers_that_collect_for_a_skipped_update_go_on():
    model, data, _ = fit(PoisonedNStep(first=3, count=4), mode="async", workers=2, max_env_steps=3000)
    assert model.skipped_updates == 4
    progress = data.progress
    assert progress.env_steps >= 3000
    assert progress.dropped["bad_update"] == 4 * 32
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert data.mode.exit_codes == [0, 0]


class Ages(Callback):
    """Keeps how many versions old each update's batch was, and whether the update was made."""

    def __init__(self):
        self.made, self.skipped = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._ages = set((pl_module.mode.weights.version - batch.policy_versions).flatten().tolist())
        self._before = pl_module.updates

    def on_train_batch_end(self, trainer, pl_module, *args):
        (self.made if pl_module.updates > self._before else self.skipped).append(self._ages)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("lag", [0, 1, 4])
def test_row_27_injected_lag_stays_exact_after_skipped_updates(mode, lag):
    ages = Ages()
    returns = PoisonedNStep(first=lag + 3, count=2)
    model, data, _ = fit(returns, callbacks=[ages], mode=mode, inject_lag=lag, max_env_steps=1500)
    assert ages.skipped == [{lag}, {0}]  # the second attempt trains on a fresh batch, and so does the third
    fresh = [{0}] * lag
    assert ages.made == [*fresh, {lag}, {lag}, {0}, *[{lag}] * (model.updates - lag - 3)]
    assert model.updates > 15
    assert set(model.lags.counts) == {lag}  # what takes the place of a skipped one is logged apart
    progress = data.progress
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert progress.dropped == {"bad_update": 64}
    assert 0 <= progress.in_flight <= (lag + 1) * 32


def test_row_27_a_skipped_update_in_the_warm_up_leaves_the_lag_exact():
    ages = Ages()
    model, _, _ = fit(PoisonedNStep(first=2), callbacks=[ages], inject_lag=3, max_env_steps=1000)
    assert ages.made == [{0}] * 3 + [{3}] * (model.updates - 3)


# ---------------------------------------------------------------- workers that learn


def make_worker(estimator=None, network=None, optimizer=OPTIMIZERS["RMSprop"], max_skipped=2, reuse=None):
    network = network or make_network()
    tally = Tally(2)
    tally.release()
    weights = LiveWeights(network, tally)
    shared = SharedOptimizer(optimizer(network.parameters()), network.parameters())
    objective = Objective(estimator or NStep(4))
    learning = Learning(objective, max_grad_norm=0.5, max_skipped=max_skipped, reuse=reuse or Reuse())
    rule = UpdateRule(learning, weights, tally, steps_before=0)
    return ActorLearner(1, copy.deepcopy(network), rule, shared), rule, shared


def make_transitions(version=0):
    batch = empty_batch(BatchShape(4, 3, (2,), torch.float32))
    batch.observations.normal_()
    batch.rewards.normal_()
    batch.mask.fill_(True)
    batch.policy_versions.fill_(version)
    return batch


def shared_numbers(rule, shared):
    tensors = [*rule.weights.parameters, *rule.weights.buffers, *shared._block.views.values()]
    return {str(index): tensor.clone() for index, tensor in enumerate(tensors)}


def test_row_27_a_workers_update_ends_where_a_later_step_is_not_finite(caplog):
    space = make_network().observation_space
    network = CountingNetwork(space, make_network().action_space, poisoned_calls=[1 + 2])
    learner, rule, shared = make_worker(network=network, reuse=Reuse(3))
    steps = []
    learner.optimizer.register_step_post_hook(lambda *_: steps.append(shared_numbers(rule, shared)))
    learner.update(make_transitions(0), 0)
    assert len(steps) == 2
    parameters = {str(index) for index in range(len(rule.weights.parameters))}
    assert same(
        {name: value for name, value in steps[-1].items() if name in parameters},
        {name: value for name, value in shared_numbers(rule, shared).items() if name in parameters},
    )
    tally = rule.tally
    assert (tally.updates, tally.total("gradient_steps"), tally.total("trained")) == (1, 2, 12)
    assert (tally.total("skipped"), tally.total("rejected")) == (1, 0)
    assert "worker 1: update skipped" in caplog.text


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_row_27_a_workers_skipped_update_touches_nothing_shared(name):
    space = make_network().observation_space
    network = CountingNetwork(space, make_network().action_space, poisoned_calls=[2])
    learner, rule, shared = make_worker(network=network, optimizer=OPTIMIZERS[name])
    learner.update(make_transitions(0), 0)
    before = shared_numbers(rule, shared)
    learner.update(make_transitions(1), 1)
    assert same(before, shared_numbers(rule, shared))
    assert learner._network.trained_on == 1
    assert (rule.tally.updates, rule.tally.total("trained")) == (1, 12)
    assert (rule.tally.total("rejected"), rule.tally.total("skipped"), rule.tally.env_steps) == (12, 1, 24)
    assert learner.sums.updates == 1
    learner.update(make_transitions(1), 2)
    assert not same(before, shared_numbers(rule, shared))
    assert rule.tally.updates == 2


def test_row_27_a_worker_with_too_many_in_a_row_raises_an_error_that_is_fatal():
    learner, rule, _ = make_worker(PoisonedNStep(4, first=1, count=99))
    for _ in range(2):
        learner.update(make_transitions(), 0)
    with pytest.raises(TrainingDivergedError) as caught:
        learner.update(make_transitions(), 0)
    assert caught.value.fatal
    assert (rule.tally.total("skipped"), rule.tally.total("rejected"), rule.tally.updates) == (3, 36, 0)


def test_row_27_one_worker_of_two_skips_and_the_other_goes_on(caplog):
    caplog.set_level(logging.WARNING)
    model, data, trainer = fit(
        PoisonedNStep(first=3, count=4, from_env=4), mode="hogwild", workers=2, max_env_steps=10_000
    )
    assert model.skipped_updates == 4
    progress = data.progress
    assert progress.dropped["bad_update"] == 4 * 32
    assert progress.env_steps >= 10_000
    assert progress.trained == 32 * model.updates
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert sum(model.lags.counts.values()) == 4 * model.updates
    assert all(tensor.isfinite().all() for tensor in everything(model.network, trainer.optimizers[0]).values())
    assert data.mode.exit_codes == [0, 0]


def test_row_27_one_worker_of_two_that_keeps_failing_ends_the_run_with_good_weights_saved(tmp_path):
    with pytest.raises(WorkerError, match="TrainingDivergedError: 4 updates in a row"):
        fit(
            PoisonedNStep(first=3, count=10**9, from_env=4),
            mode="hogwild",
            workers=2,
            learning={"max_skipped_updates": 3},
            callbacks=[Checkpoints(tmp_path)],
            max_env_steps=10**8,
        )
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["a3c"]["updates"] > 0
    assert checkpoint["a3c"]["skipped_updates"] == 4
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_row_27_the_command_line_ends_with_status_1_one_line_and_finite_weights_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    flags = {
        "--mode": "sync",
        "--model.optimizer": "torch.optim.SGD",
        "--model.optimizer.lr": "1e30",  # the first step leads where losses overflow
        "--model.max_grad_norm": "null",
        "--model.max_skipped_updates": "2",
        "--run_dir": "run",
    }
    assert main(CONFIG, [word for flag in flags.items() for word in flag]) == 1
    errors = capsys.readouterr().err
    assert "error: 3 updates in a row were not finite" in errors.splitlines()[-2]
    assert "Traceback" not in errors
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["a3c"]["skipped_updates"] == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
