import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from helpers import fit, lively, make_network
from scripted_envs import Countdown

from a3c import Agent, MLPActorCritic, NStep, load
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.runs.checkpoints import CheckpointError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model, _, trainer = fit(NStep(8), max_env_steps=300, max_episode_steps=77)
    path = tmp_path_factory.mktemp("run") / "some.ckpt"
    trainer.save_checkpoint(path)
    return path, model


def test_a_checkpoint_holds_network_and_environment(checkpoint):
    path, model = checkpoint
    agent = load(path)
    assert agent.env == EnvSpec("CartPole-v1", {}, 77)
    assert agent.network.hidden_sizes == (16,)
    for mine, loaded in zip(model.network.parameters(), agent.network.parameters(), strict=True):
        assert torch.equal(mine, loaded)
    with pytest.raises(FileNotFoundError, match="not loaded from a run folder"):
        _ = agent.summary


def test_act_takes_one_observation_or_many():
    network = make_network(4, 2)
    with torch.no_grad():
        network.actor_head.bias += torch.tensor([0.0, 1.0])
    agent = Agent(network, EnvSpec("CartPole-v1"))
    assert agent.act([0, 0, 0, 0]) == 1
    assert agent.act(np.zeros((2, 3, 4))).tolist() == [[1, 1, 1], [1, 1, 1]]
    sampled = agent.act(np.zeros((4000, 4)), greedy=False)
    assert sampled.mean() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.03)
    with pytest.raises(ValueError, match=r"observation: got shape \(3,\), must end in \(4,\)"):
        agent.act(np.zeros(3))


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt: no such checkpoint"):
        load(tmp_path)
    garbage = tmp_path / "garbage.ckpt"
    garbage.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="garbage"):
        load(garbage)
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(checkpoint[0].read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="torn"):
        load(torn)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(CheckpointError, match="foreign"):
        load(foreign)


def test_a_description_that_is_no_network_is_refused(tmp_path, checkpoint):
    saved = torch.load(checkpoint[0], weights_only=True)
    saved["a3c"]["network"] = {"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/canary"}}
    torch.save(saved, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"got 'os\.system', must be a class of a3c, gymnasium\.spaces"):
        load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "canary").exists()


# Environments that a checkpoint cannot name, and those that it names by import path


def saved(env, path, **data):
    _, _, trainer = fit(NStep(8), env=env, max_env_steps=100, **data)
    trainer.save_checkpoint(path)


def test_an_environment_that_cannot_be_imported_is_given_to_load_and_is_not_needed_to_act(tmp_path):
    path = tmp_path / "some.ckpt"
    saved(lambda length: Countdown((length,)), path, env_kwargs={"length": 4}, max_episode_steps=3)
    agent = load(path)
    assert agent.act([0, 0]) in (0, 1, 2)
    assert agent.env.name == "<lambda>"
    assert agent.env.reward_threshold is None
    message = (
        r"^env: got <lambda>, which was made in a script, a notebook or a function and cannot be imported; must be"
    )
    with pytest.raises(EnvError, match=message) as caught:
        agent.evaluate(1)
    assert "\n" not in str(caught.value)
    for env in (lambda length: Countdown((length - 1,)), "scripted_envs:Countdown-v0"):
        agent = load(path, env=env)
        assert agent.env.max_episode_steps == 3
        assert agent.env.kwargs == {"length": 4}
    assert load(path, env=lambda length: Countdown((length - 2,))).evaluate(1).length_mean == 2
    with pytest.raises(EnvError, match="must be an id, an import path, or a class or function that makes one"):
        load(path, env=Countdown())


def test_a_class_of_another_package_is_called_only_with_leave(tmp_path):
    path = tmp_path / "some.ckpt"
    saved(CartPoleEnv, path, max_episode_steps=9)
    with pytest.raises(
        CheckpointError, match=r"CartPoleEnv', which imports .*; must be a class .*allow=\['gymnasium'\]"
    ):
        load(path)
    assert load(path, allow="gymnasium").evaluate(1).length_mean <= 9
    assert load(path, env=CartPoleEnv).evaluate(1).length_mean <= 9


def test_a_run_goes_on_with_the_same_class_or_function(tmp_path):
    def make(lengths=(3,)):
        return Countdown(lengths)

    for env in (make, Countdown):
        path = tmp_path / f"{env.__name__}.ckpt"
        saved(env, path)
        _, data, _ = fit(NStep(8), path, env=env, max_env_steps=200)
        assert data.progress.env_steps >= 200


SPACES = {
    "Discrete": spaces.Discrete(4, start=-2),
    "Discrete of int32": spaces.Discrete(3, start=1, dtype=np.int32),
    "MultiDiscrete": spaces.MultiDiscrete([[2, 3], [4, 5]], np.int32, start=[[1, -1], [0, -3]]),
    "MultiBinary": spaces.MultiBinary((2, 3)),
    "Box": spaces.Box(np.float32([-1, 5]), np.float32([0.1, 8])),
    "Box of a number": spaces.Box(-3, 1, (), np.float64),
    "Dict": spaces.Dict(
        gear=spaces.Discrete(3, start=1), rest=spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2)))
    ),
}
SEEN = spaces.Dict(
    camera=spaces.Box(0, 255, (2, 3), np.uint8),
    where=spaces.Tuple((spaces.Discrete(4, start=2), spaces.Box(-1, 1, (2,), np.float64))),
)


