"""Workers that learn by themselves: whole fits, and one worker's update."""

import copy
import pickle
import time

import pytest
import torch
from helpers import fit, make_network
from lightning.pytorch import Callback
from optimizers import DyingAdam

from a3c import GAE, FullEpisode, L2Normalised, NStep, Objective
from a3c.batch import BatchShape, empty_batch
from a3c.learner.hogwild.actor_learner import ActorLearner, UpdateRule
from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.shared_optimizer import SharedOptimizer, step_counts
from a3c.learner.hogwild.tally import Tally
from a3c.learner.learning import Learning
from a3c.learner.reuse import Reuse
from a3c.learner.schedules import Linear
from a3c.rollouts.workers.failures import WorkerError
from a3c.training.callbacks import Checkpoints


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()


def hogwild(returns=None, **kwargs):
    return fit(returns, **{"mode": "hogwild", "workers": 2, "max_env_steps": 3000, **kwargs})


# ---------------------------------------------------------------- one worker's update


def rmsprop(parameters):
    return torch.optim.RMSprop(parameters, lr=0.1)


def make_learner(make_optimizer, workers=1, worker=0, max_lag=None, shared=True, reuse=None, **objective):
    network = make_network()
    tally = Tally(workers)
    tally.release()
    weights = LiveWeights(network, tally)
    optimizer = SharedOptimizer(make_optimizer(network.parameters()), network.parameters())
    rule = UpdateRule(
        Learning(Objective(NStep(4), **objective), max_skipped=2, reuse=reuse or Reuse()),
        weights,
        tally,
        max_lag,
        steps_before=0 if shared else None,
    )
    return ActorLearner(worker, copy.deepcopy(network), rule, optimizer), rule


def make_transitions(seed, version=0):
    generator = torch.Generator().manual_seed(seed)
    batch = empty_batch(BatchShape(4, 3, (2,), torch.float32))
    batch.observations.normal_(generator=generator)
    batch.rewards.normal_(generator=generator)
    batch.mask.fill_(True)
    batch.policy_versions.fill_(version)
    return batch


@pytest.mark.parametrize("seed", [0, 1])
def test_the_applied_gradient_is_the_fresh_one_on_every_update(seed):
    learner, rule = make_learner(lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    for update in range(4):
        ours = make_network()
        version = rule.weights.pull(ours)
        assert version == update
        batch = make_transitions(10 * seed + update, version)
        loss, _ = rule.learning.objective(ours, batch)
        gradients = torch.autograd.grad(loss, list(ours.parameters()))
        expected = [
            parameter - 0.1 * gradient for parameter, gradient in zip(ours.parameters(), gradients, strict=True)
        ]
        learner.update(batch, rule.weights.pull(learner._network))
        for shared, wanted in zip(rule.weights.parameters, expected, strict=True):
            assert torch.allclose(shared, wanted, atol=1e-7)
    assert rule.tally.updates == 4
    assert rule.tally.total("trained") == 4 * 12


def test_every_step_of_an_update_is_made_from_the_shared_weights_of_then():
    reuse = Reuse(2, 3)
    learner, rule = make_learner(lambda parameters: torch.optim.SGD(parameters, lr=0.1), reuse=reuse)
    batch, ours = make_transitions(0), make_network()
    rule.weights.pull(ours)
    for step in reuse.gradient_steps(rule.learning.objective, ours, batch, seed=(0, 0)):
        gradients = torch.autograd.grad(step.loss, list(ours.parameters()))
        moved = [parameter - 0.1 * gradient for parameter, gradient in zip(ours.parameters(), gradients, strict=True)]
        torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(moved).detach(), ours.parameters())
    learner.update(batch, rule.weights.pull(learner._network))
    for shared, wanted in zip(rule.weights.parameters, ours.parameters(), strict=True):
        assert torch.allclose(shared, wanted, atol=1e-6)
    tally = rule.tally
    assert (tally.updates, tally.total("gradient_steps"), tally.total("trained")) == (1, 6, 12)
    sums, updates = learner.sums.take()
    assert updates == 1
    assert (sums["loss/value"].number, sums["pass_2/explained_variance"].number, sums["gradient/norm"].number) == (
        2,
        1,
        1,
    )


def test_the_optimizer_counts_gradient_steps_those_of_others_included():
    learner, rule = make_learner(lambda parameters: torch.optim.Adam(parameters), workers=2, reuse=Reuse(2, 3))
    rule.tally.add(1, updates=1, gradient_steps=20, trained=12)
    learner.update(make_transitions(0), rule.weights.pull(learner._network))
    assert {int(count) for count in step_counts(learner.optimizer)} == {20 + 6}


