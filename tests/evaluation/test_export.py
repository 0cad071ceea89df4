"""Exported policies: what onnxruntime makes of them is what the agent does."""

import numpy as np
import pytest
from gymnasium import spaces
from helpers import lively

from a3c import Agent, ConvActorCritic, MLPActorCritic
from a3c.envs.spec import EnvSpec
from a3c.evaluation.export import ExportError, export_policy

VECTOR = spaces.Box(-1, 1, (3,))
PARTS = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (8, 8, 3), np.uint8),
        "body": spaces.Tuple((spaces.Discrete(4, start=2), spaces.Box(-1, 1, (2,), np.float64))),
        "gears": spaces.MultiDiscrete([2, 3], start=[1, 0]),
        "lamps": spaces.MultiBinary((2, 2)),
    }
)
MASKED = spaces.Dict({"x": VECTOR, "action_mask": spaces.MultiBinary(4)})
MASKED_RAGGED = spaces.Dict({"x": VECTOR, "action_mask": spaces.Box(0, 1, (8,), np.int8)})
HALF_OPEN = spaces.Box(np.array([-1, -np.inf, 0.5]), np.array([3, 2, np.inf]), dtype=np.float64)
NESTED = spaces.Dict(
    b=spaces.Tuple((spaces.Discrete(4, start=1), spaces.Box(-2, 5, (2,), np.float16))),
    gears=spaces.MultiDiscrete([2, 3, 2], np.int32, start=[0, -3, 1]),
    lamps=spaces.MultiBinary((2, 2)),
)
CASES = {
    "vector and Discrete": (MLPActorCritic, VECTOR, spaces.Discrete(4, start=-2), {}),
    "MLP of parts, nested actions": (MLPActorCritic, PARTS, NESTED, {"squash": True}),
    "image, clipped": (ConvActorCritic, PARTS["camera"], HALF_OPEN, {"torso": "impala"}),
    "image among parts, GRU": (ConvActorCritic, PARTS, spaces.Discrete(5), {"torso": "small", "memory": "gru"}),
    "LSTM, clipped often": (MLPActorCritic, VECTOR, spaces.Box(-0.1, 0.1, (2,)), {"memory": "lstm", "free_std": False}),
    "squashed": (
        MLPActorCritic,
        VECTOR,
        spaces.Tuple((HALF_OPEN, spaces.Box(-3, 1, (), np.float64))),
        {"squash": True},
    ),
    "masked": (MLPActorCritic, MASKED, spaces.Discrete(4, start=1), {}),
    "masked choices, GRU": (
        MLPActorCritic,
        MASKED_RAGGED,
        spaces.MultiDiscrete([3, 5], start=[1, 0]),
        {"memory": "gru"},
    ),
}


def samples(space, number):
    """Several observations as one, part by part; no mask forbids everything."""
    if isinstance(space, spaces.Dict):
        found = {key: samples(part, number) for key, part in space.items()}
        if "action_mask" in found:
            found["action_mask"][:, [0, -1]] = 1
        return found
    if isinstance(space, spaces.Tuple):
        return tuple(samples(part, number) for part in space)
    return np.stack([np.asarray(space.sample()) for _ in range(number)])


def flat(value, path=()):
    """Parts of a value by their paths."""
    if isinstance(value, dict):
        return {name: part for key, own in value.items() for name, part in flat(own, (*path, key)).items()}
    if isinstance(value, tuple):
        return {name: part for key, own in enumerate(value) for name, part in flat(own, (*path, str(key))).items()}
    return {".".join(path): value}


def exported(agent, path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    agent.export(path)
    return runtime.InferenceSession(path)


@pytest.mark.parametrize(("kind", "seen", "acted", "arguments"), CASES.values(), ids=CASES)
def test_an_exported_policy_acts_as_the_agent_does(tmp_path, kind, seen, acted, arguments):
    network = lively(kind(seen, acted, **arguments))
    agent = Agent(network, EnvSpec("unused"))
    session = exported(agent, tmp_path / "policy.onnx")
    seen.seed(0)
    columns, state = 5, network.initial_state(5)
    outputs = [output.name for output in session.get_outputs()]
    varied = []
    for _ in range(4):
        observations = samples(seen, columns)
        fed = {path or "observation": part for path, part in flat(observations).items()}
        if state is not None:
            fed["state"] = np.asarray(state)
        given = dict(zip(outputs, session.run(None, fed), strict=True))
        state = given.pop("next_state", None)
        assert given.pop("action_parameters").shape == (columns, network.parameter_count)
        expected = {path or "action": part for path, part in flat(agent.act(observations)).items()}
        assert expected.keys() == {name.removeprefix("action.") for name in given}
        for name, part in given.items():
            own = expected[name.removeprefix("action.")]
            assert part.dtype == own.dtype
            np.testing.assert_allclose(part, own, rtol=1e-3 if own.dtype == np.float16 else 1e-5, atol=1e-5)
            varied.append(len(np.unique(part)) > 1)
    assert any(varied)


def test_inputs_have_the_names_shapes_and_dtypes_of_the_space_and_a_batch_of_any_size(tmp_path):
    network = MLPActorCritic(PARTS, NESTED, memory="gru", memory_size=7)
    session = exported(Agent(network, EnvSpec("unused")), tmp_path / "policy.onnx")
    assert [(each.name, each.shape, each.type) for each in session.get_inputs()] == [
        ("body.0", ["batch"], "tensor(int64)"),
        ("body.1", ["batch", 2], "tensor(double)"),
        ("camera", ["batch", 8, 8, 3], "tensor(uint8)"),
        ("gears", ["batch", 2], "tensor(int64)"),
        ("lamps", ["batch", 2, 2], "tensor(int8)"),
        ("state", ["batch", 7], "tensor(float)"),
    ]
    names = [each.name for each in session.get_outputs()]
    assert names == ["b.0", "b.1", "action.gears", "action.lamps", "action_parameters", "next_state"]
    fed = flat(samples(PARTS, 1)) | {"state": np.zeros((1, 7), np.float32)}
    assert session.run(None, fed)[0].shape == (1,)


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("a3c.evaluation.export.find_spec", lambda name: None)
    network = MLPActorCritic(VECTOR, spaces.Discrete(2))
    with pytest.raises(
        ExportError, match=r"^export: onnx and onnxscript must be installed: pip install 'a3c\[onnx\]'$"
    ):
        export_policy(network, tmp_path / "policy.onnx")


class Counting(MLPActorCritic):
    def actor(self, inputs):
        return super().actor(inputs).reshape(len(inputs), -1)


class Looking(MLPActorCritic):
    def actor(self, inputs):
        return super().actor(inputs if inputs.sum() > 0 else -inputs)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Counting, r"it fixes the number of rows of observation, as len\(tensor\) does; shape\[0\] does not"),
        (Looking, ".+"),
    ],
)
def test_a_network_that_is_no_graph_is_refused_in_one_line_and_leaves_no_file(tmp_path, kind, words):
    pytest.importorskip("onnxscript")
    with pytest.raises(ExportError, match=f"^export: {kind.__name__} is no ONNX graph: {words}$"):
        export_policy(kind(VECTOR, spaces.Discrete(2)), tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())
