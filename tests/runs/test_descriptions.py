"""Descriptions of objects: round trips, safe loading, and what cannot be described or built."""

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import make_network

import a3c
from a3c.envs.spec import EnvSpec
from a3c.learner.objective import Objective
from a3c.networks import ActorCritic, BookActorCritic, MLPActorCritic
from a3c.returns import (
    GAE,
    FullEpisode,
    GroupBaseline,
    ImportanceSampled,
    L2Normalised,
    NStep,
    PositiveOnly,
    ReturnEstimator,
    SlidingNStep,
    ValueRescaled,
    VTrace,
)
from a3c.runs.descriptions import build, describe, public_path

CARTPOLE = spaces.Box(-np.inf, np.inf, (4,)), spaces.Discrete(2)


class Forgetful:
    """Keeps its argument under another name."""

    def __init__(self, gain: float) -> None:
        self._gain = gain


def same(left, right) -> bool:
    """Compares two objects by class and by all that they keep."""
    if type(left) is not type(right):
        return False
    if not hasattr(left, "__dict__"):
        return left == right
    kept, other = vars(left), vars(right)
    return kept.keys() == other.keys() and all(same(kept[key], other[key]) for key in kept)


@pytest.mark.parametrize(
    "estimator",
    [
        FullEpisode(),
        NStep(7),
        NStep(7, end_at_episode=True),
        GAE(9, 0.25),
        VTrace(5, rho_clip=2.0, c_clip=0.5),
        ImportanceSampled(5, "none"),
        ValueRescaled(PositiveOnly(SlidingNStep(5, 2)), 0.01),
        GroupBaseline(),
        L2Normalised(NStep(3, end_at_episode=True)),
        L2Normalised(L2Normalised(GAE(4, 0.5))),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_come_back_with_their_arguments(estimator):
    rebuilt = build(describe(estimator), ReturnEstimator)
    assert rebuilt is not estimator
    assert same(rebuilt, estimator)


def test_a_description_is_the_class_path_and_the_arguments():
    assert describe(L2Normalised(GAE(9, 0.25))) == {
        "class_path": "a3c.L2Normalised",
        "init_args": {
            "estimator": {"class_path": "a3c.GAE", "init_args": {"n_steps": 9, "lambda_": 0.25}},
        },
    }


def test_what_a3c_exports_is_named_by_its_public_path_and_other_classes_by_their_module():
    exported = {name: value for name in a3c.__all__ if isinstance(value := getattr(a3c, name), type)}
    assert len(exported) > 20
    assert {name: public_path(value) for name, value in exported.items()} == {name: f"a3c.{name}" for name in exported}
    mine = type("NStep", (NStep,), {"__module__": "a3c.mine"})
    assert public_path(mine) == "a3c.mine.NStep"
    assert describe(EnvSpec("CartPole-v1"))["class_path"] == "a3c.EnvSpec"


def test_an_objective_comes_back_equal_but_for_its_estimators_identity():
    objective = Objective(VTrace(5), 0.9, 0.1, 0.01, 3.0, "huber", 2.0, "sum")
    rebuilt = build(describe(objective), object)
    assert type(rebuilt) is Objective
    assert same(rebuilt.returns, objective.returns)
    names = ("discount", "value_coefficient", "entropy_coefficient", "reward_scale")
    assert [getattr(rebuilt, name) for name in names] == [0.9, 0.1, 0.01, 3.0]
    assert (rebuilt.value_loss, rebuilt.huber_delta, rebuilt.reduction) == ("huber", 2.0, "sum")


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (4,)),
        spaces.Box(np.array([-1, -np.inf], np.float32), np.array([np.inf, 2.5], np.float32)),
        spaces.Box(-4.8, 4.8, (2, 3), np.float64),
        spaces.Box(0, 255, (4, 8, 8), np.uint8),
        spaces.Box(-1, 1, ()),
        spaces.Discrete(3),
        spaces.Discrete(3, start=-1),
    ],
    ids=str,
)
def test_spaces_come_back_equal(space):
    rebuilt = build(describe(space), object)
    assert rebuilt == space
    assert rebuilt.dtype == space.dtype
    assert rebuilt.shape == space.shape
    json.dumps(describe(space))  # numbers, strings, lists and dicts only


