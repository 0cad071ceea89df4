"""A greedy policy as an ONNX graph, for programs without torch."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from a3c.envs.layouts import Layout, RecordLayout, action_layout, observation_layout
from a3c.networks import ActorCritic
from a3c.networks.actor_critic import evaluating
from a3c.networks.distributions import ActionFamily, Composite, CompositeFamily, Distribution

OPSET = 18
_NEEDED = ("onnx", "onnxscript")
_EXAMPLES = 2  # rows of the batch that is traced; 1 would be taken for a size that is always 1


class ExportError(Exception):
    """A policy cannot be exported; says why in one line."""


class GreedyPolicy(nn.Module):
    """The greedy policy as a function of tensors alone: parts of observations, and a memory, to parts of actions.

    Args:
        network: the policy.

    Attributes:
        input_names: the paths of the observation's parts, or "observation"; then "state" where there is a memory.
        output_names: the paths of the action's parts, or "action"; "action_parameters"; then "next_state". A name
            that is taken has "action." in front, or "observation.".
    """

    def __init__(self, network: ActorCritic) -> None:
        super().__init__()
        self.network = network
        self._layout = observation_layout(network.observation_space)
        memory = network.state_shape != (0,)
        reserved = {"action_parameters", *(["state", "next_state"] if memory else [])}
        self.input_names = _names("observation", self._layout, reserved)
        actions = _names("action", action_layout(network.action_space), {*reserved, *self.input_names})
        self.output_names = [*actions, "action_parameters"]
        if memory:
            self.input_names.append("state")
            self.output_names.append("next_state")

    def examples(self) -> tuple[Tensor, ...]:
        """Return inputs of the right shapes and dtypes, with a batch axis."""
        layouts = [leaf.layout for leaf in self._layout.leaves()]
        tensors = [torch.zeros(_EXAMPLES, *layout.shape, dtype=layout.torch_dtype) for layout in layouts]
        state = self.network.initial_state(_EXAMPLES)
        return (*tensors, *([] if state is None else [state]))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the action's parts, its distribution's parameters and, of a network with memory, the next state."""
        network, left = self.network, iter(given)
        inputs, mask = network.inputs_of(_assembled(self._layout, left))
        state = list(left)
        if state:
            parameters, *state = network.actor_step(inputs, *state)
        else:
            parameters = network.actor(inputs)
        actions = _greedy(network.actions, network.actions(parameters, mask))
        return (*actions, parameters, *state)


def _names(whole: str, layout: Layout, taken: set[str]) -> list[str]:
    """Return the names of a value's parts."""
    paths = [leaf.path for leaf in layout.leaves()]
    return [f"{whole}.{path}" if path in taken else path or whole for path in paths]


def _assembled(layout: Layout, tensors: Iterator[Tensor]) -> Any:
    """Return a value of its parts, in their order."""
    if isinstance(layout, RecordLayout):
        return layout.joined([_assembled(part, tensors) for part in layout.parts.values()])
    return next(tensors)


def _greedy(family: ActionFamily, distribution: Distribution) -> Iterator[Tensor]:
    """Yield the parts of the most probable actions, in the environment's own terms."""
    if isinstance(family, CompositeFamily) and isinstance(distribution, Composite):
        for key, part in family.parts.items():
            yield from _greedy(part, distribution.parts[key])
    else:
        yield family.for_env(distribution.mode()).to(getattr(torch, np.dtype(family.space.dtype).name))


def export_policy(network: ActorCritic, path: Path) -> None:
    """Write the greedy policy as an ONNX graph.

    Args:
        network: the policy.
        path: the file, in a folder that exists.

    Raises:
        ExportError: what is needed is not installed, or the network does what ONNX has no operators for.
        OSError: the file cannot be written.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(f"export: {' and '.join(missing)} must be installed: pip install 'a3c[onnx]'")
    try:
        with evaluating(network), _quiet():
            program = _traced(GreedyPolicy(network).eval())
    except Exception as error:  # the exporter, and a network of one's own, may raise whatever they like
        words = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"export: {type(network).__name__} is no ONNX graph: {words[0]}") from error
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        program.save(temporary, external_data=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _traced(policy: GreedyPolicy) -> torch.onnx.ONNXProgram:
    examples = policy.examples()
    program = torch.onnx.export(
        policy,
        examples,
        input_names=policy.input_names,
        output_names=policy.output_names,
        opset_version=OPSET,
        dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in examples),),
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "which is what dynamo gives"
    for given in program.model.graph.inputs:
        if given.shape is None or isinstance(given.shape[0], int):  # of which the exporter says nothing
            raise ValueError(f"it fixes the number of rows of {given.name}, as len(tensor) does; shape[0] does not")
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from warning of what nobody asked it for, such as torchvision."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
