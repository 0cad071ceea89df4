"""The network that is chosen by an environment's spaces."""

import numpy as np
import pytest
from gymnasium import spaces

from a3c import ConvActorCritic, FittingActorCritic, MLPActorCritic

ACTIONS = spaces.Discrete(3)
VECTOR = spaces.Box(-1, 1, (4,))
SCREEN = spaces.Box(0, 255, (4, 84, 84), np.uint8)
GRID = spaces.Box(0, 10, (7, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("space", "kind", "torso"),
    [
        (VECTOR, MLPActorCritic, None),
        (spaces.Discrete(9), MLPActorCritic, None),
        (spaces.Dict({"a": VECTOR, "b": spaces.MultiBinary(3)}), MLPActorCritic, None),
        (SCREEN, ConvActorCritic, "a3c"),
        (spaces.Box(0, 1, (20, 20)), ConvActorCritic, "a3c"),
        (spaces.Box(0, 1, (19, 40)), ConvActorCritic, "small"),
        (GRID, ConvActorCritic, "small"),
        (spaces.Dict({"image": GRID, "direction": spaces.Discrete(4)}), ConvActorCritic, "small"),
        (spaces.Tuple((VECTOR, spaces.Dict({"image": SCREEN}))), ConvActorCritic, "a3c"),
    ],
    ids=str,
)
def test_images_take_convolutions_that_fit_them_and_all_else_takes_layers(space, kind, torso):
    network = FittingActorCritic(space, ACTIONS)
    assert type(network) is kind
    assert getattr(network, "torso", None) == torso


@pytest.mark.parametrize("space", [VECTOR, GRID], ids=str)
def test_what_is_asked_for_is_handed_on(space):
    actions = spaces.Box(-2, 2, (1,))
    network = FittingActorCritic(space, actions, "gru", memory_size=7, squash=True, initial_std=0.25)
    assert (network.memory, network.memory_size, network.squash, network.initial_std) == ("gru", 7, True, 0.25)
    assert network.state_shape == (7,)
    with pytest.raises(ValueError, match=r"^memory: got 'elman', must be one of"):
        FittingActorCritic(space, actions, "elman")
