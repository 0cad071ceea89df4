"""Memories: torch's own formulas, forgetting where episodes begin, and gradients through time."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from gymnasium import spaces
from helpers import lively
from torch import nn

from a3c import ActorCritic, Memory, MLPActorCritic
from a3c.networks.memory import GRU, LSTM, MEMORIES

T, B, FEATURES, SIZE = 9, 3, 5, 4
BOX, THREE = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)


def filled(module, seed=0):
    """Gives every parameter random numbers, biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.7, generator=generator)
    return module


def as_torch(memory, numbers):
    """Gives numbers of the gates [gates * size, ...] in torch's order: an LSTM's output gate is torch's last."""
    gates = numbers.chunk(memory.gates)
    return torch.cat((gates[0], gates[1], gates[3], gates[2]) if isinstance(memory, LSTM) else gates)


def torchs_own(memory):
    """Gives torch's LSTM or GRU with a memory's weights."""
    theirs = {LSTM: nn.LSTM, GRU: nn.GRU}[type(memory)](memory.features, memory.size)
    bias = memory.inputs.bias
    own = {
        "weight_ih_l0": memory.inputs.weight,
        "bias_ih_l0": bias,
        "weight_hh_l0": memory.recurrent.weight,
        "bias_hh_l0": torch.zeros_like(bias) if isinstance(memory, LSTM) else memory.recurrent.bias,
    }
    theirs.load_state_dict({name: as_torch(memory, numbers) for name, numbers in own.items()})
    return theirs


def torchs_state(memory, state):
    return tuple(part.unsqueeze(0) for part in state.chunk(2, -1)) if isinstance(memory, LSTM) else state.unsqueeze(0)


@pytest.fixture(params=MEMORIES)
def memory(request):
    return filled(MEMORIES[request.param](FEATURES, SIZE))


@pytest.fixture
def sequence(memory):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(T, B, FEATURES, generator=generator)
    return features, torch.randn(B, memory.state_size, generator=generator)


NEVER = torch.zeros(T, B, dtype=torch.bool)
SOMETIMES = NEVER.clone()
SOMETIMES[[0, 4, 8, 3, 4], [0, 0, 0, 2, 2]] = True  # at the first and last step, twice in a row, never in column 1


def test_a_memory_is_torchs_own_of_the_same_weights(memory, sequence):
    features, state = sequence
    expected, last = torchs_own(memory)(features, torchs_state(memory, state))
    torch.testing.assert_close(memory.unroll(features, state, NEVER), expected)
    for row, out in zip(features, expected, strict=True):
        output, state = memory(row, state)
        torch.testing.assert_close(output, out)
    torch.testing.assert_close(torchs_state(memory, state), last)


def test_gradients_are_torchs_own(memory, sequence):
    features, state = sequence
    theirs = torchs_own(memory)
    theirs(features, torchs_state(memory, state))[0].square().sum().backward()
    memory.unroll(features, state, NEVER).square().sum().backward()
    for layer, name in ((memory.inputs, "ih"), (memory.recurrent, "hh")):
        for kind, parameter in layer.named_parameters():
            expected = getattr(theirs, f"{kind}_{name}_l0").grad
            torch.testing.assert_close(as_torch(memory, parameter.grad), expected)


def test_every_parameter_of_a_memory_is_used(memory, sequence):
    memory.unroll(*sequence, NEVER).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in memory.parameters())


def test_an_unroll_with_begins_is_that_of_each_episode_by_itself(memory, sequence):
    features, state = sequence
    together = memory.unroll(features, state, SOMETIMES)
    for column in range(B):
        starts = [0, *SOMETIMES[:, column].nonzero()[:, 0].tolist(), T]
        for start, stop in pairwise(starts):
            if start == stop:
                continue
            own = state[[column]] if not SOMETIMES[start, column] else memory.initial_state(1)
            alone = memory.unroll(features[start:stop, [column]], own, NEVER[start:stop, :1])
            torch.testing.assert_close(together[start:stop, [column]], alone)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_an_unroll_by_torchs_loop_is_that_step_by_step_with_its_gradients(memory, share, monkeypatch):
    """The first states are learned here, so their gradient counts as well."""
    generator = torch.Generator().manual_seed(3)
    memory = memory.double()
    first = torch.randn(memory.state_size, generator=generator, dtype=torch.float64, requires_grad=True)
    memory.initial_state = lambda columns: first.expand(columns, -1)
    features = torch.randn(40, B, FEATURES, generator=generator, dtype=torch.float64, requires_grad=True)
    state = torch.randn(B, memory.state_size, generator=generator, dtype=torch.float64, requires_grad=True)
    begins = torch.rand(40, B, generator=generator) < share
    calls, kernel = [], memory.kernel
    monkeypatch.setattr(memory, "kernel", lambda *given: calls.append(len(given)) or kernel(*given))
    learned = [features, state, first, *memory.parameters()]
    fast, slow = (unroll(features, state, begins) for unroll in (memory.unroll, partial(Memory.unroll, memory)))
    torch.testing.assert_close(fast, slow)
    assert len(calls) == (share < 0.5)  # pieces of very different lengths are not worth their padding
    weights = torch.randn(fast.shape, generator=generator, dtype=torch.float64)
    fast, slow = (
        torch.autograd.grad((outputs * weights).sum(), learned, allow_unused=True, materialize_grads=True)
        for outputs in (fast, slow)
    )
    torch.testing.assert_close(fast, slow)


