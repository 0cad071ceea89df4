"""Networks: shapes, initialisation, who trains which trunk; and the action distribution."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from a3c.networks import BookActorCritic, MLPActorCritic

CARTPOLE = spaces.Box(-np.inf, np.inf, (4,)), spaces.Discrete(2)
NETWORKS = {
    "book": lambda: BookActorCritic(*CARTPOLE),
    "separate": lambda: MLPActorCritic(*CARTPOLE, hidden_sizes=(16, 8)),
    "shared": lambda: MLPActorCritic(*CARTPOLE, hidden_sizes=(16, 8), shared_trunk=True),
    "one_layer": lambda: MLPActorCritic(*CARTPOLE, hidden_sizes=(16,), activation="tanh"),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]()


# Every network


@pytest.mark.parametrize("leading", [(6, 3), (3,), ()])
def test_logits_and_values_have_the_observations_leading_axes(network, leading):
    logits, values = network(torch.randn(*leading, 4))
    assert logits.shape == (*leading, 2)
    assert values.shape == leading


def test_actor_gives_what_forward_gives_first(network):
    observations = torch.randn(6, 3, 4)
    assert torch.equal(network.actor(observations), network(observations)[0])


def test_each_observation_is_judged_by_itself(network):
    observations = torch.randn(6, 3, 4)
    logits, values = network(observations)
    for t, column in [(0, 0), (5, 2)]:
        own_logits, own_value = network(observations[t, column])
        torch.testing.assert_close(logits[t, column], own_logits)
        torch.testing.assert_close(values[t, column], own_value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_observations_of_any_dtype_are_taken(network, dtype):
    observations = torch.tensor([[1, 2, 3, 4]])
    logits, values = network(observations.to(dtype))
    expected_logits, expected_values = network(observations.float())
    assert torch.equal(logits, expected_logits)
    assert torch.equal(values, expected_values)


def test_there_is_one_logit_for_each_action():
    for cls in (BookActorCritic, MLPActorCritic):
        logits, _ = cls(CARTPOLE[0], spaces.Discrete(7))(torch.zeros(3, 4))
        assert logits.shape == (3, 7)


def gradients_of(loss, module: nn.Module) -> list[bool]:
    """Says of each parameter whether the loss moves it."""
    gradients = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    return [gradient is not None and bool(gradient.any()) for gradient in gradients]


# MLPActorCritic


def test_orthogonal_weights_have_the_gain_of_their_place_and_no_bias():
    torch.manual_seed(0)
    network = MLPActorCritic(*CARTPOLE, hidden_sizes=(16, 8))
    gains = {network.actor_head: 0.01, network.critic_head: 1.0}
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == 6
    for layer in layers:
        weight, gain = layer.weight.detach(), gains.get(layer, math.sqrt(2))
        rows, columns = weight.shape
        product = weight @ weight.T if rows <= columns else weight.T @ weight  # of the shorter side
        torch.testing.assert_close(product, gain**2 * torch.eye(min(rows, columns)), rtol=1e-5, atol=1e-6)
        assert not layer.bias.any()


def test_a_fresh_policy_is_close_to_uniform():
    torch.manual_seed(0)
    probabilities = MLPActorCritic(*CARTPOLE).actor(torch.randn(100, 4)).softmax(-1)
    torch.testing.assert_close(probabilities, torch.full((100, 2), 0.5), rtol=0, atol=0.02)


def test_without_orthogonal_init_the_layers_are_torchs_own():
    torch.manual_seed(0)
    network = MLPActorCritic(*CARTPOLE, hidden_sizes=(16,), orthogonal_init=False)
    torch.manual_seed(0)
    expected = nn.Linear(4, 16)
    assert torch.equal(network.actor_trunk[0].weight, expected.weight)
    assert torch.equal(network.actor_trunk[0].bias, expected.bias)


@pytest.mark.parametrize("shared", [True, False])
def test_the_critic_trains_the_actors_trunk_only_where_they_share_it(shared):
    torch.manual_seed(0)
    network = MLPActorCritic(*CARTPOLE, hidden_sizes=(16, 8), activation="tanh", shared_trunk=shared)
    value_loss = network(torch.randn(5, 4))[1].square().sum()
    assert gradients_of(value_loss, network.actor_trunk) == [shared] * 4
    value_loss = network(torch.randn(5, 4))[1].square().sum()
    assert gradients_of(value_loss, network.critic_trunk) == [True] * 4


@pytest.mark.parametrize("shared", [True, False])
def test_the_actor_trains_the_critics_trunk_only_where_they_share_it(shared):
    torch.manual_seed(0)
    network = MLPActorCritic(*CARTPOLE, hidden_sizes=(16, 8), activation="tanh", shared_trunk=shared)
    policy_loss = network(torch.randn(5, 4))[0].square().sum()
    assert gradients_of(policy_loss, network.critic_trunk) == [shared] * 4


def test_hidden_sizes_and_activation_shape_the_trunk():
    trunk = MLPActorCritic(*CARTPOLE, hidden_sizes=(16, 8), activation="silu").actor_trunk
    assert [type(layer) for layer in trunk] == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU]
    assert [layer.weight.shape for layer in trunk if isinstance(layer, nn.Linear)] == [(16, 4), (8, 16)]


@pytest.mark.parametrize("leading", [(6, 3), (3,), ()])
@pytest.mark.parametrize("shape", [(2, 3, 5), ()])
def test_observations_of_more_axes_are_flattened_and_of_none_are_one_number(shape, leading):
    network = MLPActorCritic(spaces.Box(-1, 1, shape), spaces.Discrete(2), hidden_sizes=(8,))
    observations = torch.randn((*leading, *shape))
    logits, values = network(observations)
    assert logits.shape == (*leading, 2)
    assert values.shape == leading
    flat = observations.reshape(*leading, math.prod(shape))
    assert torch.equal(network.actor(observations), network.actor_head(network.actor_trunk(flat)))
    assert torch.equal(values, network.critic_head(network.critic_trunk(flat)).squeeze(-1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_sizes": ()}, r"hidden_sizes: got \[\]"),
        ({"hidden_sizes": (64, 0)}, r"hidden_sizes: got \[64, 0\]"),
        ({"hidden_sizes": (-1,)}, r"hidden_sizes: got \[-1\]"),
        ({"activation": "gelu"}, "activation: got 'gelu', must be one of relu, tanh"),
    ],
)
def test_an_impossible_trunk_raises_with_the_arguments_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLPActorCritic(*CARTPOLE, **arguments)


# BookActorCritic


def test_the_books_network_begins_with_biases_of_0_if_asked_to():
    for zero_biases in (False, True):
        network = BookActorCritic(*CARTPOLE, zero_biases=zero_biases)
        biases = [layer.bias for layer in network.children()]
        assert len(biases) == 5
        assert all((bias == 0).all() == zero_biases for bias in biases)


def test_the_books_network_sees_the_direction_of_an_observation_only():
    torch.manual_seed(0)
    network = BookActorCritic(*CARTPOLE)
    observations = torch.randn(6, 3, 4)
    logits, values = network(observations)
    scales = torch.rand(6, 3, 1) * 9 + 1  # each observation its own: normalised over the last axis, no other
    scaled_logits, scaled_values = network(observations * scales)
    torch.testing.assert_close(scaled_logits, logits)
    torch.testing.assert_close(scaled_values, values)


def test_the_books_network_is_the_books_arithmetic():
    torch.manual_seed(0)
    network = BookActorCritic(*CARTPOLE)
    observation = torch.tensor([3.0, 0.0, 4.0, 0.0])
    unit = torch.tensor([0.6, 0.0, 0.8, 0.0])
    hidden = (network.l1.weight @ unit + network.l1.bias).clamp(min=0)
    features = (network.l2.weight @ hidden + network.l2.bias).clamp(min=0)
    critic = (network.l3.weight @ features + network.l3.bias).clamp(min=0)
    logits, value = network(observation)
    torch.testing.assert_close(logits, network.actor_lin1.weight @ features + network.actor_lin1.bias)
    torch.testing.assert_close(value, torch.tanh(network.critic_lin1.weight @ critic + network.critic_lin1.bias)[0])


def test_the_books_critic_does_not_train_the_trunk_and_its_actor_does():
    torch.manual_seed(0)
    network = BookActorCritic(*CARTPOLE)
    trunk = nn.ModuleList([network.l1, network.l2])
    logits, values = network(torch.randn(50, 4))
    assert gradients_of(logits.square().sum(), trunk) == [True] * 4
    assert gradients_of(values.sum(), network.l3) == [True] * 2
    values = network(torch.randn(50, 4))[1]
    assert gradients_of(values.sum(), trunk) == [False] * 4


def test_the_books_values_stay_within_1():
    network = BookActorCritic(*CARTPOLE)
    for bias in (100.0, -100.0):
        nn.init.constant_(network.critic_lin1.bias, bias)
        values = network(torch.randn(50, 4))[1]
        torch.testing.assert_close(values, torch.full((50,), math.copysign(1.0, bias)))


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_the_books_network_takes_vectors_only(shape):
    with pytest.raises(ValueError, match=r"observation_space: got Box.*vectors only"):
        BookActorCritic(spaces.Box(-1, 1, shape), spaces.Discrete(2))
