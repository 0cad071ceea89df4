"""Trains TorchRL's A2C; prints one JSON line.

The loop and the settings are those of its sota-implementations/a2c for MuJoCo, with a categorical policy instead of a
Gaussian one, as TorchRL names no settings for tasks with discrete actions but those of Atari. A batch has 64 steps as
there, of 8 environments instead of one: what a step costs beside the environment is shared by them, so that it trains
several times as many env steps a second.
"""

from __future__ import annotations

import torch
from run_record import Run, arguments
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import (
    ClipTransform,
    Compose,
    DoubleToFloat,
    ExplorationType,
    RewardSum,
    SerialEnv,
    StepCounter,
    TransformedEnv,
)
from torchrl.envs.libs.gym import GymEnv
from torchrl.envs.transforms import VecNormV2
from torchrl.modules import MLP, OneHotCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss
from torchrl.objectives.value.advantages import GAE

ENVS, BATCH, LR, DISCOUNT, LAMBDA, CRITIC, ENTROPY, BUDGET = 8, 64, 3e-4, 0.99, 0.95, 0.25, 0.0, 1_000_000
NORMALISED = "normalised"


def make_env(env_id: str) -> TransformedEnv:
    """Build the environments: observations normalised and clipped, returns of episodes summed."""
    transforms = Compose(
        RewardSum(),
        StepCounter(),
        DoubleToFloat(),
        VecNormV2(in_keys=["observation"], out_keys=[NORMALISED]),
        ClipTransform(in_keys=[NORMALISED], low=-10, high=10),
    )
    return TransformedEnv(SerialEnv(ENVS, lambda: GymEnv(env_id)), transforms)


def make_mlp(inputs: int, outputs: int, gain: float) -> MLP:
    """Build a network of two hidden layers of 64 units, initialised orthogonally."""
    mlp = MLP(in_features=inputs, out_features=outputs, num_cells=[64, 64], activation_class=nn.Tanh)
    for layer in mlp.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            layer.bias.data.zero_()
    return mlp


def main() -> None:
    """Train once and print the record."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    budget = options.max_env_steps or BUDGET
    settings = (
        f"sota-implementations/a2c (MuJoCo), categorical: {ENVS} environments x {BATCH // ENVS} steps, lr {LR}, "
        f"discount {DISCOUNT}, lambda {LAMBDA}, critic {CRITIC}, entropy {ENTROPY}, observations normalised"
    )
    run = Run.of(options, settings, budget)
    env = make_env(options.env)
    env.set_seed(options.seed)
    size, actions = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    actor = ProbabilisticActor(
        TensorDictModule(make_mlp(size, actions, 1.0), in_keys=[NORMALISED], out_keys=["logits"]),
        in_keys=["logits"],
        spec=env.action_spec,
        distribution_class=OneHotCategorical,
        return_log_prob=True,
        default_interaction_type=ExplorationType.RANDOM,
    )
    critic = ValueOperator(make_mlp(size, 1, 0.01), in_keys=[NORMALISED])
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(BATCH), sampler=SamplerWithoutReplacement(), batch_size=BATCH
    )
    advantage = GAE(gamma=DISCOUNT, lmbda=LAMBDA, value_network=critic, average_gae=False)
    objective = A2CLoss(actor, critic, loss_critic_type="l2", entropy_coeff=ENTROPY, critic_coeff=CRITIC)
    optimizers = [torch.optim.Adam(network.parameters(), lr=LR) for network in (actor, critic)]
    collector = Collector(env, actor, frames_per_batch=BATCH, total_frames=budget, trust_policy=True)
    env_steps = 0
    run.start()
    for rollout in collector:
        for episode_return in rollout["next", "episode_reward"][rollout["next", "done"]].tolist():
            run.add_episode(episode_return)
        env_steps += rollout.numel()
        with torch.no_grad():
            rollout = advantage(rollout)
        buffer.empty()
        buffer.extend(rollout.reshape(-1))
        for batch in buffer:
            losses = objective(batch)
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        if run.is_over(env_steps):
            break
    collector.shutdown()
    run.write("torchrl", "tensordict", "gymnasium", "torch")


if __name__ == "__main__":
    main()
