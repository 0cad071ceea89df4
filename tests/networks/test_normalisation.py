"""Running moments, observations that are normalised by them, and PopArt."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers.utils import RunningMeanStd
from helpers import make_network
from torch import nn

from a3c.envs.layouts import observation_layout
from a3c.networks import ActorCritic, BookActorCritic, ConvActorCritic, MLPActorCritic
from a3c.networks.normalisation import Normalisation, PopArt, RunningMoments

PARTS = spaces.Dict(
    {
        "action_mask": spaces.Box(0, 1, (2,), np.int8),
        "image": spaces.Box(0, 255, (2, 2), np.uint8),
        "pair": spaces.Tuple((spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Discrete(5))),
        "speed": spaces.Box(-np.inf, np.inf, (), np.float32),
    }
)


def filled(moments, mean, variance):
    moments.mean.copy_(torch.tensor(mean)), moments.variance.copy_(torch.tensor(variance))
    return moments


def packed(space, rows, seed=0):
    """Gives rows of a space as a batch holds them."""
    space.seed(seed)
    layout = observation_layout(space)
    columns = [space.sample() for _ in range(rows)]

    def stacked(given, values):
        if isinstance(given, spaces.Dict):
            return {key: stacked(part, [value[key] for value in values]) for key, part in given.spaces.items()}
        if isinstance(given, spaces.Tuple):
            parts = enumerate(given.spaces)
            return tuple(stacked(part, [value[place] for value in values]) for place, part in parts)
        return np.stack(values)

    return torch.from_numpy(layout.pack(stacked(space, columns)))


# Running moments


def test_moments_of_batches_are_those_of_gymnasium_and_of_all_numbers_together():
    moments, theirs, generator = RunningMoments((3,)), RunningMeanStd(shape=(3,)), np.random.default_rng(0)
    batches = [generator.normal(5, 2, (size, 3)) for size in (7, 1, 40, 2)]
    for batch in batches:
        moments.update(torch.from_numpy(batch)), theirs.update(batch)
    for ours, name in ((moments.mean, "mean"), (moments.variance, "var"), (moments.count, "count")):
        np.testing.assert_allclose(ours.numpy(), getattr(theirs, name), rtol=1e-12)
    together = np.concatenate(batches)
    np.testing.assert_allclose(moments.mean.numpy(), together.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance.numpy(), together.var(0), rtol=1e-3)


def test_no_numbers_change_nothing():
    moments = RunningMoments((2,))
    before = {name: buffer.clone() for name, buffer in moments.named_buffers()}
    moments.update(torch.empty(0, 2))
    assert all(torch.equal(before[name], buffer) for name, buffer in moments.named_buffers())


def test_a_number_is_normalised_by_its_own_mean_and_deviation():
    moments = filled(RunningMoments((2,)), [2.0, -1.0], [4.0, 0.25])
    # (6 − 2) / 2 and (−2 + 1) / ½
    torch.testing.assert_close(moments(torch.tensor([[6.0, -2.0]])), torch.tensor([[2.0, -2.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_numbers_keep_their_dtype(dtype):
    assert RunningMoments((2,))(torch.ones(4, 2, dtype=dtype)).dtype == dtype


def test_small_differences_of_large_numbers_are_seen_in_64_bits():
    moments = filled(RunningMoments(()), 1e9, 1.0)
    numbers = 1e9 + torch.linspace(-1, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(moments(numbers), numbers - 1e9)
    moments.count.fill_(1.0)
    moments.update(numbers)
    # Of 102 numbers: Σ (k/50)² over k = −50 … 50 is 34.34, and the one before has a variance of 1.
    assert moments.variance.item() == pytest.approx((34.34 + 1) / 102, rel=1e-5)


# Observations


def test_numbers_are_normalised_wherever_they_are_and_all_else_is_left():
    network = _Recording(PARTS, spaces.Discrete(2))
    observations = packed(PARTS, 6)
    plain, mask = network.inputs(observations)
    Normalisation(normalise_observations=True).attach(network)
    image, pair, speed = network.normaliser.moments
    filled(image, 100.0, 625.0), filled(pair, [1.0, 2.0], [4.0, 16.0]), filled(speed, 3.0, 9.0)
    inputs, same_mask = network.inputs(observations)
    torch.testing.assert_close(inputs["speed"], (plain["speed"] - 3) / 3)
    torch.testing.assert_close(inputs["pair"][0], (plain["pair"][0] - torch.tensor([1.0, 2.0])) / torch.tensor([2, 4]))
    assert torch.equal(inputs["pair"][1], plain["pair"][1])
    torch.testing.assert_close(inputs["image"], (plain["image"].float() - 100) / 25)
    assert torch.equal(mask, same_mask)
    assert inputs["pair"][0].dtype == torch.float64


def test_statistics_of_parts_are_those_of_what_was_taken_in():
    network, observations = _Recording(PARTS, spaces.Discrete(2)), packed(PARTS, 50)
    plain, _ = network.inputs(observations)
    Normalisation(normalise_observations=True).attach(network)
    network.take_in(observations[:20], torch.zeros(20)), network.take_in(observations[20:], torch.zeros(30))
    image, pair, speed = network.normaliser.moments
    np.testing.assert_allclose(image.mean, plain["image"].numpy().mean(0), rtol=1e-4)
    np.testing.assert_allclose(image.variance, plain["image"].numpy().var(0), rtol=1e-3)
    np.testing.assert_allclose(speed.mean, plain["speed"].numpy().mean(), rtol=1e-4)
    np.testing.assert_allclose(pair.mean, plain["pair"][0].numpy().mean(0), rtol=1e-4)
    np.testing.assert_allclose(pair.variance, plain["pair"][0].numpy().var(0), rtol=1e-3)


class _Recording(ActorCritic):
    """A network of a user's own, that keeps what it is shown."""

    def forward(self, inputs):
        self.shown = inputs
        first = inputs["speed"] if isinstance(inputs, dict) else inputs[..., 0]
        return torch.zeros(*first.shape, self.parameter_count), torch.zeros_like(first)