def test_an_update_of_many_steps_ends_on_a_request_to_stop_and_is_counted():
    learner, rule = make_learner(rmsprop, reuse=Reuse(4, 3))
    asked = []

    def should_stop():
        asked.append(len(asked))
        return len(asked) == 5

    learner._should_stop = should_stop
    learner.update(make_transitions(0), rule.weights.pull(learner._network))
    tally = rule.tally
    assert (tally.updates, tally.total("gradient_steps"), tally.total("trained")) == (1, 5, 12)
    assert tally.total("skipped") == 0


def test_each_update_of_each_worker_draws_its_minibatches_anew(monkeypatch):
    seeds = []

    def gradient_steps(learning, network, batch, env_steps, seed, observe=None):
        seeds.append(seed)
        return original(learning, network, batch, env_steps, seed, observe)

    original = Learning.gradient_steps
    monkeypatch.setattr(Learning, "gradient_steps", gradient_steps)
    for worker in (0, 1):
        learner, rule = make_learner(rmsprop, workers=2, worker=worker, reuse=Reuse(2, 3))
        for number in range(3):
            learner.update(make_transitions(number), rule.weights.pull(learner._network))
    assert len(set(seeds)) == len(seeds) == 2 * 3


def test_an_update_that_ends_early_is_counted_and_its_steps_are_there():
    reuse = Reuse(4, 3, target_kl=1e-9)
    learner, rule = make_learner(lambda parameters: torch.optim.SGD(parameters, lr=0.5), reuse=reuse)
    for number in (1, 2):
        learner.update(make_transitions(number), rule.weights.pull(learner._network))
        tally = rule.tally
        assert (tally.updates, tally.total("gradient_steps"), tally.total("trained")) == (number, number, 12 * number)


def test_what_was_made_of_an_update_is_counted_on_a_request_to_stop():
    reuse = Reuse(4)
    learner, rule = make_learner(rmsprop, reuse=reuse)

    class Stopping:
        def step(self):
            optimizer.step()
            rule.tally._flag[0] = 1  # held from now on

    optimizer, learner.optimizer = learner.optimizer, Stopping()
    learner._should_stop = lambda: True
    learner._rule.learning.rates.set_learning_rates(optimizer, 0)
    learner.update(make_transitions(0), 0)
    tally = rule.tally
    assert (tally.updates, tally.total("gradient_steps"), tally.total("trained")) == (1, 1, 12)
    assert not tally._inside()


def test_lag_counts_the_updates_of_others_between_pull_and_apply():
    learner, rule = make_learner(rmsprop, workers=3)
    version = rule.weights.pull(learner._network)
    for other, count in ((1, 2), (2, 3)):
        for _ in range(count):
            rule.tally.add(other, updates=1, trained=12)
    learner.update(make_transitions(0, version), version)
    assert learner.lags == {5: 3}
    assert learner.sums.take_means()["lag/policy_versions"] == 5
    version = rule.weights.pull(learner._network)
    learner.update(make_transitions(1, version), version)
    assert learner.lags == {5: 3, 0: 3}


def test_a_gradient_that_is_too_old_is_dropped_and_counted():
    learner, rule = make_learner(rmsprop, workers=2, max_lag=1)
    before = [parameter.clone() for parameter in rule.weights.parameters]
    rule.tally.add(1, updates=1, trained=12)
    rule.tally.add(1, updates=1, trained=12)
    learner.update(make_transitions(0, 0), 0)
    assert all(torch.equal(now, then) for now, then in zip(rule.weights.parameters, before, strict=True))
    assert (rule.tally.total("dropped"), rule.tally.total("trained"), rule.tally.updates) == (12, 24, 2)
    assert learner.sums.updates == 0
    learner.update(make_transitions(0, 1), 1)
    assert (rule.tally.total("dropped"), rule.tally.total("trained"), rule.tally.updates) == (12, 36, 3)


