"""Trains PPO as one compiled JAX program, environments of gymnax included; prints one JSON line.

The loop and the settings are those of purejaxrl's PPO on CartPole-v1, written anew; ``--envs`` steps more of them at
once. As there, a time limit counts as an end. Episodes are looked at between chunks of updates, in which a run that
reaches its return goes on to the end of the chunk. Compilation is timed apart: ``compile_seconds``, and
``solved_at_seconds_with_compilation``.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from run_record import Run, arguments

N_STEPS, EPOCHS, MINIBATCHES = 128, 4, 4
LR, DISCOUNT, LAMBDA, CLIP, VALUE_COEFFICIENT, ENTROPY_COEFFICIENT, MAX_NORM = 2.5e-4, 0.99, 0.95, 0.2, 0.5, 0.01, 0.5
BUDGET = 500_000
CHUNK_ENV_STEPS = 8_192  # at least one update


class ActorCritic(nn.Module):
    """Two networks of two hidden layers with 64 units: log-probabilities and a value."""

    actions: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return log-probabilities [..., actions] and values [...]."""

        def head(outputs: int, scale: float) -> jax.Array:
            x = observations
            for _ in range(2):
                x = nn.tanh(nn.Dense(64, kernel_init=nn.initializers.orthogonal(np.sqrt(2)))(x))
            return nn.Dense(outputs, kernel_init=nn.initializers.orthogonal(scale))(x)

        return nn.log_softmax(head(self.actions, 0.01)), head(1, 1.0)[..., 0]


class Transition(NamedTuple):
    """One step of all environments, [B]; those of a rollout are stacked to [T, B]."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    ended: jax.Array


def chosen(log_probs: jax.Array, actions: jax.Array) -> jax.Array:
    """Return the log-probabilities of actions."""
    return jnp.take_along_axis(log_probs, actions[..., None], -1)[..., 0]


def make(env_id: str, envs: int, updates: int) -> tuple[Any, Any]:
    """Build two functions: `begin(key)` gives a state of training, `train(state, chunk)` the next one and the steps."""
    env, env_params = gymnax.make(env_id)
    network = ActorCritic(env.action_space(env_params).n)
    decay = optax.linear_schedule(LR, 0.0, updates * EPOCHS * MINIBATCHES)
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(decay, eps=1e-5))

    def begin(key: jax.Array) -> tuple[Any, ...]:
        key, for_network, for_envs = jax.random.split(key, 3)
        observation, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(for_envs, envs), env_params)
        params = network.init(for_network, observation)
        return params, optimizer.init(params), env_state, observation, key

    def loss(params: Any, batch: tuple[Transition, jax.Array, jax.Array]) -> jax.Array:
        steps, advantages, targets = batch
        log_probs, values = network.apply(params, steps.observation)
        ratio = jnp.exp(chosen(log_probs, steps.action) - steps.log_prob)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages).mean()
        clipped = steps.value + (values - steps.value).clip(-CLIP, CLIP)
        value_loss = 0.5 * jnp.maximum((values - targets) ** 2, (clipped - targets) ** 2).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return -surrogate + VALUE_COEFFICIENT * value_loss - ENTROPY_COEFFICIENT * entropy

    def step(carry: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], Transition]:
        params, env_state, observation = carry
        for_action, for_envs = jax.random.split(key)
        log_probs, value = network.apply(params, observation)
        action = jax.random.categorical(for_action, log_probs)
        result = jax.vmap(env.step, (0, 0, 0, None))(jax.random.split(for_envs, envs), env_state, action, env_params)
        following, env_state, reward, terminated, truncated, _ = result
        now = Transition(observation, action, chosen(log_probs, action), value, reward, terminated | truncated)
        return (params, env_state, following), now

    def advantage(carry: tuple[jax.Array, jax.Array], now: Transition) -> tuple[tuple[jax.Array, ...], jax.Array]:
        following, next_value = carry
        going_on = DISCOUNT * (1 - now.ended)
        result = now.reward + going_on * (next_value + LAMBDA * following) - now.value
        return (result, now.value), result

    def gradient_step(carry: tuple[Any, Any], batch: Any) -> tuple[tuple[Any, Any], None]:
        params, optimizer_state = carry
        changes, optimizer_state = optimizer.update(jax.grad(loss)(params, batch), optimizer_state)
        return (optax.apply_updates(params, changes), optimizer_state), None

    def update(state: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], tuple[jax.Array, jax.Array]]:
        params, optimizer_state, env_state, observation, key = state
        key, for_steps, for_order = jax.random.split(key, 3)
        (_, env_state, observation), steps = jax.lax.scan(
            step, (params, env_state, observation), jax.random.split(for_steps, N_STEPS)
        )
        _, last = network.apply(params, observation)
        _, advantages = jax.lax.scan(advantage, (jnp.zeros_like(last), last), steps, reverse=True)
        flat = jax.tree.map(
            lambda x: x.reshape(N_STEPS * envs, *x.shape[2:]), (steps, advantages, advantages + steps.value)
        )

        def epoch(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
            order = jax.random.permutation(key, N_STEPS * envs)
            batches = jax.tree.map(lambda x: x[order].reshape(MINIBATCHES, -1, *x.shape[1:]), flat)
            return jax.lax.scan(gradient_step, carry, batches)

        (params, optimizer_state), _ = jax.lax.scan(
            epoch, (params, optimizer_state), jax.random.split(for_order, EPOCHS)
        )
        return (params, optimizer_state, env_state, observation, key), (steps.reward, steps.ended)

    def train(state: tuple[Any, ...], chunk: int) -> tuple[tuple[Any, ...], tuple[jax.Array, jax.Array]]:
        return jax.lax.scan(update, state, None, chunk)

    return jax.jit(begin), jax.jit(train, static_argnums=1)


def main() -> None:
    """Train once and print the record."""
    parser = arguments(__doc__)
    parser.add_argument("--envs", type=int, default=4, help="stepped at once; purejaxrl's own number is 4")
    options = parser.parse_args()
    budget = options.max_env_steps or BUDGET
    steps_of_update = N_STEPS * options.envs
    chunk = max(1, CHUNK_ENV_STEPS // steps_of_update)
    settings = (
        f"purejaxrl: {options.envs} environments x {N_STEPS} steps, {EPOCHS} epochs of {MINIBATCHES} minibatches, lr "
        f"{LR} to 0 over {budget:,} env steps, discount {DISCOUNT}, lambda {LAMBDA}, in chunks of {chunk} updates"
    )
    run = Run.of(options, settings, budget)
    begin, train = make(options.env, options.envs, budget // steps_of_update)
    compiling = time.perf_counter()
    state = begin(jax.random.PRNGKey(options.seed))
    compiled = train.lower(state, chunk).compile()
    compile_seconds = time.perf_counter() - compiling
    returns = np.zeros(options.envs)
    env_steps = 0
    run.start()
    while not run.is_over(env_steps):
        state, figures = compiled(state)
        rewards, ended = (np.asarray(x).reshape(-1, options.envs) for x in figures)
        for reward, ends in zip(rewards, ended, strict=True):
            returns += reward
            for place in np.flatnonzero(ends):
                run.add_episode(returns[place])
            returns[ends] = 0.0
        env_steps += chunk * steps_of_update
    solved = None if run.solved_at_seconds is None else run.solved_at_seconds + compile_seconds
    run.write(
        *("gymnax", "jax", "flax", "optax"),
        compile_seconds=compile_seconds,
        solved_at_seconds_with_compilation=solved,
    )


if __name__ == "__main__":
    main()
