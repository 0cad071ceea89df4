import numpy as np
import pytest
import torch
from helpers import fit, make_network

from a3c import Agent, NStep, load
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
