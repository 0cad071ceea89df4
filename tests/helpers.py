"""Small networks, specs and fits that several tests use."""

import pickle
from dataclasses import fields

import gymnasium
import numpy as np
import torch
from lightning.pytorch import Trainer

from a3c import A3C, MLPActorCritic, NStep, RolloutDataModule
from a3c.envs.spec import EnvSpec
from a3c.rollouts.collector import Collector, CollectorSpec, CollectRules
from a3c.rollouts.weights import SharedWeights

COUNTDOWN = "scripted_envs:Countdown-v0"


def make_network(observations=2, actions=3, hidden=(8,)):
    space = gymnasium.spaces.Box(-np.inf, np.inf, (observations,), np.float32)
    return MLPActorCritic(space, gymnasium.spaces.Discrete(actions), hidden_sizes=hidden)


def lively(network, seed=0):
    """Gives weights with which a policy heeds what it sees, and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        with torch.no_grad():
            if parameter.dim() > 1:
                torch.nn.init.orthogonal_(parameter, 2.0, generator)
            else:
                parameter.normal_(0, 0.1, generator=generator)
    return network.eval()


def with_rules(arguments):
    """Put arguments of `CollectRules` together, and leave others as they are."""
    names = {field.name for field in fields(CollectRules)} & arguments.keys()
    others = {name: value for name, value in arguments.items() if name not in names}
    return {"rules": CollectRules(**{name: arguments[name] for name in names}), **others}


def make_collector(num_envs=1, env_kwargs=None, env=COUNTDOWN, seed=0, **kwargs):
    network = make_network()
    env = EnvSpec(env, env_kwargs or {}).make(num_envs)
    return Collector(env, network, SharedWeights(network), seed=seed, **with_rules(kwargs))


def make_spec(env=COUNTDOWN, num_envs=2, env_kwargs=None, network=None, **kwargs):
    network = network or make_network()
    weights = SharedWeights(network)
    return CollectorSpec(
        EnvSpec(env, env_kwargs or {}), num_envs, pickle.dumps(network), weights, seed=0, **with_rules(kwargs)
    )


def fit(
    returns=None, ckpt_path=None, callbacks=(), seed=1, model=None, learning=None, network=None, trainer=None, **data
):
    """Fits a small network; gives the module, the data module and the trainer.

    `learning` are arguments of A3C, `network` those of its network beside the spaces, and its class, `trainer`
    those of the Trainer, the rest those of the data module.
    """
    torch.manual_seed(seed)
    data = RolloutDataModule(**{"mode": "sync", "envs_per_worker": 4, "seed": seed, **data})
    if model is None:
        sizes = {"class": MLPActorCritic, **(network or {})}
        kind = sizes.pop("class")
        if kind is MLPActorCritic:
            sizes = {"hidden_sizes": (16,), **sizes}
        made = kind(data.observation_space, data.action_space, **sizes)
        model = A3C(made, returns or NStep(8), **(learning or {}))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(**{"accelerator": "cpu", "max_epochs": -1, **quiet, **(trainer or {})}, callbacks=list(callbacks))
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return model, data, trainer
