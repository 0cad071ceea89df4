"""Whole fits whose updates are several gradient steps: what counts once, what is published, what is refused."""

import copy

import pytest
import torch
from helpers import COUNTDOWN, fit
from lightning.pytorch import Callback, Trainer
from poisoned import CountingNetwork

from a3c import A3C, GAE, FullEpisode, MLPActorCritic, NStep, ReturnEstimator, RolloutDataModule, Targets, VTrace
from a3c.learner.guard import TrainingDivergedError
from a3c.learner.hogwild.shared_optimizer import step_counts
from a3c.learner.learning import Learning
from a3c.learner.objective import Objective
from a3c.learner.reuse import Reuse
from a3c.rollouts.workers.failures import WorkerError
from a3c.training.callbacks import Checkpoints

PPO = {"passes": 3, "minibatches": 4, "ratio_clip": 0.2}
ENDLESS = {"env": COUNTDOWN, "env_kwargs": {"lengths": (10**6,)}}  # no reset steps: every rollout has 8 × 4 steps


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()


class Watch(Callback):
    """Keeps the published version and what is counted, before and after each update."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        progress, mode = trainer.datamodule.progress, pl_module.mode
        pulled = copy.deepcopy(pl_module.network)
        version = mode.weights.pull(pulled)
        assert torch.equal(vector(pulled), vector(pl_module.network))
        self.rows.append((version, pl_module.updates, pl_module.gradient_steps, progress.env_steps))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_version_is_one_publication_and_a_step_trained_on_often_is_one_env_step(mode):
    watch = Watch()
    model, data, trainer = fit(GAE(8), learning=PPO, callbacks=[watch], mode=mode, max_env_steps=320, **ENDLESS)
    assert watch.rows == [(update, update, 12 * update, 32 * update) for update in range(1, 11)]
    assert trainer.global_step == 120
    assert data.progress.trained == 320
    assert sum(model.lags.counts.values()) == 10 * 4  # columns of ten updates
    if mode == "sync":
        assert model.lags.counts == {0: 40}


def test_each_update_draws_its_minibatches_anew(monkeypatch):
    seeds = []

    def gradient_steps(learning, network, batch, env_steps, seed, observe=None):
        seeds.append(seed)
        return original(learning, network, batch, env_steps, seed, observe)

    original = Learning.gradient_steps
    monkeypatch.setattr(Learning, "gradient_steps", gradient_steps)
    for seed in (1, 2):
        fit(GAE(8), learning=PPO, seed=seed, max_env_steps=160, **ENDLESS)
    assert len(set(seeds)) == len(seeds) == 2 * 5


def test_workers_that_learn_make_all_steps_of_their_updates():
    model, data, trainer = fit(GAE(8), learning=PPO, mode="hogwild", workers=2, max_env_steps=640, **ENDLESS)
    assert model.updates >= 18  # the last ones are left out on the request to stop
    assert 12 * model.updates <= model.gradient_steps <= 12 * (model.updates + 2)
    assert {int(count) for count in step_counts(trainer.optimizers[0])} == {model.gradient_steps}
    progress = data.progress
    assert progress.trained == 32 * model.updates
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
@pytest.mark.parametrize("returns", [GAE(8), FullEpisode()], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("network", [{}, {"memory": "lstm", "memory_size": 4}], ids=["", "memory"])
def test_every_mode_reuses_rollouts_of_every_kind(mode, returns, network):
    reuse = {"passes": 2, "minibatches": 2, "ratio_clip": 0.2, "target_kl": 0.5, "recompute_targets": True}
    model, data, _ = fit(
        copy.deepcopy(returns), learning=reuse, network=network, mode=mode, workers=1, envs_per_worker=4,
        max_env_steps=600, env=COUNTDOWN, env_kwargs={"lengths": (3, 9)}, max_episode_steps=20,
    )  # fmt: skip
    assert model.gradient_steps > 2 * model.updates > 4
    assert model.skipped_updates == 0
    assert data.progress.env_steps >= 600


def test_passes_learn_more_from_as_many_steps():
    """Of the same first rollout, twelve small steps change the policy more than one, and in its direction."""
    moved = []
    for learning in ({}, PPO):
        model, _, _ = fit(GAE(8), learning={"optimizer": sgd, **learning}, max_env_steps=32, **ENDLESS)
        moved.append(vector(model.network))
    torch.manual_seed(1)
    data = RolloutDataModule(**ENDLESS, mode="sync", envs_per_worker=4)
    start = vector(MLPActorCritic(data.observation_space, data.action_space, hidden_sizes=(16,)))
    once, often = (each - start for each in moved)
    assert often.norm() > 3 * once.norm()
    assert torch.cosine_similarity(once, often, dim=0) > 0.5


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_later_step_that_is_not_finite_undoes_the_update(mode):
    class States(Callback):
        def __init__(self):
            self.weights, self.moments = [], []

        def on_train_batch_end(self, trainer, pl_module, *args):
            self.weights.append((vector(pl_module.network), pl_module.updates, pl_module.network.trained_on.item()))
            kept = trainer.optimizers[0].state.values()
            self.moments.append([value.clone() for each in kept for value in each.values()])

    torch.manual_seed(1)
    data = RolloutDataModule(**ENDLESS, mode=mode, workers=1, envs_per_worker=4, max_env_steps=4 * 32)
    # Of each update's forward passes one is for targets and four for steps: the tenth is the second one's last.
    network = CountingNetwork(data.observation_space, data.action_space, poisoned_calls=[10])
    model, states = A3C(network, GAE(8), passes=2, minibatches=2), States()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(accelerator="cpu", max_epochs=-1, callbacks=[states], **quiet).fit(model, data)
    (first, _, seen), (second, updates, seen_after), *_ = states.weights
    assert model.skipped_updates == 1
    assert data.progress.dropped == {"bad_update": 32}
    assert updates == 1
    assert torch.equal(first, second)
    assert seen == seen_after  # a buffer that the forward passes changed
    assert len(states.moments[0]) == 3 * len(list(network.parameters()))  # Adam's
    assert all(map(torch.equal, *states.moments[:2]))
    assert not any(map(torch.equal, *states.moments[1:3]))
    assert data.progress.collected == data.progress.trained + 32 + data.progress.in_flight


@pytest.mark.parametrize("mode", ["sync", "hogwild"])
def test_updates_none_of_which_ends_finite_end_the_run(mode):
    torch.manual_seed(1)
    data = RolloutDataModule(**ENDLESS, mode=mode, workers=1, envs_per_worker=4, max_env_steps=10_000)
    # One forward pass in each update is for targets, four are for steps, of which the last one is not finite.
    network = CountingNetwork(data.observation_space, data.action_space, poisoned_calls=range(5, 1000, 5))
    model = A3C(network, GAE(8), passes=2, minibatches=2, max_skipped_updates=3)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    with pytest.raises((TrainingDivergedError, WorkerError), match="4 updates in a row were not finite"):
        Trainer(accelerator="cpu", max_epochs=-1, **quiet).fit(model, data)


def test_in_bf16_each_step_is_made_with_the_weights_of_then():
    """Autocast may keep a copy of the weights in 16 bits, which a step makes old; Lightning's does not."""
    losses = {}

    class Losses(Objective):
        def loss(self, network, judged, steps, entropy_coefficient=None):
            loss, metrics = super().loss(network, judged, steps, entropy_coefficient)
            with torch.autocast("cpu", enabled=False):
                exact, _ = super().loss(network, steps.judged_by(network), steps, entropy_coefficient)
            losses.setdefault("bf16", []).append(loss.item())
            losses.setdefault("exact", []).append(exact.item())
            return loss, metrics

    torch.manual_seed(1)
    data = RolloutDataModule(**ENDLESS, mode="sync", envs_per_worker=4, max_env_steps=32)
    model = A3C(MLPActorCritic(data.observation_space, data.action_space), GAE(8), passes=6, optimizer=sgd)
    model.learning = Learning(Losses(GAE(8)), reuse=Reuse(6))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(accelerator="cpu", precision="bf16-mixed", max_epochs=-1, **quiet).fit(model, data)
    assert len(losses["exact"]) == 6
    fallen = losses["exact"][0] - losses["exact"][-1]
    for bf16, exact in zip(losses["bf16"], losses["exact"], strict=True):
        assert abs(bf16 - exact) < 0.1 * fallen


