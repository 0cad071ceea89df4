import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from helpers import fit, make_network
from scripted_envs import Countdown

from a3c import Agent, NStep, load
from a3c.envs.spec import EnvError, EnvSpec
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
