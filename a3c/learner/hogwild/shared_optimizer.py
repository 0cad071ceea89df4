"""An optimizer whose statistics lie in shared memory, so that workers step and the parent saves.

Statistics of RMSprop shared by all workers are the paper's Shared RMSProp: Mnih et al. (2016),
arXiv:1602.01783, section 4.
"""

from __future__ import annotations

import copy
import pickle
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cloudpickle
import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adam, Adamax, AdamW, Optimizer, RAdam, RMSprop

from a3c.rollouts.workers.shared_memory import Field, SharedBlock, layout

STEP = "step"  # torch's key for the number of steps made, in the optimizers that count them
SHAREABLE = (Adadelta, Adam, Adamax, AdamW, RAdam, RMSprop, SGD)  # their statistics all begin at 0


class SharedOptimizer:
    """One optimizer, with its statistics in shared memory; it pickles to workers by handle.

    Args:
        optimizer: the parent's; its statistics are moved, those it has (of a checkpoint) are kept.
        parameters: all parameters of the network, in its order; the optimizer may have them in
            another order, and need not have them all.

    Raises:
        ValueError: workers cannot share the optimizer's statistics.
    """

    def __init__(self, optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
        check_shareable(optimizer)
        _complete_statistics(optimizer)
        places = {id(parameter): place for place, parameter in enumerate(parameters)}
        states = {
            places[id(parameter)]: optimizer.state[parameter]
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        fields = _fields(states)
        self._block = SharedBlock(list(fields.values()))
        for (place, key), field in fields.items():
            self._block.views[field.name].copy_(states[place][key])
            states[place][key] = self._block.views[field.name]
        self._skeleton = _without_tensors(optimizer, places, states)

    def attach(self, parameters: Sequence[Tensor]) -> Optimizer:
        """Return an optimizer over other parameters, on the shared statistics.

        Args:
            parameters: of the network's shapes, in its order.
        """
        optimizer: Optimizer = pickle.loads(self._skeleton)
        for group in optimizer.param_groups:
            group["params"] = [parameters[place] for place in group["params"]]
        plain: dict[Any, dict[str, Any]] = dict(optimizer.state)
        optimizer.state = defaultdict(dict, {parameters[place]: dict(state) for place, state in plain.items()})
        for name, view in self._block.views.items():
            place, _, key = name.partition(".")
            optimizer.state[parameters[int(place)]][key] = view
        return optimizer


def _fields(states: Mapping[int, Mapping[str, Any]]) -> dict[tuple[int, str], Field]:
    return {
        (place, key): Field(f"{place}.{key}", value.shape, value.dtype)
        for place, state in states.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def statistics_nbytes(optimizer: Optimizer) -> int:
    """Return the bytes of shared memory that a shareable optimizer's statistics take; it is completed for that."""
    _complete_statistics(optimizer)
    states = dict(enumerate(optimizer.state.values()))
    return layout(list(_fields(states).values()))[1]


def _without_tensors(optimizer: Optimizer, places: Mapping[int, int], states: Mapping[int, dict[str, Any]]) -> bytes:
    """Pickle an optimizer with its parameters replaced by their places, and no tensor among its statistics."""
    skeleton = copy.copy(optimizer)
    skeleton.param_groups = [
        {**group, "params": [places[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    plain = {
        place: {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        for place, state in states.items()
    }
    skeleton.state = defaultdict(dict, plain)  # type: ignore[arg-type]
    content: bytes = cloudpickle.dumps(skeleton)
    return content


def check_shareable(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose statistics cannot be set up before its first step.

    Raises:
        ValueError: it is none of `SHAREABLE`, or one of them with options or attributes of its own
            that do not allow it.
    """
    name = type(optimizer).__name__
    if not isinstance(optimizer, SHAREABLE):
        names = ", ".join(cls.__name__ for cls in SHAREABLE)
        raise ValueError(f"optimizer: got {name}, must be one whose statistics workers can share: {names}")
    if any(group.get("dampening") and group.get("momentum") for group in optimizer.param_groups):
        raise ValueError(f"optimizer: got {name} with dampening, must be without: torch's first step leaves it out")
    own = {key for key in vars(optimizer) if not key.startswith("_")} - {"defaults", "state", "param_groups"}
    if own:
        raise ValueError(
            f"optimizer: {name} has attributes {sorted(own)}, must have none of its own: they do not travel"
        )


def step_counts(optimizer: Optimizer) -> list[Tensor]:
    """Return the optimizer's numbers of steps made, a scalar tensor a parameter; empty if it counts none."""
    counts = [state.get(STEP) for state in optimizer.state.values()]
    return [count for count in counts if isinstance(count, Tensor)]


def detach_step_counts(optimizer: Optimizer) -> list[Tensor]:
    """Give the optimizer counts of its own instead of shared ones, and return them.

    Increments of one number by many processes without a lock get lost.
    """
    for state in optimizer.state.values():
        if isinstance(state.get(STEP), Tensor):
            state[STEP] = state[STEP].clone()
    return step_counts(optimizer)


def _complete_statistics(optimizer: Optimizer) -> None:
    """Give statistics of 0 to the parameters that have not been stepped yet."""
    twin = copy.deepcopy(optimizer)  # its parameters are copies too, and it has no hooks
    twin.state.clear()
    twins = [parameter for group in twin.param_groups for parameter in group["params"]]
    for parameter in twins:
        parameter.grad = torch.zeros_like(parameter)
    twin.step()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, other in zip(parameters, twins, strict=True):
        if not optimizer.state.get(parameter):
            optimizer.state[parameter] = twin.state[other]
            for statistic in twin.state[other].values():
                if isinstance(statistic, Tensor):
                    statistic.zero_()
