"""Observations as a person gives them: what is cast, and what is refused."""

import numpy as np
import pytest
from gymnasium import spaces

from a3c.envs.layouts import observation_layout
from a3c.evaluation.given import read_observations

PARTS = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (2, 3), np.uint8),
        "where": spaces.Tuple((spaces.Discrete(4, start=2), spaces.Box(-1, 1, (2,), np.float64))),
        "lamps": spaces.MultiBinary(3),
        "gears": spaces.MultiDiscrete([3, 4]),
    }
)


def parts(lead=(), **others):
    return {
        "camera": np.full((*lead, 2, 3), 7, np.uint8),
        "where": (np.full(lead, 3), np.full((*lead, 2), 0.5)),
        "lamps": np.ones((*lead, 3), bool),
        "gears": np.ones((*lead, 2), int),
        **others,
    }


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
def test_parts_lie_in_memory_as_the_layout_has_them(lead):
    layout = observation_layout(PARTS)
    packed, found = read_observations(layout, parts(lead))
    assert found == lead
    assert packed.shape == (np.prod(lead, dtype=int), *layout.shape)
    unpacked = layout.unpack(packed)
    assert (unpacked["camera"] == 7).all()
    assert unpacked["camera"].shape == (len(packed), 2, 3)
    assert unpacked["where"][0].tolist() == [3] * len(packed)
    assert (unpacked["where"][1] == 0.5).all()
    assert (unpacked["lamps"] == 1).all()
    assert (unpacked["gears"] == 1).all()


def test_numbers_that_lose_nothing_are_cast():
    layout = observation_layout(spaces.Discrete(5))
    assert read_observations(layout, 3.0)[0].tolist() == [3]
    layout = observation_layout(spaces.Box(-1, 1, (2,)))
    assert read_observations(layout, [[0, 1], [0.1, 0.2]])[0].dtype == np.float32
    assert read_observations(observation_layout(PARTS), parts(camera=[[1, 2, 3], [4.0, 5, 6]]))[0].shape[0] == 1


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"camera": np.zeros((3, 2))}, r"observation\.camera: got shape \(3, 2\), must end in \(2, 3\)"),
        ({"camera": 1.5 * np.ones((2, 3))}, r"observation\.camera: got 1\.5, must be a number of uint8"),
        ({"camera": np.full((2, 3), -1)}, r"observation\.camera: got -1, must be a number of uint8"),
        ({"camera": [[1], [2, 3]]}, r"observation\.camera: got rows of several lengths, must end in shape \(2, 3\)"),
        ({"lamps": "on"}, r"observation\.lamps: got <U2, must be int8"),
        ({"lamps": None}, r"observation\.lamps: got object, must be int8"),
        ({"where": (3, [0, np.nan])}, r"observation\.where\.1: got nan, must be finite"),
        ({"where": (3,)}, r"observation\.where: got 1 parts, must be 2"),
        ({"where": {"0": 3}}, r"observation\.where: got dict, must be a tuple of its parts"),
        ({"where": (np.ones(4, int), [0, 1])}, r"observation\.where\.0: got shape \(4,\), must be \(\) beside obs.*a"),
        ({"more": 1}, r"observation: got camera, where, lamps, gears, more, must be camera, gears, lamps, where"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(others, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        read_observations(observation_layout(PARTS), parts(**others))


def test_an_array_is_no_dict_and_a_number_too_large_is_not_finite():
    with pytest.raises(ValueError, match=r"^observation: got ndarray, must be a dict of its parts$"):
        read_observations(observation_layout(PARTS), np.zeros(3))
    with pytest.raises(ValueError, match=r"^observation: got 1e\+300, must be finite$"):
        read_observations(observation_layout(spaces.Box(-1, 1, (1,))), [1e300])
