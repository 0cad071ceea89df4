"""A network that could not be trained is refused before anything is started, in one line that says why."""

import copy
import random

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import make_network
from parts_env import ACTIONS, Parts
from torch import nn

from a3c import A3C, ActorCritic, BookActorCritic, ConvActorCritic, MLPActorCritic, NStep
from a3c.networks.checks import check_network

BOX, THREE = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)


class Plain(ActorCritic):
    """Two layers; what `forward` gives is what a test's `change` makes of parameters and values."""

    def __init__(self, observation_space=BOX, action_space=THREE, change=None):
        super().__init__(observation_space, action_space)
        self.change = change or (lambda parameters, values: (parameters, values))
        self.policy, self.value = nn.Linear(2, self.parameter_count), nn.Linear(2, 1)

    def forward(self, inputs):
        return self.change(self.policy(inputs), self.value(inputs).squeeze(-1))


class Counter(Plain):
    """Remembers how many observations it has seen; its `step` gives what `change` makes of what it should."""

    def __init__(self, change=None, first=lambda columns: torch.zeros(columns, 4)):
        super().__init__()
        self.changed, self.first = change or (lambda *parts: parts), first

    def initial_state(self, columns):
        return self.first(columns)

    def step(self, inputs, state):
        return self.changed(self.policy(inputs), self.value(inputs).squeeze(-1), state + 1)


SEEN = {
    "numbers": BOX,
    "integers": spaces.Box(3, 9, (2, 2), np.int64),
    "one of four": spaces.Discrete(4, start=2),
    "parts": Parts("discrete").observation_space,
    "parts with a mask": Parts("discrete", masked=True).observation_space,
}


@pytest.mark.parametrize("memory", [None, "lstm", "gru"])
@pytest.mark.parametrize("seen", SEEN)
def test_networks_of_the_project_pass_whatever_they_see_and_do(seen, memory):
    check_network(MLPActorCritic(SEEN[seen], ACTIONS["discrete"], hidden_sizes=(4,), memory=memory))
    if seen.startswith("parts"):
        check_network(ConvActorCritic(SEEN[seen], ACTIONS["discrete"], "small", memory=memory))


@pytest.mark.parametrize("actions", ACTIONS)
def test_networks_of_the_project_pass_for_actions_of_every_kind(actions):
    check_network(MLPActorCritic(BOX, ACTIONS[actions], hidden_sizes=(4,), squash=True))
    check_network(BookActorCritic(BOX, ACTIONS[actions]))


def test_a_network_of_ones_own_passes_with_and_without_a_memory():
    check_network(Plain())
    check_network(Counter())
    check_network(Counter(first=lambda columns: torch.zeros(columns, 2, 3)))


WRONG_OUTPUTS = {
    "parameters alone": (lambda p, v: p, r"a Tensor, must be parameters and values"),
    "three parts": (lambda p, v: (p, v, v), "3 parts, must be parameters and values"),
    "too few parameters": (
        lambda p, v: (p[..., :2], v),
        r"parameters float32 \(2, 3, 2\), must be \[T, B, P\] = \(2, 3, 3\): actions Discrete\(3\) take 3",
    ),
    "a distribution": (
        lambda p, v: (torch.distributions.Categorical(logits=p), v),
        r"parameters of Categorical, must be \[T, B, P\] = \(2, 3, 3\)",
    ),
    "actions": (lambda p, v: (p.argmax(-1, keepdim=True).expand_as(p), v), r"parameters int64 \(2, 3, 3\)"),
    "an axis more": (
        lambda p, v: (p, v.unsqueeze(-1)),
        r"values float32 \(2, 3, 1\), must be \[T, B\] = \(2, 3\), one number an observation",
    ),
    "a mean value": (lambda p, v: (p, v.mean()), r"values float32 \(\), must be \[T, B\]"),
    "flat values": (lambda p, v: (p, v.flatten()), r"values float32 \(6,\), must be \[T, B\]"),
    "NaN": (lambda p, v: (p / (p * 0), v), "parameters with (nan|inf|-inf) for observations .*, must be finite"),
    "an infinite value": (lambda p, v: (p, v + torch.inf), "values with inf for observations .*, must be finite"),
}


@pytest.mark.parametrize("wrong", WRONG_OUTPUTS)
def test_wrong_outputs_are_refused_in_one_line(wrong, monkeypatch):
    change, words = WRONG_OUTPUTS[wrong]
    monkeypatch.setattr(Plain, "actor", lambda self, inputs: self.policy(inputs))  # else that is the first to be seen
    with pytest.raises(ValueError, match=rf"^network: Plain\.forward gives {words}") as caught:
        check_network(Plain(change=change))
    assert "\n" not in str(caught.value)


