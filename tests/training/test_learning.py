"""What can be learned is learned, in seconds: by every kind of network, of actions, of observations and of mode."""

import pytest
import torch
from helpers import fit
from torch.optim import Adam

from a3c import A3C, Agent, ConvActorCritic, MLPActorCritic, NStep, RolloutDataModule


def score(env, steps, network=None, kind=MLPActorCritic, seed=1, lr=1e-2, discount=0.0, horizon=4, **data):
    """Gives the mean reward of a greedy policy for each step of an episode that can have one."""
    case = {"env": f"lesson_envs:{env}-v0", "check_env": False, "envs_per_worker": 16, "max_env_steps": steps, **data}
    torch.manual_seed(seed)
    spaces = RolloutDataModule(**case)
    sizes = {"hidden_sizes": (32,)} if kind is MLPActorCritic else {}
    made = kind(spaces.observation_space, spaces.action_space, **sizes, **(network or {}))
    model = A3C(made, NStep(horizon), lambda params: Adam(params, lr=lr), discount, entropy_coefficient=0.003)
    model, data, _ = fit(model=model, seed=seed, **case)
    scores = Agent(model.network, data.env).evaluate(64, seed=seed)
    return scores.return_mean / (8 if env == "Shown" else 1)


def shown(lesson, steps, **arguments):
    return score("Shown", steps, env_kwargs={"kind": lesson}, **arguments)


@pytest.mark.parametrize(
    ("lesson", "steps", "data"),
    [
        ("discrete", 6000, {}),
        ("discrete", 10_000, {"mode": "async", "workers": 2}),
        ("discrete", 10_000, {"mode": "hogwild", "workers": 2}),
        ("choices", 6000, {}),
        ("switches", 6000, {}),
        ("parts", 5000, {}),
    ],
)
def test_a_policy_does_what_it_is_shown_with_actions_of_every_kind(lesson, steps, data):
    assert shown(lesson, steps, **data) > 0.95  # by chance 0.5 to 0.65


@pytest.mark.parametrize("squash", [False, True])
def test_a_continuous_policy_goes_to_the_target_that_it_sees(squash):
    assert shown("target", 8000, network={"squash": squash}) > 0.87  # in the middle, 0.65


def test_a_policy_whose_actions_are_masked_learns_the_best_of_those_that_are_left():
    assert shown("highest allowed", 6000) > 0.95  # by chance 0.5


@pytest.mark.parametrize("data", [{}, {"mode": "async", "workers": 1}], ids=["sync", "async"])
def test_a_convolutional_policy_sees_on_which_side_a_dot_is(data):
    assert shown("pixels", 4000, kind=ConvActorCritic, network={"torso": "small"}, lr=3e-3, **data) > 0.95


def test_a_policy_puts_an_image_and_a_number_together():
    network = {"torso": "small"}
    assert shown("image and number", 6000, kind=ConvActorCritic, network=network, lr=3e-3) > 0.95  # of either alone 0.5


@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_a_memory_keeps_what_was_shown_in_the_first_step_alone(memory):
    network = {"memory": memory, "memory_size": 16}
    assert score("Recall", 12_000, network, horizon=12) > 0.95


def test_without_a_memory_what_was_shown_in_the_first_step_is_lost():
    assert 0.2 < score("Recall", 4000, horizon=12) < 0.8