class RunningMean(ReturnEstimator):
    """Keeps the mean reward of all updates so far; what it gives says how often it was called."""

    def __init__(self):
        self.horizon = 8
        self.sums = torch.zeros(2, dtype=torch.float64)

    @property
    def statistics(self):
        return {"sums": self.sums}

    def __call__(self, batch, values, log_probs, discounts):
        return Targets(batch.rewards.clone(), batch.rewards.clone())

    def take_in(self, batch, values, log_probs, discounts):
        assert not log_probs.requires_grad or not torch.is_grad_enabled()
        self.sums += torch.stack((batch.rewards[batch.mask].sum().double(), batch.mask.sum().double()))


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_an_estimators_statistics_follow_each_update_once_in_every_mode_and_are_kept(mode, tmp_path):
    path = tmp_path / "last.ckpt"
    model, data, _ = fit(
        RunningMean(), learning=PPO, mode=mode, workers=1, max_env_steps=640,
        callbacks=[Checkpoints(tmp_path)], **ENDLESS,
    )  # fmt: skip
    assert model.returns.sums[1] == data.progress.trained > 500
    saved = torch.load(path, weights_only=True)["a3c"]["estimator_state"]
    assert saved["sums"][1] == data.progress.trained
    again = RunningMean()
    again.load_state_dict(saved)
    assert torch.equal(again.sums, model.returns.sums)