def test_an_actor_that_says_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(Plain, "actor", lambda self, inputs: self.value(inputs))
    with pytest.raises(
        ValueError, match=r"^network: Plain\.actor gives parameters float32 \(3, 1\), must be \[B, P\] = "
    ):
        check_network(Plain())


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (
            lambda columns: torch.zeros(1, columns, 4),
            r"float32 \(1, 3, 4\) for 3 columns, must be \[B, \*state_shape\]",
        ),
        (lambda columns: torch.zeros(3, columns, 4), r"float32 \(3, 2, 4\) for 2 columns, must be \[B, "),
        (lambda columns: torch.zeros(columns, columns), r"float32 \(3, 3\) and float32 \(2, 2\), must be"),
        (lambda columns: torch.zeros(columns, 4).double(), r"float64 \(3, 4\) for 3 columns, must be .* in float32"),
        (lambda columns: (torch.zeros(columns, 4),) * 2, "a tuple, must be one tensor .*, or None"),
        (lambda columns: torch.tensor(0.0), r"float32 \(\) for 3 columns"),
        (lambda columns: torch.full((columns, 4), torch.nan), "a state with nan"),
    ],
)
def test_a_memory_that_begins_wrongly_is_refused_in_one_line(first, words):
    with pytest.raises(ValueError, match=rf"^network: Counter\.initial_state gives {words}") as caught:
        check_network(Counter(first=first))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p, v, s: (p, v, s[:, :3]),
            r"a next state float32 \(3, 3\), must be as the one before, float32 \(3, 4\)",
        ),
        (lambda p, v, s: (p, v, s.double()), "a next state float64"),
        (lambda p, v, s: (p, v, (s, s)), "a next state of tuple"),
        (lambda p, v, s: (p, v, s * torch.nan), "a next state with nan"),
        (lambda p, v, s: (p[:, :1], v, s), r"parameters float32 \(3, 1\), must be \[B, P\] = \(3, 3\)"),
    ],
)
def test_a_step_whose_next_state_or_outputs_are_wrong_is_refused_in_one_line(change, words):
    with pytest.raises(ValueError, match=rf"^network: Counter\.(actor_)?step gives {words}"):
        check_network(Counter(change))


def test_the_values_of_a_step_are_looked_at_too():
    with pytest.raises(
        ValueError, match=r"^network: Counter\.step gives values float32 \(3, 1\), must be \[B\] = \(3,\)"
    ):
        check_network(Counter(lambda p, v, s: (p, v.unsqueeze(-1), s)))
    network = Counter(lambda p, v, s: (p, s))
    network.actor_step = lambda inputs, state: (network.policy(inputs), state)
    with pytest.raises(ValueError, match=r"^network: Counter\.step gives 2 parts, must be parameters, values and a"):
        check_network(network)


def test_an_unroll_of_ones_own_is_looked_at_too():
    network = Counter()
    network.unroll = lambda inputs, state, begins: network.step(inputs[-1], state)[:2]
    with pytest.raises(ValueError, match=r"^network: Counter\.unroll gives parameters float32 \(3, 3\), must be"):
        check_network(network)


def test_a_network_without_a_forward_is_refused_in_one_line():
    with pytest.raises(
        ValueError, match=r"^network: ActorCritic has neither forward nor, for one with a memory, step$"
    ):
        check_network(ActorCritic(BOX, THREE))


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError])
def test_what_a_network_raises_is_kept_whole_as_the_cause(kind):
    def change(parameters, values):
        raise kind("the seventh layer")

    with pytest.raises(RuntimeError, match=r"^network: Plain raised in its actor: .*the seventh layer") as caught:
        check_network(Plain(change=change))
    assert type(caught.value.__cause__) is kind
    assert caught.value.__cause__.__traceback__.tb_next is not None


class Unsteady(Plain):
    """Draws, counts and changes a buffer in each forward pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.calls = 0

    def forward(self, inputs):
        assert not self.training
        assert torch.is_grad_enabled() != torch.is_inference_mode_enabled()
        if torch.is_grad_enabled():  # as a network may that looks at its gradients
            inputs.mul(self.policy.weight.sum()).register_hook(lambda gradient: gradient)
        self.passes += 1
        self.calls += 1
        return self.policy(inputs + torch.rand(()) + random.random() + np.random.rand()), self.value(inputs)[..., 0]


def test_a_look_leaves_the_network_and_the_processs_generators_as_they_were():
    network = Unsteady().train()
    before = copy.deepcopy(network.state_dict())

    def drawn():
        torch.manual_seed(1), random.seed(1), np.random.seed(1)
        yield
        yield torch.rand(()).item(), random.random(), np.random.rand()

    expected = list(drawn())[1]
    drawing = drawn()
    next(drawing)
    check_network(network)
    assert next(drawing) == expected
    assert network.training
    assert network.calls == 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_module_is_not_made_of_a_network_that_could_not_be_trained():
    with pytest.raises(ValueError, match=r"^network: Narrow\.actor gives parameters float32 \(3, 2\)"):
        A3C(Narrow(BOX, THREE), NStep(4))
    A3C(make_network(), NStep(4))


class Narrow(MLPActorCritic):
    def actor(self, inputs):
        return super().actor(inputs)[..., :2]


class Louder(Plain):
    """Acts on other parameters than it learns from."""

    def actor(self, inputs):
        return 1.1 * self.policy(inputs)


class Noisy(Plain):
    """Draws its noise anew in each pass, as NoisyNets do."""

    def forward(self, inputs):
        parameters, values = super().forward(inputs)
        return parameters + torch.randn(self.parameter_count), values


class Forgetful(Counter):
    def actor_step(self, inputs, state):
        parameters, _, state = self.step(inputs, state)
        return parameters + 1, state


@pytest.mark.parametrize(("network", "methods"), [(Louder, "actor forward"), (Forgetful, "actor_step step")])
def test_a_policy_that_is_another_one_when_it_acts_is_refused(network, methods):
    torch.manual_seed(0)
    acting, learning = methods.split()
    with pytest.raises(
        ValueError,
        match=rf"^network: {network.__name__}\.{acting} gives parameters that differ by up to [\d.]+ from "
        rf"{learning}'s, must be the same$",
    ):
        check_network(network())


def test_a_network_with_noise_of_its_own_passes():
    check_network(Noisy())