def test_the_efficient_unroll_is_the_default_one(memory, sequence):
    features, state = sequence

    class StepByStep(type(memory)):
        prepare, advance = Memory.prepare, lambda self, features, state: memory(features, state)

    slow = StepByStep(FEATURES, SIZE)
    torch.testing.assert_close(memory.unroll(features, state, SOMETIMES), slow.unroll(features, state, SOMETIMES))


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_networks_unroll_is_its_steps_one_after_another(kind):
    network = lively(MLPActorCritic(BOX, THREE, hidden_sizes=(6,), memory=kind, memory_size=SIZE))
    generator = torch.Generator().manual_seed(2)
    inputs, state = torch.randn(T, B, 2, generator=generator), torch.randn(B, *network.state_shape, generator=generator)
    ours, slow = network.unroll(inputs, state, SOMETIMES), ActorCritic.unroll(network, inputs, state, SOMETIMES)
    torch.testing.assert_close(ours, slow)
    for time, row in enumerate(inputs):
        state = state.clone()
        state[SOMETIMES[time]] = network.initial_state(B)[SOMETIMES[time]]
        acted, after = network.actor_step(row, state)
        parameters, value, state = network.step(row, state)
        for given, unrolled in ((acted, ours[0][time]), (parameters, ours[0][time]), (value, ours[1][time])):
            torch.testing.assert_close(given, unrolled)
        torch.testing.assert_close(after, state)


def test_a_default_unroll_takes_observations_of_parts():
    class Sum(ActorCritic):
        def initial_state(self, columns):
            return torch.zeros(columns, 1)

        def step(self, inputs, state):
            state = state + inputs["x"] + inputs["rest"][0]
            return state.expand(-1, 3), state[:, 0], state

    network = Sum(spaces.Dict(x=BOX, rest=spaces.Tuple((BOX, THREE))), THREE)
    x, rest = torch.arange(4.0).view(4, 1, 1), torch.ones(4, 1, 1)
    begins = torch.tensor([[False], [False], [True], [False]])
    _, values = network.unroll({"x": x, "rest": (rest, rest)}, torch.full((1, 1), 9.0), begins)
    assert values[:, 0].tolist() == [9 + 0 + 1, 10 + 1 + 1, 2 + 1, 3 + 3 + 1]


# Gradients through time


def test_a_steps_features_have_gradient_from_all_later_steps_of_their_episode_and_no_others(memory, sequence):
    features, state = sequence
    features.requires_grad_()
    outputs = memory.unroll(features, state, SOMETIMES)
    for time in range(T):
        (gradient,) = torch.autograd.grad(outputs[time].sum(), features, retain_graph=True)
        for column in range(B):
            begun = SOMETIMES[: time + 1, column].nonzero()[:, 0].tolist()
            first = begun[-1] if begun else 0
            expected = [first <= t <= time for t in range(T)]
            assert gradient[:, column].abs().sum(-1).gt(0).tolist() == expected


class Learned(MLPActorCritic):
    """Begins its episodes with a state that is learned."""

    def __init__(self, *spaces):
        super().__init__(*spaces, hidden_sizes=(6,), memory="gru", memory_size=SIZE)
        self.first = nn.Parameter(torch.linspace(-1, 1, SIZE))

    def initial_state(self, columns):
        return self.first.expand(columns, -1)

    def unroll(self, inputs, state, begins):
        return ActorCritic.unroll(self, inputs, state, begins)


def test_a_learned_first_state_has_gradient_from_the_episodes_that_begin():
    network = lively(Learned(BOX, THREE))
    inputs, state = torch.randn(T, B, 2, generator=torch.Generator().manual_seed(3)), torch.ones(B, SIZE)
    for begins, learns in ((NEVER, False), (SOMETIMES, True)):
        parameters, values = network.unroll(inputs, state, begins)
        (gradient,) = torch.autograd.grad(
            parameters.sum() + values.sum(), network.first, allow_unused=True, materialize_grads=True
        )
        assert bool(gradient.any()) == learns
