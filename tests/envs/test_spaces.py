"""What spaces look like in memory, and which are supported."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from a3c.envs.spaces import (
    SUPPORTED,
    Spaces,
    action_layout,
    agree,
    are_supported,
    batch_shape,
    build_space,
    observation_layout,
    space_arguments,
)

DISCRETE = spaces.Discrete(3)
BOXES = [
    spaces.Box(-1, 1, (2,), np.float32),
    spaces.Box(0, 255, (3, 4, 5), np.uint8),
    spaces.Box(-np.inf, np.inf, (), np.float64),
    spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, 2], np.float32)),
    spaces.Box(0, 1, (2,), np.bool_),
]


@pytest.mark.parametrize("space", BOXES, ids=str)
def test_a_box_lies_in_memory_as_its_values_do(space):
    layout = observation_layout(space)
    value = torch.from_numpy(np.array(space.sample()))
    assert (layout.shape, layout.torch_dtype) == (value.shape, value.dtype)
    memory = dict(batch_shape(5, 2, Spaces(space, DISCRETE)).fields())
    assert memory["observations"] == ((6, 2, *value.shape), value.dtype)
    assert memory["actions"] == ((5, 2), torch.int64)


@pytest.mark.parametrize("space", [*BOXES, DISCRETE], ids=str)
def test_a_space_is_built_again_from_its_arguments(space):
    arguments = {
        key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in space_arguments(space).items()
    }
    assert build_space(type(space), arguments) == space


def test_only_bounds_that_a_finite_number_can_be_outside_of_are_bounds():
    low, high = observation_layout(BOXES[3]).bounds()
    assert low.tolist() == [-1, np.finfo(np.float32).min]
    assert high.tolist() == [1, 2]
    assert all(observation_layout(BOXES[k]).bounds() is None for k in (1, 2, 4))


def test_an_action_that_counts_not_lies_within_its_space():
    assert action_layout(DISCRETE).some(3).tolist() == [0, 0, 0]
    for space in BOXES:
        values = observation_layout(space).some(2)
        assert len(values) == 2
        assert all(space.contains(value) for value in values)
    assert observation_layout(spaces.Box(2, 3, (1,))).some(1).tolist() == [[2]]


class Odd(spaces.Box):
    """Whose values may mean something else."""


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (spaces.Dict(x=BOXES[0]), DISCRETE),
        (Odd(-1, 1), DISCRETE),
        (BOXES[0], spaces.Discrete(3, start=1)),
        (BOXES[0], BOXES[0]),
    ],
)
def test_another_kind_is_refused_with_those_that_are_supported(observation, action):
    assert not are_supported(Spaces(observation, action))
    with pytest.raises(ValueError, match=r"_space: got .*, must be one of: (Box|Discrete starting at 0)"):
        batch_shape(1, 1, Spaces(observation, action))
    assert SUPPORTED == "observations: Box; actions: Discrete starting at 0"


def test_a_policy_can_act_where_shape_dtype_and_actions_are_its_own():
    ours = Spaces(BOXES[0], DISCRETE)
    assert agree(ours, Spaces(spaces.Box(-9, 9, (2,), np.float32), DISCRETE))
    assert not agree(ours, Spaces(spaces.Box(-1, 1, (2,), np.float64), DISCRETE))
    assert not agree(ours, Spaces(spaces.Box(-1, 1, (3,), np.float32), DISCRETE))
    assert not agree(ours, Spaces(BOXES[0], spaces.Discrete(4)))
