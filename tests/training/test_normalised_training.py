"""Statistics of a network are those of what it was trained on, and go wherever its weights go."""

import numpy as np
import pytest
import torch
from helpers import fit
from lightning.pytorch import Callback

from a3c import A3C, Agent, FullEpisode, GreedyEvaluation, MLPActorCritic, NStep, RolloutDataModule, load
from a3c.networks.normalisation import PopArt
from a3c.runs.checkpoints import read_checkpoint
from a3c.runs.resume import check_same
from a3c.training.callbacks import Checkpoints

SCALED = "goal_env:Plain-v0"  # observations around 1000
ALL = {
    "normalise_advantages": True,
    "normalise_observations": True,
    "clip_observations": 10.0,
    "popart": True,
}


class Watch(Callback):
    """Keeps what is trained on, and how far the policy is from the one that acted, by update."""

    def __init__(self):
        self.observations, self.kl, self.ratios, self.masked = [], [], [], 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.observations.append(batch.observations[:-1][batch.mask].double())
        self.masked += int((~batch.mask).sum())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.window.sums.updates:
            means = pl_module.window.sums.take_means()  # taken away, so of this update alone
            self.kl.append(means["policy/kl_from_behaviour"])
            self.ratios.append(means["importance/effective_sample_size"])


def buffers(network):
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert ours
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("estimator", [NStep(8), FullEpisode()], ids=["reset steps", "padding"])
def test_statistics_are_numpys_over_all_real_observations_that_were_trained_on(estimator):
    watch = Watch()
    learning = {"normalise_observations": True}
    model, data, _ = fit(estimator, max_env_steps=3000, callbacks=[watch], learning=learning)
    assert model.updates > 3
    assert watch.masked > 100
    seen = torch.cat(watch.observations).numpy()
    assert len(seen) == data.progress.trained
    (moments,) = model.network.normaliser.moments
    assert moments.count.item() == pytest.approx(len(seen), abs=1e-3)
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments.variance, seen.var(0), rtol=1e-4, atol=1e-6)


def test_the_policy_is_judged_with_the_statistics_that_it_acted_with():
    watch = Watch()
    fit(NStep(8), max_env_steps=4000, callbacks=[watch], learning=ALL)
    assert len(watch.kl) > 50
    assert max(map(abs, watch.kl)) < 1e-6
    assert min(watch.ratios) > 1 - 1e-5


def test_an_update_that_is_skipped_leaves_the_statistics():
    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if pl_module.updates == 5 and pl_module.skipped_updates == 0:
                self.before = buffers(pl_module.network)
                batch.rewards.fill_(torch.nan)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if pl_module.skipped_updates and not hasattr(self, "after"):
                self.after = buffers(pl_module.network)

    spoil = Spoil()
    model, *_ = fit(NStep(8), max_env_steps=500, callbacks=[spoil], learning=ALL)
    assert model.skipped_updates == 1
    assert_equal(spoil.before, spoil.after)


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_all_at_once_in_every_mode_from_training_to_an_agent(mode, tmp_path):
    evaluation = GreedyEvaluation(every_env_steps=2000, episodes=8, final_episodes=8, stop_when_solved=False)
    folder = tmp_path / "run" / "checkpoints"
    learning = {**ALL, "popart": mode != "hogwild", "optimizer": lambda params: torch.optim.Adam(params, lr=1e-2)}
    model, data, _ = fit(
        NStep(8),
        mode=mode,
        env=SCALED,
        workers=2 if mode == "hogwild" else 1,
        envs_per_worker=8,
        max_env_steps=16_000,
        normalise_rewards=True,
        clip_rewards=5.0,
        callbacks=[evaluation, Checkpoints(folder, evaluation)],
        learning=learning,
    )
    assert model.updates >= 200
    assert evaluation.final.return_mean == 20.0  # whose observations are around 1000
    (moments,) = model.network.normaliser.moments
    assert 1000 < moments.mean[0] < 1010
    assert 4000 < moments.count < 1.01 * data.progress.trained
    if mode != "hogwild":
        assert moments.count.item() == pytest.approx(data.progress.trained, abs=1e-3)
        assert model.network.critic_head.count == model.updates
    agent = load(folder / "last.ckpt", allow=["goal_env"])
    assert_equal(buffers(agent.network), buffers(model.network))
    assert agent.network.normaliser.clip == 10
    assert isinstance(agent.network.critic_head, PopArt) == (mode != "hogwild")
    assert agent.evaluate(8).return_mean == 20.0
    assert_equal(buffers(agent.network), buffers(model.network))  # an evaluation leaves them as they are


def test_workers_act_with_the_learners_statistics():
    class Compare(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            other = MLPActorCritic(*pl_module.network.spaces, hidden_sizes=(16,))
            pl_module.normalisation.attach(other)
            pl_module.mode.weights.pull(other)
            assert_equal(buffers(other), buffers(pl_module.network))

    model, *_ = fit(NStep(8), mode="async", max_env_steps=1000, callbacks=[Compare()], learning=ALL)
    assert model.updates > 10


def test_a_run_with_other_normalisation_than_the_checkpoints_is_refused(tmp_path):
    *_, trainer = fit(NStep(8), max_env_steps=100, learning={"normalise_observations": True})
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    described, _ = read_checkpoint(tmp_path / "run.ckpt")
    for flags, message in (
        ({}, "was trained with normalise_observations True, must be that of the run: None"),
        (
            {"normalise_observations": True, "popart": True},
            "was trained with popart None, must be that of the run: True",
        ),
    ):
        data = RolloutDataModule(mode="sync", envs_per_worker=4)
        network = MLPActorCritic(data.observation_space, data.action_space, hidden_sizes=(16,))
        ours = A3C(network, NStep(8), **flags).identity(data.mode)
        with pytest.raises(ValueError, match=message):
            check_same({**described, "optimizer": ours["optimizer"]}, ours)
    network = MLPActorCritic(data.observation_space, data.action_space, hidden_sizes=(16,))
    same = A3C(network, NStep(8), normalise_observations=True, clip_observations=3.0)
    check_same(described, same.identity(data.mode))


def test_popart_is_refused_in_hogwild_before_anything_starts():
    with pytest.raises(ValueError, match="popart: got true in mode hogwild, must be false there"):
        fit(NStep(8), mode="hogwild", max_env_steps=100, learning={"popart": True})


def test_without_the_flags_a_network_has_no_statistics():
    model, data, _ = fit(NStep(8), max_env_steps=100)
    assert not list(model.network.buffers())
    assert not model.network.keeps_statistics
    assert Agent(model.network, data.env).network.normaliser is None
