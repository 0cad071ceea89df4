"""Convolutional torsos: the order of an image's axes, its scale, and the arithmetic of the papers' networks."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from a3c import ConvActorCritic
from a3c.networks.torsos import TORSOS, A3CTorso, ImageFormat, ImpalaTorso, NatureTorso, SmallTorso


def byte_images(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def torso_for(name, space, channels=None):
    torch.manual_seed(0)
    torso = TORSOS[name](ImageFormat.of(space, channels))
    for parameter in torso.parameters():  # a fresh bias of 0 would hide a missing one
        if parameter.dim() == 1:
            nn.init.normal_(parameter)
    return torso


def random_bytes(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def assert_near(ours, theirs):
    """Asserts equality up to the rounding of sums in another order, which goes with the size of what is summed."""
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * theirs.detach().abs().max().item())


class Residual(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.block = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second)

    def forward(self, x):
        return x + self.block(x)


def reference(name, channels, height, width):
    """The network as its paper tells it, on contiguous floats [N, C, H, W]."""

    def conv3(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 3, padding=1)

    if name == "a3c":
        layers = [nn.Conv2d(channels, 16, 8, stride=4), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2), nn.ReLU()]
    elif name == "nature":
        layers = [nn.Conv2d(channels, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()]
        layers += [nn.Conv2d(64, 64, 3, stride=1), nn.ReLU()]
    elif name == "small":
        layers = [conv3(channels, 16), nn.ReLU(), conv3(16, 32), nn.ReLU()]
    else:
        layers = []
        for filters in (16, 32, 32):
            blocks = [Residual(conv3(filters, filters), conv3(filters, filters)) for _ in range(2)]
            layers += [conv3(channels, filters), nn.MaxPool2d(3, stride=2, padding=1), *blocks]
            channels = filters
        layers.append(nn.ReLU())
    flat = nn.Sequential(*layers, nn.Flatten())
    flat_size = flat(torch.zeros(1, layers[0].in_channels, height, width)).shape[1]
    features = {"a3c": 256, "nature": 512, "small": 128, "impala": 256}[name]
    return nn.Sequential(*flat, nn.Linear(flat_size, features), nn.ReLU())


def reference_of(torso, name):
    network = reference(name, torso.image.depth, torso.image.height, torso.image.width)
    theirs, ours = list(network.parameters()), list(torso.parameters())
    assert [parameter.shape for parameter in theirs] == [parameter.shape for parameter in ours]
    with torch.no_grad():
        for their, our in zip(theirs, ours, strict=True):
            their.copy_(our)
    return network


# Torsos


SIZES = [("a3c", 84, 84), ("a3c", 42, 42), ("a3c", 64, 48), ("a3c", 20, 20)]
SIZES += [("nature", 84, 84), ("nature", 42, 42), ("nature", 64, 48), ("nature", 36, 36)]
SIZES += [("impala", 84, 84), ("impala", 64, 48), ("impala", 10, 10), ("impala", 7, 7), ("impala", 3, 3)]
SIZES += [("small", 42, 42), ("small", 10, 10), ("small", 7, 7), ("small", 3, 3)]


@pytest.mark.parametrize(("name", "height", "width"), SIZES)
def test_a_torso_is_the_papers_network_on_contiguous_floats(name, height, width):
    torso = torso_for(name, byte_images(2, height, width), channels="first")
    images = random_bytes(3, 2, height, width)
    features = torso(images)
    assert features.shape == (3, torso.features)
    assert_near(features, reference_of(torso, name)(images.float() / 255))


@pytest.mark.parametrize("name", TORSOS)
@pytest.mark.parametrize(
    ("shape", "to_planes"),
    [
        ((4, 40, 44), lambda images: images),
        ((40, 44, 3), lambda images: images.permute(0, 3, 1, 2)),
        ((40, 44), lambda images: images[:, None]),
        ((2, 3, 40, 44), lambda images: torch.cat([images[:, 0], images[:, 1]], 1)),
        ((2, 40, 44, 3), lambda images: torch.cat([images[:, 0], images[:, 1]], 3).permute(0, 3, 1, 2)),
    ],
    ids=["first", "last", "grey", "stack_first", "stack_last"],
)
def test_images_of_any_order_give_and_teach_what_their_planes_do(name, shape, to_planes):
    torso = torso_for(name, byte_images(*shape))
    network, images = reference_of(torso, name), random_bytes(3, *shape)
    features, expected = torso(images), network(to_planes(images).float().contiguous() / 255)
    assert_near(features, expected)
    features.square().mean().backward()
    expected.square().mean().backward()
    for ours, theirs in zip(torso.parameters(), network.parameters(), strict=True):
        assert ours.grad.any()
        assert_near(ours.grad, theirs.grad)


def test_planes_of_images_with_channels_last_in_memory_are_channels_last():
    for shape in [(40, 44, 3), (4, 40, 44), (2, 40, 44, 3)]:
        planes = ImageFormat.of(byte_images(*shape)).planes(random_bytes(3, *shape))
        assert planes.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", TORSOS)
def test_each_image_is_judged_by_itself(name):
    torso, images = torso_for(name, byte_images(4, 40, 40)), random_bytes(7, 4, 40, 40)
    parts = torch.cat([torso(images[:1]), torso(images[1:3]), torso(images[3:])])
    assert_near(parts, torso(images))
    assert torso(images[:0]).shape == (0, torso.features)


def test_parameters_of_the_papers_networks_for_atari_are_those_counted_by_hand():
    image = ImageFormat.of(byte_images(4, 84, 84))
    # 84 → (84 − 8) / 4 + 1 = 20 → (20 − 4) / 2 + 1 = 9 → of Nature (9 − 3) / 1 + 1 = 7
    a3c = (4 * 8 * 8 * 16 + 16) + (16 * 4 * 4 * 32 + 32) + (9 * 9 * 32 * 256 + 256)
    nature = (4 * 8 * 8 * 32 + 32) + (32 * 4 * 4 * 64 + 64) + (64 * 3 * 3 * 64 + 64) + (7 * 7 * 64 * 512 + 512)
    for torso, count in [(A3CTorso(image), a3c), (NatureTorso(image), nature)]:
        assert sum(parameter.numel() for parameter in torso.parameters()) == count
    assert (a3c, nature) == (676_144, 1_684_128)


@pytest.mark.parametrize("name", TORSOS)
def test_orthogonal_weights_have_gain_root_2_and_no_bias(name):
    torch.manual_seed(0)
    for path, layer in TORSOS[name](ImageFormat.of(byte_images(4, 40, 40))).named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.detach().flatten(1)
            square = 0.25 if path.endswith("outer") else 2  # the last of a residual block
            product = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
            torch.testing.assert_close(product, square * torch.eye(len(product)), rtol=1e-4, atol=1e-5)
            assert not layer.bias.any()


@pytest.mark.parametrize(("torso", "smallest"), [(A3CTorso, 20), (NatureTorso, 36), (ImpalaTorso, 1), (SmallTorso, 1)])
def test_a_torso_takes_images_from_its_smallest_side_on(torso, smallest):
    assert torso.smallest_side() == smallest
    for shape in [(smallest, 50), (50, smallest)]:
        assert torso(ImageFormat.of(byte_images(*shape)))(random_bytes(2, *shape)).shape == (2, torso.features)


@pytest.mark.parametrize("side", [10, 7, 5, 19])
@pytest.mark.parametrize(("name", "smallest"), [("a3c", "20x20"), ("nature", "36x36")])
def test_too_small_an_image_is_refused_with_the_side_and_the_torso_that_would_do(name, smallest, side):
    for shape in [(side, 84, 3), (84, side, 3)]:
        with pytest.raises(
            ValueError, match=rf"^observation_space: got .* needs {smallest} or more; .* 'small'"
        ) as error:
            TORSOS[name](ImageFormat.of(byte_images(*shape)))
        assert f"{shape[0]}x{shape[1]}" in str(error.value)


# ImageFormat


@pytest.mark.parametrize(
    ("shape", "channels", "depth", "order"),
    [
        ((4, 84, 84), None, 4, (1, 2, 0)),  # Atari
        ((210, 160, 3), None, 3, (0, 1, 2)),
        ((10, 10, 7), None, 7, (0, 1, 2)),  # MinAtar
        ((7, 7, 3), None, 3, (0, 1, 2)),  # MiniGrid
        ((3, 5, 5), None, 3, (1, 2, 0)),
        ((10, 10, 10), "last", 10, (0, 1, 2)),
        ((10, 10, 10), "first", 10, (1, 2, 0)),
        ((4, 84, 84), "last", 84, (0, 1, 2)),  # what is said counts more than what seems
        ((84, 84), None, 1, (0, 1)),
        ((5, 64, 48, 3), None, 15, (1, 2, 0, 3)),
        ((5, 3, 64, 48), None, 15, (2, 3, 0, 1)),
        ((64, 48, 1), None, 1, (0, 1, 2)),
    ],
)
def test_the_smallest_axis_holds_the_channels_unless_told(shape, channels, depth, order):
    image = ImageFormat.of(byte_images(*shape), channels)
    assert (image.depth, image.order) == (depth, order)
    assert (image.height, image.width) == (shape[order[0]], shape[order[1]])


@pytest.mark.parametrize(
    ("low", "high", "dtype", "scale"),
    [
        (0, 255, np.uint8, 1 / 255),
        (0, 1, np.uint8, 1),
        (0, 1, np.bool_, 1),
        (-1, 1, np.float32, 1),
        (0, 255, np.float32, 1 / 255),
        (-5, 5, np.float64, 0.1),
        (0, np.inf, np.float32, 1),
        (-np.inf, np.inf, np.float32, 1),
        (np.finfo(np.float32).min, np.finfo(np.float32).max, np.float32, 1),
        (np.iinfo(np.int64).min, np.iinfo(np.int64).max, np.int64, 1),
        (7, 7, np.float32, 1),
    ],
)
def test_numbers_are_divided_by_the_width_of_bounds_beyond_1(low, high, dtype, scale):
    space = spaces.Box(low, high, (6, 6), dtype)
    torso = torso_for("small", space)
    assert torso.image.scale == pytest.approx(scale)
    images = torch.from_numpy(np.stack([np.zeros((6, 6), dtype), np.ones((6, 6), dtype)]))
    expected = reference_of(torso, "small")(images[:, None].float() * scale)
    assert_near(torso(images), expected)


@pytest.mark.parametrize("space", [byte_images(4), byte_images(), byte_images(2, 2, 3, 9, 9), spaces.Discrete(3)])
def test_what_is_no_image_is_refused(space):
    with pytest.raises(ValueError, match=r"^observation_space: got shape \(.*must be an image.*MLPActorCritic$"):
        ImageFormat.of(space)


@pytest.mark.parametrize("shape", [(10, 10, 10), (3, 84, 3), (84, 3, 84), (2, 4, 4, 5)])
def test_channels_that_may_be_on_either_end_must_be_said(shape):
    with pytest.raises(ValueError, match="channels: got None, must be first or last"):
        ImageFormat.of(byte_images(*shape))


def test_another_word_for_the_channels_place_is_refused():
    with pytest.raises(ValueError, match="channels: got 'middle', must be first, last or None"):
        ImageFormat.of(byte_images(4, 84, 84), "middle")


def test_a_scale_of_ones_own_stands_in_for_the_bounds():
    cells = torch.randint(0, 11, (5, 7, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    space = byte_images(7, 7, 3)
    torch.manual_seed(0)
    own = SmallTorso(ImageFormat.of(space, scale=0.1))
    floats = SmallTorso(ImageFormat.of(spaces.Box(-1, 1, (7, 7, 3), np.float32)))
    floats.load_state_dict(own.state_dict())
    assert_near(own(cells), floats(cells * 0.1))
    assert not torch.allclose(own(cells), torso_for("small", space)(cells))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match=rf"^image_scale: got {scale}, must be above 0 and finite, or None$"):
        ConvActorCritic(byte_images(7, 7, 3), spaces.Discrete(2), "small", image_scale=scale)