def test_infinite_bounds_come_back_infinite():
    space = build(describe(CARTPOLE[0]), object)
    assert np.isneginf(space.low).all()
    assert np.isposinf(space.high).all()
    assert not space.is_bounded()


@pytest.mark.parametrize(
    "network",
    [
        BookActorCritic(*CARTPOLE),
        MLPActorCritic(*CARTPOLE),
        MLPActorCritic(
            spaces.Box(0, 255, (2, 3), np.uint8),
            spaces.Discrete(5),
            hidden_sizes=(8, 16),
            activation="tanh",
            shared_trunk=True,
            orthogonal_init=False,
        ),
    ],
    ids=["book", "default_mlp", "unusual_mlp"],
)
def test_a_network_comes_back_from_a_safely_loaded_checkpoint(network, tmp_path):
    torch.save({"network": describe(network), "weights": network.state_dict()}, tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    rebuilt = build(checkpoint["network"], ActorCritic)
    assert type(rebuilt) is type(network)
    assert describe(rebuilt) == describe(network)
    assert rebuilt.observation_space == network.observation_space
    assert rebuilt.action_space == network.action_space
    rebuilt.load_state_dict(checkpoint["weights"])
    observations = torch.rand(3, *network.observation_space.shape)
    for given, expected in zip(rebuilt(observations), network(observations), strict=True):
        assert torch.equal(given, expected)


def test_an_estimator_survives_safe_loading(tmp_path):
    estimator = L2Normalised(GAE(9, 0.25))
    torch.save(describe(estimator), tmp_path / "estimator.pt")
    assert same(build(torch.load(tmp_path / "estimator.pt", weights_only=True), ReturnEstimator), estimator)


def test_plain_values_are_their_own_description():
    value = {"a": [1, 2.5, None, True], "b": {"c": "text"}}
    assert describe(value) == value
    assert build(value, object) == value
    assert describe((1, 2)) == [1, 2]
    assert describe(np.array([[1.5, 2.0]])) == [[1.5, 2.0]]


def test_objects_within_lists_and_mappings_are_described_and_built():
    rebuilt = build(describe({"candidates": [NStep(3), FullEpisode()]}), ReturnEstimator)
    assert [type(estimator) for estimator in rebuilt["candidates"]] == [NStep, FullEpisode]
    assert rebuilt["candidates"][0].n_steps == 3


def test_a_class_that_keeps_no_attribute_raises_with_its_name_and_the_arguments():
    with pytest.raises(TypeError, match="Forgetful keeps no attribute 'gain'"):
        describe(Forgetful(1.0))


@pytest.mark.parametrize("class_path", ["a3c.returns.NoSuchReturns", "no_such_package.Returns", "NoModule"])
def test_a_class_that_cannot_be_imported_raises_an_import_error_with_its_path(class_path):
    with pytest.raises(ImportError, match=f"{class_path} cannot be imported"):
        build({"class_path": class_path, "init_args": {}}, object, allow=["no_such_package", "NoModule"])


def test_nothing_but_the_expected_kind_is_called_however_deep(tmp_path):
    canary = tmp_path / "canary"
    description = describe(make_network())
    description["init_args"]["hidden_sizes"] = {
        "class_path": "subprocess.Popen",
        "init_args": {"args": ["touch", str(canary)]},
    }
    with pytest.raises(ImportError, match=r"got 'subprocess.Popen', must be a class of a3c, gymnasium.spaces or"):
        build(description, ActorCritic)
    with pytest.raises(TypeError, match=r"subprocess\.Popen is not a class derived from ActorCritic"):
        build(description, ActorCritic, allow="subprocess")
    assert not canary.exists()
