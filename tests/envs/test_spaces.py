"""What spaces look like in memory, and which are supported."""

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from a3c.envs.layouts import SUPPORTED, action_layout, observation_layout
from a3c.envs.masks import action_choices
from a3c.envs.spaces import Spaces, agree, are_supported, batch_shape, build_space, space_arguments
from a3c.networks import ActorCritic
from a3c.runs.descriptions import build, describe

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
    ("observation", "action", "name"),
    [
        (Odd(-1, 1), DISCRETE, "observation_space"),
        (spaces.Text(3), DISCRETE, "observation_space"),
        (spaces.Dict(x=spaces.Sequence(BOXES[0])), DISCRETE, "observation_space"),
        (spaces.Dict({}), DISCRETE, "observation_space"),
        (spaces.Dict({1: BOXES[0]}), DISCRETE, "observation_space"),
        (spaces.Dict({"": BOXES[0]}), DISCRETE, "observation_space"),
        (BOXES[0], spaces.Box(0, 255, (2,), np.uint8), "action_space"),
        (BOXES[0], spaces.Box(np.array([1.0]), np.array([1.0])), "action_space"),
        (BOXES[0], spaces.Dict(x=BOXES[0], y=spaces.Text(3)), "action_space"),
    ],
    ids=str,
)
def test_another_kind_is_refused_in_one_line_with_those_that_are_supported(observation, action, name):
    assert not are_supported(Spaces(observation, action))
    with pytest.raises(ValueError, match=rf"^{name}: got .*, must be one of: .*Discrete, MultiDiscrete, .*$"):
        batch_shape(1, 1, Spaces(observation, action))
    assert all(word in SUPPORTED for word in ("Box", "MultiBinary", "Dict", "Tuple"))


def test_a_box_whose_bound_is_no_number_is_refused():
    space = spaces.Box(-1, 1, (2,))
    space.low[1] = np.nan
    with pytest.raises(ValueError, match=r"observation_space: got .*, must be one of: Box without NaN"):
        observation_layout(space)
    with pytest.raises(ValueError, match=r"action_space: got .*"):
        action_layout(space)


NESTED = spaces.Dict(
    camera=spaces.Box(0, 255, (3, 4, 4), np.uint8),
    joints=spaces.Box(-1, 1, (3,), np.float64),
    on=spaces.Box(0, 1, (2,), np.bool_),
    rest=spaces.Dict(gear=spaces.Discrete(3, start=2), pair=spaces.Tuple((spaces.MultiBinary(3), BOXES[2]))),
)


def test_the_parts_of_a_record_are_views_in_their_own_dtypes():
    layout = observation_layout(NESTED)
    values = batch_space(
        NESTED,
        5,
    ).sample()
    packed = layout.pack(values)
    assert (packed.shape, packed.dtype) == ((5, *layout.shape), np.uint8)
    for memory in (packed, torch.from_numpy(packed).unsqueeze(0)):  # arrays and tensors, with any axes in front
        parts = layout.unpack(memory)
        for part, own in (
            (parts["camera"], values["camera"]),
            (parts["joints"], values["joints"]),
            (parts["on"], values["on"]),
            (parts["rest"]["gear"], values["rest"]["gear"]),
            (parts["rest"]["pair"][0], values["rest"]["pair"][0]),
            (parts["rest"]["pair"][1], values["rest"]["pair"][1]),
        ):
            assert str(part.dtype).removeprefix("torch.") == own.dtype.name
            assert np.array_equal(np.asarray(part).reshape(own.shape), own)
    layout.unpack(torch.from_numpy(packed))["rest"]["gear"][3] = 4  # a view: what is written lands in the record
    assert layout.unpack(packed)["rest"]["gear"][3] == 4


def test_a_record_names_its_arrays_and_begins_each_where_it_can_be_viewed():
    leaves = list(observation_layout(NESTED).leaves())
    assert [leaf.path for leaf in leaves] == ["camera", "joints", "on", "rest.gear", "rest.pair.0", "rest.pair.1"]
    assert all(leaf.offset % 8 == 0 for leaf in leaves)
    assert observation_layout(NESTED).shape == (48 + 24 + 8 + 8 + 8 + 8,)


@pytest.mark.parametrize(
    "space",
    [
        NESTED,
        spaces.Discrete(4, start=-1),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [2, 3]])),
        spaces.MultiDiscrete([2, 3], np.int32),
        spaces.MultiBinary((2, 3)),
        spaces.MultiBinary(4),
        spaces.Tuple((DISCRETE, spaces.Dict(x=BOXES[0]))),
    ],
    ids=str,
)
def test_a_space_of_any_kind_is_described_by_plain_values_and_built_again(space):
    described = json.loads(json.dumps(describe(space)))
    assert build(described, ActorCritic) == space


@pytest.mark.parametrize("layout", [observation_layout, action_layout])
@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(3, start=2), spaces.MultiDiscrete([2, 3], start=[4, 5]), spaces.Tuple((BOXES[0], DISCRETE))],
)
def test_actions_that_count_not_are_as_environments_take_them(space, layout):
    some = layout(space).some(2)
    batched = batch_space(space, 2)
    assert batched.contains(some)


def test_choices_that_can_be_forbidden_are_counted_part_by_part():
    assert action_choices(DISCRETE) == [3]
    assert action_choices(spaces.MultiDiscrete([2, 4])) == [2, 4]
    assert action_choices(BOXES[0]) == []
    assert action_choices(spaces.Dict(a=BOXES[0], b=spaces.Tuple((DISCRETE, spaces.MultiDiscrete([2]))))) == [3, 2]


def test_a_policy_can_act_where_shape_dtype_and_actions_are_its_own():
    ours = Spaces(BOXES[0], DISCRETE)
    assert agree(ours, Spaces(spaces.Box(-9, 9, (2,), np.float32), DISCRETE))
    assert not agree(ours, Spaces(spaces.Box(-1, 1, (2,), np.float64), DISCRETE))
    assert not agree(ours, Spaces(spaces.Box(-1, 1, (3,), np.float32), DISCRETE))
    assert not agree(ours, Spaces(BOXES[0], spaces.Discrete(4)))
    nested = Spaces(NESTED, DISCRETE)
    assert agree(nested, nested)
    assert not agree(nested, Spaces(spaces.Dict(NESTED.spaces | {"on": spaces.Box(0, 1, (2,), np.int8)}), DISCRETE))
    renamed = {("eye" if key == "camera" else key): part for key, part in NESTED.spaces.items()}
    assert not agree(nested, Spaces(spaces.Dict(renamed), DISCRETE))
