import copy

import pytest
import torch
from helpers import fit, make_network
from lightning.pytorch import Callback

from a3c import A3C, GAE, FullEpisode, NStep, VTrace


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()


@pytest.mark.parametrize("returns", [NStep(8), FullEpisode(), VTrace(8)], ids=lambda r: type(r).__name__)
def test_sync_is_reproducible_bit_for_bit(returns):
    one, first, _ = fit(copy.deepcopy(returns), max_env_steps=3000)
    two, second, _ = fit(copy.deepcopy(returns), max_env_steps=3000)
    other, _, _ = fit(copy.deepcopy(returns), max_env_steps=3000, seed=2)
    assert torch.equal(vector(one.network), vector(two.network))
    assert first.progress.episodes == second.progress.episodes
    assert not torch.equal(vector(one.network), vector(other.network))


class Steps(Callback):
    """Compares every applied step with a fresh gradient, and the published weights with the network."""

    def __init__(self):
        self.checked = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        copied = copy.deepcopy(pl_module.network)
        loss, _ = pl_module.objective(copied, batch)
        gradients = torch.autograd.grad(loss, list(copied.parameters()))
        self.expected = torch.cat(
            [
                (parameter - 0.1 * gradient).flatten()
                for parameter, gradient in zip(copied.parameters(), gradients, strict=True)
            ]
        ).detach()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        assert torch.allclose(vector(pl_module.network), self.expected, atol=1e-6)
        pulled = copy.deepcopy(pl_module.network)
        torch.nn.utils.vector_to_parameters(torch.zeros_like(self.expected), pulled.parameters())
        assert pl_module.mode.weights.pull(pulled) == pl_module.updates == batch_idx + 1
        assert torch.equal(vector(pulled), vector(pl_module.network))
        self.checked += 1


def test_the_applied_gradient_is_the_fresh_one_on_every_update_and_is_published():
    steps = Steps()
    fit(
        NStep(4),
        callbacks=[steps],
        max_env_steps=80,
        learning={"max_grad_norm": None, "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)},
    )
    assert steps.checked >= 3


def test_gradients_are_clipped_to_the_norm():
    norms = []

    class Norms(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            norms.append(torch.cat([p.grad.flatten() for p in pl_module.network.parameters()]).norm().item())

    fit(NStep(4), callbacks=[Norms()], max_env_steps=300, learning={"max_grad_norm": 0.01})
    assert len(norms) > 3
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discount", 1.5),
        ("discount", -0.1),
        ("discount", float("nan")),
        ("value_coefficient", -1.0),
        ("entropy_coefficient", float("inf")),
        ("value_loss", "cubic"),
        ("huber_delta", 0.0),
        ("reward_scale", 0.0),
        ("reward_scale", float("inf")),
        ("reduction", "median"),
        ("max_grad_norm", 0.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got .*, must be"):
        A3C(make_network(), NStep(4), **{field: value})


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_a_learning_rate_that_cannot_be_is_refused_before_the_fit(rate):
    with pytest.raises(ValueError, match=r"^optimizer: "):
        A3C(make_network(), NStep(4), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate))


def test_metrics_are_means_over_the_updates_since_the_last_flush():
    rows = []

    class Rows(Callback):
        def on_fit_start(self, trainer, pl_module):
            pl_module.log_now, log_now = (lambda metrics: (rows.append(metrics), log_now(metrics))), pl_module.log_now

    losses = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].item())

    fit(GAE(4), callbacks=[Rows(), Losses()], max_env_steps=1000)
    flushed = rows[0]
    every = 50  # Lightning's default for log_every_n_steps
    assert len(losses) >= every
    assert flushed["loss/total"] == pytest.approx(sum(losses[:every]) / every, rel=1e-4)
    assert flushed["lag/policy_versions"] == 0


def test_what_a_checkpoint_could_not_describe_is_refused_at_once():
    class Forgetful(NStep):
        def __init__(self, bonus=1.0):
            super().__init__(4)

    with pytest.raises(ValueError, match="Forgetful keeps no attribute 'bonus'"):
        A3C(make_network(), Forgetful())


class Remembering(NStep):
    """N-step returns that count how often they were asked for."""

    asked = 0

    def __call__(self, *args):
        self.asked += 1
        return super().__call__(*args)

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


def test_what_an_estimator_has_learned_itself_is_kept_in_checkpoints(tmp_path):
    returns = Remembering(8)
    *_, trainer = fit(returns, max_env_steps=320)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    resumed = Remembering(8)
    fit(resumed, ckpt_path=tmp_path / "run.ckpt", max_env_steps=640)
    assert 0 < returns.asked < resumed.asked
    once = Remembering(8)
    fit(once, max_env_steps=640)
    assert resumed.asked == once.asked


def test_a_state_that_no_estimator_can_take_is_refused(tmp_path):
    *_, trainer = fit(Remembering(8), max_env_steps=320)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="NStep keeps no state, and got one with asked"):
        fit(NStep(8), ckpt_path=tmp_path / "run.ckpt", max_env_steps=640)
