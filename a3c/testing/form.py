"""Checks of the form of what an estimator returns, and that it is a function of its arguments alone."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.returns import Targets
from a3c.testing.columns import Case
from a3c.testing.findings import difference, place
from a3c.testing.subject import Subject


def returns_targets(subject: Subject) -> str | None:
    """Advantages, value targets and, if it likes, weights, all of them [T, B]."""
    for case in subject.cases:
        returned = subject.call(case.copy())
        if not isinstance(returned, tuple) or len(returned) not in (2, 3):
            return f"it returned {_kind(returned)}, expected Targets(advantages, value_targets)"
        for name, tensor in zip(Targets._fields, returned, strict=False):
            if tensor is None and name == "weights":
                continue
            if not isinstance(tensor, Tensor):
                return f"{name} are {_kind(tensor)}, expected a tensor [T, B]"
            if tensor.shape != case.mask.shape:
                return _wrong_shape(name, tensor, case)
    return None


def keeps_the_dtype(subject: Subject) -> str | None:
    """The results are of the dtype that the values are of, be it of 32 or of 64 bits."""
    for case in (*subject.cases, *(case.doubled() for case in subject.cases)):
        for name, tensor in _named(subject.ask(case)):
            if tensor.dtype != case.values.dtype:
                expected = f"expected {case.values.dtype}, as of the values"
                return (
                    f"{name} are {tensor.dtype}, {expected}: make new tensors with values.new_zeros, torch.zeros_like"
                )
    return None


def is_finite(subject: Subject) -> str | None:
    """At real steps stand numbers, neither NaN nor infinite."""
    for case in subject.cases:
        for name, tensor in _named(subject.ask(case)):
            wrong = ~tensor.isfinite() & case.mask
            if wrong.any():
                t, column = wrong.nonzero()[0].tolist()
                columns = f"among {len(case.columns)} columns" if len(case.columns) > 1 else "the only column"
                got = f"{name} {place(case, t, column)}, {columns}: got {tensor[t, column].item()}"
                return f"{got}, expected a finite number. Likely cause: a division by 0, or statistics of one number"
    return None


def carries_no_gradient(subject: Subject) -> str | None:
    """No result leads back to the network, though values and log-probabilities do."""
    for case in subject.cases:
        shown = case.copy()
        for name in ("values", "log_probs"):
            shown = shown.put(name, shown.get(name).requires_grad_() * 1)
        with torch.enable_grad():
            returned = subject.call(shown)
        for name, tensor in _named(Targets(*returned)):
            if tensor.requires_grad:
                return (
                    f"{name} of the columns {list(case.columns)} carry a gradient. Likely cause: values or log_probs "
                    "are used as they come; begin with values = values.detach(), and log_probs likewise"
                )
    return None


def leaves_its_arguments_alone(subject: Subject) -> str | None:
    """Batch, values, log-probabilities and discounts are afterwards what they were."""
    for case in subject.cases:
        shown = case.copy()
        with torch.no_grad():
            subject.call(shown)
        for name in (*case.batch._fields, "values", "log_probs", "discounts"):
            if not torch.equal(case.get(name), shown.get(name)):
                return (
                    f"a call changed {name}, which others use as well. Likely cause: an operation in place "
                    "(x[...] = …, x += …, a method that ends in _); begin with a clone()"
                )
    return None


def is_deterministic(subject: Subject) -> str | None:
    """The same arguments give the same results, whatever else was asked before."""
    estimator = subject.fresh()
    for case in subject.cases:
        subject.ask(case, estimator)
    for case in subject.cases:
        found = difference(subject.ask(case), subject.ask(case, estimator), case.mask)
        if found is not None:
            return (
                f"asked after others, it gave something else: {found.within(case)}. Likely cause: random numbers, or "
                "something kept from call to call; statistics follow an update in take_in"
            )
    return None


def leaves_random_numbers_alone(subject: Subject) -> str | None:
    """A call neither draws from torch's random numbers nor seeds them, which the run's seed is for."""
    for case in subject.cases:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            before = torch.get_rng_state()
            subject.ask(case)
            if not torch.equal(before, torch.get_rng_state()):
                return "a call drew or seeded torch's random numbers, expected none: a torch.Generator of its own"
    return None


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"


def _wrong_shape(name: str, tensor: Tensor, case: Case) -> str:
    expected = tuple(case.mask.shape)
    text = f"{name} are {tuple(tensor.shape)}, expected [T, B] = {expected}"
    if tensor.shape == case.values.shape:
        return f"{text}. Likely cause: the values have a row more, of the last state; take values[:-1] or values[1:]"
    return text


def _named(targets: Targets) -> list[tuple[str, Tensor]]:
    return [(name, each) for name, each in zip(targets._fields, targets, strict=True) if each is not None]