def test_two_workers_share_an_estimators_statistics():
    model, data, _ = fit(RunningMean(), mode="hogwild", workers=2, max_env_steps=3200, **ENDLESS)
    lost = data.progress.trained - model.returns.sums[1].item()
    assert 0 <= lost <= 0.2 * data.progress.trained  # of two that follow at the same moment one may be lost


@pytest.mark.parametrize(
    ("mode", "returns", "refused"),
    [
        ("sync", NStep(8), True),
        ("hogwild", NStep(8), True),
        ("async", NStep(8), False),
        ("sync", FullEpisode(), False),  # an episode may have been begun by earlier weights
    ],
)
def test_a_clip_with_nothing_to_clip_is_refused(mode, returns, refused):
    data = RolloutDataModule(**ENDLESS, mode=mode, envs_per_worker=4)
    network = MLPActorCritic(data.observation_space, data.action_space)
    model = A3C(network, returns, ratio_clip=0.2)
    if not refused:
        model.check_run(data.mode)
        return
    with pytest.raises(ValueError, match=rf"^ratio_clip: got 0.2 with passes 1 and minibatches 1 in mode {mode}, must"):
        model.check_run(data.mode)
    A3C(network, returns, ratio_clip=0.2, passes=2).check_run(data.mode)


def test_lag_that_is_injected_is_there_to_be_clipped():
    data = RolloutDataModule(**ENDLESS, mode="sync", envs_per_worker=4, inject_lag=2)
    A3C(MLPActorCritic(data.observation_space, data.action_space), NStep(8), ratio_clip=0.2).check_run(data.mode)


@pytest.mark.parametrize(("mode", "lags"), [("sync", False), ("hogwild", True)])
def test_rollouts_of_one_update_are_of_several_policies_in_hogwild_alone(mode, lags):
    data = RolloutDataModule(**ENDLESS, mode=mode, envs_per_worker=4, rollouts_per_update=2)
    assert data.mode.can_lag(NStep(8)) == lags


def test_minibatches_that_do_not_divide_a_batch_are_refused_before_anything_starts():
    data = RolloutDataModule(**ENDLESS, mode="sync", envs_per_worker=4, rollouts_per_update=3)
    network = MLPActorCritic(data.observation_space, data.action_space)
    A3C(network, VTrace(8), minibatches=32).check_run(data.mode)
    with pytest.raises(ValueError, match=r"^minibatches: got 5, must divide .* × n_steps = 96$"):
        A3C(network, VTrace(8), minibatches=5).check_run(data.mode)