def test_a_network_of_ones_own_is_shown_normalised_inputs_in_learning_and_acting():
    network = _Recording(spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Discrete(3))
    Normalisation(normalise_observations=True, clip_observations=1.5).attach(network)
    filled(network.normaliser.moments[0], [2.0, 0.0], [4.0, 1.0])
    observations = torch.tensor([[[6.0, 1.0]], [[3.0, -9.0]]])  # 2 and ½, of which the first is clipped
    network.judge(observations, None, None)
    torch.testing.assert_close(network.shown, torch.tensor([[[1.5, 1.0]], [[0.5, -1.5]]]))
    assert observations[0, 0, 0] == 6  # the batch's own are left


def test_a_network_that_has_statistics_keeps_them_and_must_go_on_with_them():
    network = make_network()
    Normalisation(normalise_observations=True, popart=True).attach(network)
    network.take_in(torch.ones(4, 2), torch.ones(4))
    normaliser, head = network.normaliser, network.critic_head
    Normalisation(True, 3.0, True, 0.5).attach(network)
    assert (network.normaliser, network.critic_head) == (normaliser, head)
    assert (normaliser.clip, head.rate) == (3, 0.5)
    with pytest.raises(ValueError, match="normalise_observations: got false, must be true"):
        Normalisation(popart=True).attach(network)
    with pytest.raises(ValueError, match="popart: got false, must be true"):
        Normalisation(normalise_observations=True).attach(network)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_observations": 5.0}, "clip_observations: got 5.0, must be null without normalise_observations"),
        ({"normalise_observations": True, "clip_observations": 0.0}, "clip_observations: got 0.0, must be above 0"),
        ({"popart_beta": 0.0}, "popart_beta: got 0.0, must be above 0 and at most 1"),
        ({"popart_beta": 1.5}, "popart_beta: got 1.5, must be above 0 and at most 1"),
    ],
)
def test_values_outside_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normalisation(**arguments)


