import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from a3c.envs.checks import EnvCheck
from a3c.envs.single import EnvironmentFaultError


class Vector(gymnasium.vector.VectorEnv):
    """Only the spaces of a vector environment."""

    def __init__(self, space, num_envs=2):
        self.num_envs = num_envs
        self.single_observation_space = space


BOUNDED = spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, 2], np.float32))
REWARDS = np.zeros((3, 2), np.float32)


def make_check(space=BOUNDED, **kwargs):
    return EnvCheck(Vector(space), **kwargs)


def observations():
    return np.zeros((4, 2, 2), np.float32)


def test_what_the_space_says_passes():
    check = make_check()
    check.shapes(np.ones((2, 2), np.float32), np.zeros(2))
    values = observations()
    values[:] = (-1, 2)  # on the bounds
    assert check.values(values, REWARDS) is None


@pytest.mark.parametrize(
    ("observation", "got"),
    [
        (np.zeros((2,), np.float32), r"float32 \(2,\)"),  # would be broadcast
        (np.zeros((2, 1), np.float32), r"float32 \(2, 1\)"),
        (np.zeros((2, 2, 1), np.float32), r"float32 \(2, 2, 1\)"),
        (np.zeros((2, 2), np.complex64), r"complex64 \(2, 2\)"),  # would lose its meaning
        (np.full((2, 2), "1"), r"<U1 \(2, 2\)"),
    ],
)
def test_another_shape_or_dtype_is_refused(observation, got):
    with pytest.raises(EnvironmentFaultError, match=rf"observations: got {got}, must be float32 \(2, 2\)"):
        make_check().shapes(observation, np.zeros(2))


@pytest.mark.parametrize("reward", [np.zeros(1), np.zeros((2, 1)), np.float32(0)])
def test_rewards_of_another_shape_are_refused(reward):
    with pytest.raises(EnvironmentFaultError, match=r"rewards: got shape .* must be \(2,\)"):
        make_check().shapes(np.zeros((2, 2), np.float32), reward)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ((2, 1, 0), -1.5, r"environment 1 gave -1\.5 for number 0 in step 2 .* at least -1"),
        ((0, 0, 0), 1.5, r"environment 0 gave 1\.5 for number 0 in step 0 .* at most 1"),
        ((3, 0, 1), 2.5, r"environment 0 gave 2\.5 for number 1 in step 3 .* at most 2"),
    ],
)
def test_an_observation_outside_its_space_is_refused_with_its_place(place, value, words):
    values = observations()
    values[place] = value
    with pytest.raises(EnvironmentFaultError, match=words):
        make_check().values(values, REWARDS)
    assert make_check(check_bounds=False).values(values, REWARDS) is None


def test_where_there_is_no_bound_everything_is_inside():
    values = observations()
    values[1, 1, 1] = -1e30  # the square of it overflows
    assert make_check().values(values, REWARDS) is None
    assert make_check(check_bounds=False).values(values, REWARDS) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_matter_of_bounds(value):
    values = observations()
    values[1, 1, 0] = value
    values[2, 1, 0] = 5
    assert make_check().values(values, REWARDS) is not None  # described, not refused


def test_infinity_is_found_where_there_is_no_bound():
    values = observations()
    values[1, 1, 1] = -np.inf
    assert make_check().values(values, REWARDS).startswith("observations: environment 1 gave -inf in step 1 ")


def test_a_whole_number_is_bounded_by_its_space_not_by_its_dtype():
    values = np.zeros((4, 2, 2), np.uint8)
    make_check(spaces.Box(0, 255, (2,), np.uint8)).values(values + 255, REWARDS)
    small = make_check(spaces.Box(0, 9, (2,), np.uint8))
    small.values(values + 9, REWARDS)
    with pytest.raises(EnvironmentFaultError, match="at most 9"):
        small.values(values + 10, REWARDS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["observations", "rewards"])
def test_a_number_that_is_not_finite_is_named(field, value):
    values, rewards = observations(), REWARDS.copy()
    {"observations": values, "rewards": rewards}[field][1, 1] = value
    words = make_check().values(values, rewards)
    assert words == f"{field}: environment 1 gave {value} in step 1 of the fragment, must be finite"