def test_further_updates_from_one_pull_see_those_before():
    learner, rule = make_learner(lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    version = rule.weights.pull(learner._network)
    for update in range(4):
        ours = make_network()
        rule.weights.pull(ours)
        loss, _ = rule.learning.objective(ours, make_transitions(update))
        gradients = torch.autograd.grad(loss, list(ours.parameters()))
        expected = [p - 0.1 * gradient for p, gradient in zip(ours.parameters(), gradients, strict=True)]
        learner.update(make_transitions(update), version)
        for shared, wanted in zip(rule.weights.parameters, expected, strict=True):
            assert torch.allclose(shared, wanted, atol=1e-7)


def test_a_worker_told_to_stop_while_held_changes_nothing():
    learner, rule = make_learner(rmsprop)
    rule.tally.hold()
    learner._should_stop = lambda: True
    before = [parameter.clone() for parameter in rule.weights.parameters]
    learner.update(make_transitions(0), 0)
    assert all(torch.equal(now, then) for now, then in zip(rule.weights.parameters, before, strict=True))
    assert rule.tally.updates == 0


# ---------------------------------------------------------------- whole fits

SAME = {
    "fixed horizon": {"returns": NStep(8)},
    "episodes": {"returns": FullEpisode(), "fragment_steps": 8},
    "segments": {"returns": L2Normalised(NStep(8, end_at_episode=True)), "envs_per_worker": 1},
    "several rollouts": {"returns": GAE(8), "rollouts_per_update": 3},
    "own optimizer": {"returns": NStep(8), "learning": {"shared_optimizer": False, "optimizer": rmsprop}},
    "schedules": {
        "returns": NStep(8),
        "learning": {
            "lr_schedule": Linear(),
            "entropy_schedule": Linear(0.5, env_steps=1000),
            "entropy_coefficient": 0.01,
        },
    },
    "minibatches": {"returns": GAE(8), "learning": {"passes": 2, "minibatches": 4, "ratio_clip": 0.2}},
    "no clipping": {"returns": NStep(8), "learning": {"max_grad_norm": None}},
    "episode budget": {
        "returns": NStep(8, end_at_episode=True),
        "envs_per_worker": 1,
        "max_env_steps": None,
        "max_episodes_per_worker": 25,
    },
}


@pytest.mark.parametrize("name", SAME)
def test_one_worker_learns_bit_for_bit_what_sync_learns(name):
    arguments = {"max_env_steps": 2000, **copy.deepcopy(SAME[name])}
    one, first, _ = hogwild(workers=1, **arguments)
    two, second, _ = fit(mode="sync", **copy.deepcopy(arguments))
    assert one.updates == two.updates > 5
    assert first.progress.env_steps == second.progress.env_steps
    assert first.progress.episodes == second.progress.episodes
    assert torch.equal(vector(one.network), vector(two.network))
    for ours, theirs in zip(one.trainer.optimizers, two.trainer.optimizers, strict=True):
        ours, theirs = ours.state_dict()["state"], theirs.state_dict()["state"]
        for key in theirs:
            assert all(
                torch.equal(torch.as_tensor(ours[key][name]), torch.as_tensor(theirs[key][name]))
                for name in theirs[key]
            )


def test_counts_are_exact_with_several_workers():
    model, data, trainer = hogwild(workers=3, max_env_steps=6000, envs_per_worker=2)
    progress = data.progress
    assert progress.trained >= 6000
    assert progress.trained < 6000 + 3 * 16
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert 0 <= progress.in_flight <= 3 * 16
    assert {int(count) for count in step_counts(trainer.optimizers[0])} == {model.updates}
    assert sum(model.lags.counts.values()) == 2 * model.updates  # every update reported its columns
    assert data.mode.exit_codes == [0, 0, 0]


def test_unshared_optimizers_belong_to_the_parent_and_to_its_checkpoints(tmp_path):
    model, _, trainer = hogwild(workers=2, learning={"shared_optimizer": False}, max_env_steps=4000)
    assert len(trainer.optimizers) == 2
    steps = [int(step_counts(optimizer)[0]) for optimizer in trainer.optimizers]
    assert all(steps)
    assert sum(steps) == model.updates
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["optimizer_states"]
    for state, optimizer in zip(saved, trainer.optimizers, strict=True):
        assert state["state"][0]["exp_avg"].abs().sum() > 0
        assert torch.equal(state["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("shared", [True, False])
def test_a_resumed_run_goes_on_with_counters_and_statistics(tmp_path, shared):
    learning = {"shared_optimizer": shared}
    model, data, trainer = hogwild(learning=learning)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again, more, second = hogwild(learning=learning, max_env_steps=6000, ckpt_path=tmp_path / "run.ckpt")
    assert again.updates > model.updates
    assert more.progress.env_steps >= 6000
    assert more.progress.episodes > data.progress.episodes
    counts = [int(step_counts(optimizer)[0]) for optimizer in second.optimizers]
    assert sum(counts) == again.updates
    assert sum(again.lags.counts.values()) == 4 * again.updates
    done, same, _ = hogwild(learning=learning, max_env_steps=1000, ckpt_path=tmp_path / "run.ckpt")
    assert done.updates == model.updates  # its budget is used up: nothing is started
    assert same.progress.env_steps == data.progress.env_steps
    assert torch.equal(vector(done.network), vector(model.network))


def test_a_checkpoint_of_one_mode_goes_on_in_another(tmp_path):
    model, _, trainer = fit(mode="sync", max_env_steps=1000)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again, _, second = hogwild(ckpt_path=tmp_path / "run.ckpt")
    assert again.updates > model.updates
    assert {int(count) for count in step_counts(second.optimizers[0])} == {again.updates}


class Held(Callback):
    """Looks whether anything changes while the workers are held."""

    def __init__(self):
        self.looks = 0

    def on_train_batch_end(self, trainer, pl_module, *args):
        if self.looks == 3 or trainer.should_stop:
            return
        pl_module.hold()
        shared = torch.cat([parameter.flatten() for parameter in pl_module.mode.weights.parameters])
        assert torch.equal(shared, vector(pl_module.network))
        progress = trainer.datamodule.progress
        assert pl_module.updates == pl_module.mode.weights.version
        before = (pl_module.mode.weights.version, progress.trained)
        time.sleep(0.2)
        now = torch.cat([parameter.flatten() for parameter in pl_module.mode.weights.parameters])
        assert torch.equal(shared, now)
        trainer.datamodule.mode._reports.refresh()
        assert before == (pl_module.mode.weights.version, progress.trained)
        self.looks += 1


def test_while_workers_are_held_nothing_changes_and_afterwards_they_go_on():
    held = Held()
    model, data, _ = hogwild(callbacks=[held], max_env_steps=30_000)
    assert held.looks == 3
    assert data.progress.trained >= 30_000
    assert model.updates == model.mode.weights.version


def test_every_update_is_reported():
    rows = []

    class Rows(Callback):
        def on_fit_start(self, trainer, pl_module):
            pl_module.log_now, log_now = (lambda metrics: (rows.append(metrics), log_now(metrics))), pl_module.log_now

    model, _, _ = hogwild(callbacks=[Rows()], max_env_steps=20_000)
    histograms = [row["lag/histogram"] for row in rows]
    assert sum(sum(histogram.values()) for histogram in histograms) == 4 * model.updates
    assert all(
        {"loss/total", "policy/entropy", "gradient/norm", "importance/clip_fraction"} <= set(row) for row in rows
    )
    # A worker learns with the copy that it acted with: no ratio differs from 1 but by rounding.
    assert all(row["importance/clip_fraction"] == 0 for row in rows)
    assert all(row["importance/effective_sample_size"] == pytest.approx(1, abs=1e-5) for row in rows)


def test_a_run_that_is_stopped_early_keeps_its_last_updates():
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            trainer.should_stop = True

    model, data, trainer = hogwild(callbacks=[Stop()], max_env_steps=10**9)
    assert model.updates == model.mode.weights.version > 0
    assert sum(model.lags.counts.values()) == 4 * model.updates
    shared = torch.cat([parameter.flatten() for parameter in model.mode.weights.parameters])
    assert torch.equal(shared, vector(model.network))
    assert data.mode.exit_codes == [0, 0]
    assert {int(count) for count in step_counts(trainer.optimizers[0])} == {model.updates}


def test_a_worker_that_dies_inside_a_step_leaves_finite_weights_and_a_checkpoint(tmp_path):
    evaluation = None
    with pytest.raises(WorkerError, match="was killed by SIGKILL"):
        hogwild(
            callbacks=[Checkpoints(tmp_path, evaluation)],
            learning={"optimizer": DyingAdam},
            max_env_steps=100_000,
        )
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("optimizer", [torch.optim.NAdam, torch.optim.Rprop])
def test_an_optimizer_that_cannot_be_shared_is_refused_before_the_start(optimizer):
    with pytest.raises(ValueError, match=rf"^optimizer: got {optimizer.__name__}, must be one whose statistics"):
        hogwild(learning={"optimizer": optimizer})


def test_the_task_that_workers_get_holds_no_tensor_by_value():
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_index):
            pool = trainer.datamodule.mode.source
            seen.append(len(pickle.dumps(pool._task.optimizers[0]._skeleton)))

    hogwild(callbacks=[Look()])
    assert max(seen) < 5000