@pytest.mark.parametrize("shape", [(7, 7, 3), (2, 2)])
def test_pixels_that_are_normalised_are_not_scaled_once_more(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    make = ConvActorCritic if len(shape) == 3 else MLPActorCritic
    arguments = {"torso": "small"} if len(shape) == 3 else {"hidden_sizes": (8,)}
    torch.manual_seed(0)
    network = make(space, spaces.Discrete(2), **arguments)
    of_floats = make(spaces.Box(-np.inf, np.inf, shape, np.float32), spaces.Discrete(2), **arguments)
    of_floats.load_state_dict(network.state_dict())
    Normalisation(normalise_observations=True).attach(network)
    filled(network.normaliser.moments[0], 100.0, 625.0)
    pixels = torch.randint(0, 256, (6, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    parameters, values = network(network.inputs(pixels)[0])
    expected = of_floats((pixels.float() - 100) / 25)
    torch.testing.assert_close((parameters, values), expected)


def test_observations_without_numbers_stay_as_they_are_and_that_is_said(caplog):
    network = MLPActorCritic(spaces.Discrete(4), spaces.Discrete(2))
    Normalisation(normalise_observations=True, clip_observations=5.0).attach(network)
    assert network.normaliser is None
    assert not network.keeps_statistics
    assert "normalise_observations: no part of Discrete(4) is a Box of numbers, so nothing is normalised" in caplog.text


# PopArt


def test_popart_leaves_what_the_network_says_and_learns_in_the_targets_units():
    torch.manual_seed(0)
    network = make_network()
    observations, parameters = torch.randn(20, 3, 2), list(network.parameters())
    before = network(observations)[1]
    Normalisation(popart=True, popart_beta=0.1).attach(network)
    assert all(ours is theirs for ours, theirs in zip(network.parameters(), parameters, strict=True))
    torch.testing.assert_close(network(observations)[1], before, rtol=0, atol=0)
    for scale in (1.0, 10.0, 0.1):
        network.take_in(torch.zeros(50, 2), scale * (torch.randn(50) + 3))
        torch.testing.assert_close(network(observations)[1], before, rtol=1e-5, atol=1e-5)
    network.take_in(torch.zeros(50, 2), 10_000 * torch.randn(50))
    assert network.value_unit > 1000
    torch.testing.assert_close(network(observations)[1], before, rtol=0, atol=1e-6 * network.value_unit.item())


def test_the_moving_averages_of_popart_are_the_hand_computed_ones():
    head = PopArt(nn.Linear(1, 1), rate=0.5)
    head.update(torch.tensor([1.0, 3.0]))
    # The first step is whole: μ = 2, ν = (1 + 9) / 2 = 5, σ² = 5 − 4 = 1
    assert (head.mean.item(), head.variance.item()) == (2, 1)
    head.update(torch.tensor([8.0, 8.0]))
    # The second is ½ / (1 − ¼) = ⅔: μ = ⅓·2 + ⅔·8 = 6, ν = ⅓·5 + ⅔·64 = 133/3, σ² = 133/3 − 36 = 25/3
    assert head.mean.item() == pytest.approx(6)
    assert head.variance.item() == pytest.approx(25 / 3)
    assert head.std.item() == pytest.approx((25 / 3) ** 0.5)
    head.update(torch.empty(0))
    assert head.count == 2


def test_equal_targets_leave_a_unit_to_divide_by():
    head = PopArt(nn.Linear(2, 1), rate=0.1)
    before = head(torch.ones(2))
    head.update(torch.zeros(5))
    assert head.std.item() == pytest.approx(1e-4)
    torch.testing.assert_close(head(torch.ones(2)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", [nn.Linear(8, 2), nn.Linear(8, 1, bias=False), nn.Identity()])
def test_popart_refuses_a_network_without_a_head_that_it_could_rescale(head):
    network = make_network()
    network.critic_head = head
    with pytest.raises(ValueError, match="popart: got true, must be false: MLPActorCritic has no critic_head"):
        Normalisation(popart=True).attach(network)
    book = BookActorCritic(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    with pytest.raises(ValueError, match="popart: got true, must be false: BookActorCritic has no critic_head"):
        Normalisation(popart=True).attach(book)