def stacked(samples):
    """Several observations or actions as one, part by part."""
    if isinstance(samples[0], dict):
        return {key: stacked([sample[key] for sample in samples]) for key in samples[0]}
    if isinstance(samples[0], tuple):
        return tuple(map(stacked, zip(*samples, strict=True)))
    return np.stack(samples)


def reshaped(value, lead):
    if isinstance(value, dict):
        return {key: reshaped(part, lead) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(reshaped(part, lead) for part in value)
    return value.reshape(*lead, *value.shape[1:])


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(map(same, one, other))
    return np.shape(one) == np.shape(other) and np.allclose(one, other, atol=1e-6)


def samples_of(space, number, seed=0):
    space.seed(seed)
    return [space.sample() for _ in range(number)]


@pytest.mark.parametrize("squash", [False, True], ids=["clip", "squash"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_actions_are_the_spaces_own_for_one_observation_and_for_several(space, squash):
    agent = Agent(lively(MLPActorCritic(SEEN, space, squash=squash)), EnvSpec("unused"))
    observations = samples_of(SEEN, 6)
    singles = [agent.act(observation) for observation in observations]
    for action in singles:
        assert space.contains(action), action
        assert not isinstance(space, spaces.Discrete) or type(action) is int
    many = agent.act(stacked(observations))
    assert same(many, stacked(singles))
    assert same(agent.act(reshaped(stacked(observations), (2, 3))), reshaped(many, (2, 3)))
    if isinstance(space, spaces.Discrete):
        assert many.dtype == space.dtype
        assert len(set(singles)) > 1
    sampled = agent.act(observations[0], greedy=False)
    assert space.contains(sampled)


def test_an_action_mask_is_heeded():
    seen = spaces.Dict(action_mask=spaces.MultiBinary(4), x=spaces.Box(-1, 1, (2,)))
    agent = Agent(lively(MLPActorCritic(seen, spaces.Discrete(4, start=1))), EnvSpec("unused"))
    for greedy in (True, False):
        allowed = np.eye(4, dtype=np.int8)
        actions = agent.act({"x": np.zeros((4, 2)), "action_mask": allowed}, greedy)
        assert actions.tolist() == [1, 2, 3, 4]
    assert agent.act({"x": [0.5, 0.5], "action_mask": [0, 0, 1, 0]}) == 3


def remembering(memory="gru"):
    network = MLPActorCritic(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (3,)), memory=memory, memory_size=8)
    return Agent(lively(network), EnvSpec("unused"))


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_an_agent_remembers_from_call_to_call_until_it_is_reset(memory):
    agent = remembering(memory)
    first, second = agent.act([0.1, 0.2]), agent.act([0.1, 0.2])
    assert not np.allclose(first, second)
    agent.reset()
    assert np.allclose(agent.act([0.1, 0.2]), first)
    assert np.allclose(agent.act([[0.1, 0.2]]), [second])  # one row is one environment


def test_those_environments_whose_episodes_ended_are_forgotten_alone():
    agent = remembering()
    rows = np.array([[0.1, 0.2], [0.1, 0.2], [0.3, -0.2]])
    first, second = agent.act(rows), agent.act(rows)
    agent.reset()
    agent.act(rows)
    agent.reset([True, False, False])
    mixed = agent.act(rows)
    assert np.allclose(mixed[0], first[0])
    assert np.allclose(mixed[1:], second[1:])


def test_a_memory_refuses_another_number_of_environments_and_axes_that_it_cannot_follow():
    agent = remembering()
    agent.act(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"^observation: got 3 of them, must be 2 as before; reset\(\) begins anew$"):
        agent.act(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"^observation: got axes \(1, 2\) in front, must be one at most for a netw"):
        agent.act(np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match=r"^columns: got bool \(3,\), must be bool \(2,\)$"):
        agent.reset([True, False, True])
    with pytest.raises(ValueError, match=r"^columns: got int64 \(2,\), must be bool \(2,\)$"):
        agent.reset([0, 1])
    agent.reset()
    assert agent.act(np.zeros((3, 2))).shape == (3, 3)


def test_acting_leaves_a_network_in_its_mode_and_is_made_in_that_of_evaluation():
    network = lively(MLPActorCritic(spaces.Box(-1, 1, (2,)), spaces.Discrete(3)))
    network.actor_trunk.append(torch.nn.Dropout(0.99))
    network.train()
    agent = Agent(network, EnvSpec("unused"))
    assert len({agent.act([0.5, 0.1]) for _ in range(30)}) == 1
    assert network.training
