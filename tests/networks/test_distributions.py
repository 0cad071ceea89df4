"""The action distributions, and which action space has which."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from a3c.envs.spaces import ACTIONS, BoxLayout
from a3c.networks import Categorical
from a3c.networks.distributions import DISTRIBUTIONS, Distribution, distribution_for


def test_gumbel_max_samples_are_distributed_as_the_softmax():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, 0.5])
    draws = 50_000
    noise = Categorical.noise(spaces.Discrete(5), (draws,), torch.Generator().manual_seed(1))
    samples = Categorical(logits.expand(draws, 5)).sample(noise)
    observed = torch.bincount(samples, minlength=5).double()
    expected = draws * logits.double().softmax(0)
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    assert chi_square < 18.47  # its 99.9 % quantile with 4 degrees of freedom


def test_samples_have_the_leading_axes_and_are_integers():
    distribution = Categorical(torch.zeros(6, 3, 4))
    samples = distribution.sample(Categorical.noise(spaces.Discrete(4), (6, 3), torch.Generator().manual_seed(1)))
    assert samples.shape == (6, 3)
    assert samples.dtype == torch.int64


def test_noise_comes_from_the_generator_alone():
    first, second = (Categorical.noise(spaces.Discrete(3), (8,), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    other = Categorical.noise(spaces.Discrete(3), (8,), torch.Generator().manual_seed(8))
    assert not torch.equal(first, other)


def test_noise_is_gumbel_distributed():
    noise = Categorical.noise(spaces.Discrete(2), (100_000,), torch.Generator().manual_seed(1)).double()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler's γ
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_an_action_of_no_probability_is_never_sampled():
    logits = torch.tensor([0.0, -math.inf, 0.0]).expand(1000, 3)
    samples = Categorical(logits).sample(
        Categorical.noise(spaces.Discrete(3), (1000,), torch.Generator().manual_seed(1))
    )
    assert sorted(set(samples.tolist())) == [0, 2]


def test_log_probabilities_and_entropy_are_those_of_torch():
    logits = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(1)) * 4
    actions = torch.randint(5, (6, 3), generator=torch.Generator().manual_seed(2))
    ours, torchs = Categorical(logits), torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(actions), torchs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), torchs.entropy())
    torch.testing.assert_close(ours.log_probabilities.exp(), torchs.probs)


def test_entropy_of_even_odds_is_the_logarithm_of_their_number():
    assert Categorical(torch.full((5,), 3.0)).entropy().item() == pytest.approx(math.log(5))


def test_extreme_logits_give_finite_log_probabilities_entropy_and_gradients():
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    distribution = Categorical(logits)
    log_prob, entropy = distribution.log_prob(torch.tensor([0])), distribution.entropy()
    (log_prob + entropy).sum().backward()
    assert log_prob.item() == 0
    assert entropy.item() == 0
    assert logits.grad.isfinite().all()


def test_the_mode_is_the_most_probable_action():
    assert Categorical(torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])).mode().tolist() == [1, 0]


# Which space has which


def test_a_discrete_space_from_0_has_the_categorical():
    assert distribution_for(spaces.Discrete(3)) is Categorical
    assert Categorical.parameter_count(spaces.Discrete(3)) == 3


@pytest.mark.parametrize("space", [spaces.Discrete(3, start=1), spaces.Box(-1, 1), spaces.MultiDiscrete([2, 3])])
def test_a_space_without_a_distribution_is_refused_with_those_that_have_one(space):
    with pytest.raises(ValueError, match=r"action_space: got .*, must be one of: Discrete starting at 0$"):
        distribution_for(space)


class Sign(Distribution):
    """Actions 1.0 or -1.0 as the environments take them, and 1 or 0 as a batch holds them."""

    layout = BoxLayout

    @staticmethod
    def parameter_count(action_space):
        return 1

    @staticmethod
    def noise(action_space, shape, generator):
        return torch.rand(shape, generator=generator)

    def sample(self, noise):
        return (noise < self.parameters[..., 0].sigmoid()).long()

    def mode(self):
        return (self.parameters[..., 0] > 0).long()

    def log_prob(self, actions):
        return torch.nn.functional.logsigmoid(self.parameters[..., 0] * (2 * actions - 1))

    def entropy(self):
        return torch.zeros(self.parameters.shape[:-1])

    @staticmethod
    def for_env(actions):
        return (2.0 * actions - 1.0).astype(np.float32)[..., None]


def test_another_kind_is_one_class_and_one_entry(monkeypatch):
    monkeypatch.setattr("a3c.networks.distributions.DISTRIBUTIONS", (*DISTRIBUTIONS, Sign))
    assert distribution_for(spaces.Box(-1, 1, (1,))) is Sign
    with pytest.raises(ValueError, match=r"must be one of: Discrete starting at 0, Box$"):
        distribution_for(spaces.MultiBinary(2))


def test_every_action_that_memory_has_room_for_can_be_drawn():
    assert {kind.layout for kind in DISTRIBUTIONS} == set(ACTIONS)
