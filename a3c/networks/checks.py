"""What a network must give: looked at once, on made-up observations, before anything is started."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from a3c.envs.layouts import observation_layout
from a3c.envs.random_states import random_states_kept
from a3c.networks.actor_critic import ActorCritic

STEPS, COLUMNS = 2, 3  # of the made-up observations
OF_COLLECTORS = ("actor", "actor_step")  # methods that need no gradient


def check_network(network: ActorCritic) -> None:
    """Run a copy of a network as collectors and the learner do, and refuse what they could not use.

    The network itself, and this process's random generators, stay as they are.

    Raises:
        ValueError: the method, what it gave, and what it must give.
        RuntimeError: a method of the network raised; its own exception is the cause.
    """
    _Look(network).look()


class _Look:
    """One look at a network, in evaluation mode.

    Args:
        network: stays as it is.
    """

    def __init__(self, network: ActorCritic) -> None:
        self._name = type(network).__name__
        self._network = copy.deepcopy(network).eval()  # a forward pass may change buffers, and count

    @torch.enable_grad()
    def look(self) -> None:
        """Refuse what the network gives that it must not give."""
        network = self._network
        layout = observation_layout(network.observation_space)
        one = torch.from_numpy(layout.pack(layout.some(COLUMNS)))
        inputs, _ = network.inputs(one)
        sequence, _ = network.inputs(one.expand(STEPS, *one.shape).contiguous())
        with random_states_kept():
            state = self._initial_state()
            if state is None:
                acted, learned = self._both("actor", "forward", inputs)
                self._parameters("actor", acted, (COLUMNS,))
                self._outputs("forward", self._call("forward", sequence), (STEPS, COLUMNS))
                self._outputs("forward", learned, (COLUMNS,))
                self._agree("actor", "forward", acted, learned[0])
                return
            acted, stepped = self._both("actor_step", "step", inputs, state)
            acted = self._tuple("actor_step", acted, "parameters and a state")
            self._parameters("actor_step", acted[0], (COLUMNS,))
            self._next_state("actor_step", acted[1], state)
            stepped = self._tuple("step", stepped, "parameters, values and a state")
            self._outputs("step", stepped[:2], (COLUMNS,))
            self._next_state("step", stepped[2], state)
            self._agree("actor_step", "step", acted[0], stepped[0])
            begins = torch.zeros(STEPS, COLUMNS, dtype=torch.bool)
            self._outputs("unroll", self._call("unroll", sequence, state, begins), (STEPS, COLUMNS))

    def _both(self, acting: str, learning: str, *arguments: Any) -> tuple[Any, Any]:
        """Return what two methods give from the same random numbers, should they draw any."""
        with random_states_kept():
            acted = self._call(acting, *arguments)
        return acted, self._call(learning, *arguments)

    def _agree(self, acting: str, learning: str, acted: Tensor, learned: Tensor) -> None:
        """Refuse a policy that is another one when it acts: log-probabilities would be of the wrong one."""
        if not torch.allclose(acted, learned, rtol=1e-3, atol=1e-4):
            most = (acted - learned).abs().max().item()
            raise self._refuse(acting, f"parameters that differ by up to {most:.3g} from {learning}'s", "the same")

    def _call(self, method: str, *arguments: Any) -> Any:
        function: Callable[..., Any] = self._network if method == "forward" else getattr(self._network, method)
        try:
            with torch.inference_mode(method in OF_COLLECTORS):
                return function(*arguments)
        except NotImplementedError as error:  # which our base class raises
            raise ValueError(f"network: {error}") from error
        except Exception as error:
            raise RuntimeError(f"network: {self._name} raised in its {method}: {error}") from error

    def _refuse(self, method: str, got: str, must: str) -> ValueError:
        return ValueError(f"network: {self._name}.{method} gives {got}, must be {must}")

    def _initial_state(self) -> Tensor | None:
        method, must = "initial_state", "[B, *state_shape] in float32"
        state, fewer = (self._call(method, columns) for columns in (COLUMNS, STEPS))
        if state is None:
            return None
        for given, columns in ((state, COLUMNS), (fewer, STEPS)):
            if not isinstance(given, Tensor):
                raise self._refuse(method, f"a {type(given).__name__}", f"one tensor {must}, or None")
            if given.dtype != torch.float32 or given.dim() == 0 or len(given) != columns:
                raise self._refuse(method, f"{_words(given)} for {columns} columns", must)
        if state.shape[1:] != fewer.shape[1:]:
            raise self._refuse(method, f"{_words(state)} and {_words(fewer)}", f"{must}, of one state_shape")
        self._finite(method, "a state", state)
        return state  # type: ignore[no-any-return]

    def _tuple(self, method: str, given: Any, parts: str) -> tuple[Any, ...]:
        count = 2 if parts.count(",") == 0 else 3
        if not isinstance(given, tuple | list) or len(given) != count:
            got = f"{len(given)} parts" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
            raise self._refuse(method, got, parts)
        return tuple(given)

    def _outputs(self, method: str, given: Any, lead: tuple[int, ...]) -> None:
        parameters, values = self._tuple(method, given, "parameters and values")
        self._parameters(method, parameters, lead)
        axes = "[T, B]" if len(lead) == 2 else "[B]"
        if not _is_of_floats(values) or values.shape != lead:
            raise self._refuse(method, f"values {_words(values)}", f"{axes} = {lead}, one number an observation")
        self._finite(method, "values", values)

    def _parameters(self, method: str, given: Any, lead: tuple[int, ...]) -> None:
        count = self._network.parameter_count
        axes = "[T, B, P]" if len(lead) == 2 else "[B, P]"
        if not _is_of_floats(given) or given.shape != (*lead, count):
            space = " ".join(str(self._network.action_space).split())
            raise self._refuse(
                method, f"parameters {_words(given)}", f"{axes} = {(*lead, count)}: actions {space} take {count}"
            )
        self._finite(method, "parameters", given)

    def _next_state(self, method: str, given: Any, state: Tensor) -> None:
        if not isinstance(given, Tensor) or given.dtype != state.dtype or given.shape != state.shape:
            raise self._refuse(method, f"a next state {_words(given)}", f"as the one before, {_words(state)}")
        self._finite(method, "a next state", given)

    def _finite(self, method: str, what: str, given: Tensor) -> None:
        finite = given.isfinite()
        if not finite.all():
            value = given[~finite][0].item()
            raise self._refuse(method, f"{what} with {value} for observations as near to 0 as they can be", "finite")


def _is_of_floats(given: Any) -> bool:
    return isinstance(given, Tensor) and given.is_floating_point()


def _words(given: Any) -> str:
    if not isinstance(given, Tensor):
        return f"of {type(given).__name__}"
    return f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}"
