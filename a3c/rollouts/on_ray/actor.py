"""What runs as an actor: one collector, which gives rollouts back by value and exceptions as text."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import cloudpickle
import torch

from a3c.batch import BatchShape, empty_batch
from a3c.envs.watchdog import listen
from a3c.rollouts.collector import Collector, CollectorSpec, Life
from a3c.rollouts.on_ray.weights import HeldWeights

# Arrays from the object store are read and never written.
READ_ONLY = "The given NumPy array is not writable"


class StoppedError(Exception):
    """The pool has asked all workers to stop."""


class RayWorker:
    """A collector in a process of Ray's.

    Args:
        spec: the pickled `CollectorSpec`.
        life: whose it is.
        shape: of a rollout.
    """

    def __init__(self, spec: bytes, life: Life, shape: BatchShape) -> None:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", message=READ_ONLY)
        self._signs = 0
        self._finished = self._stopped = False
        self._error: tuple[str, str, bool] | None = None
        self._collector: Collector | None = None
        listen(self._give_sign)
        try:
            made: CollectorSpec = cloudpickle.loads(spec)
            assert isinstance(made.weights, HeldWeights), "it was pickled from those that are sent"
            self._weights = made.weights
            self._buffer = empty_batch(shape)
            self._collector = made.build(Life(*life), self._step)
        except BaseException as error:
            self._error = _said(error)

    def _give_sign(self) -> None:
        self._signs += 1

    def _step(self, written: int) -> None:
        if self._stopped:
            raise StoppedError
        self._give_sign()

    def stop(self) -> None:
        """End the rollout at hand; answered in a thread of its own."""
        self._stopped = True

    def ready(self) -> tuple[str, str, bool] | None:
        """Return what was raised in the set-up, if anything was."""
        return self._error

    def signs(self) -> int:
        """Return how often an environment has come back from a call; answered in a thread of its own."""
        return self._signs

    def collect(self, version: int, weights: Any) -> tuple[Any, ...] | None:
        """Collect a rollout with weights that came from the object store.

        Returns:
            ("rollout", its fields as arrays, its description), ("error", text, whether another worker would fail
            like it), or None where the episode budget is used up.
        """
        if self._finished or self._stopped or self._collector is None:
            return None
        try:
            self._weights.hold(version, weights)
            fragment = self._collector.collect(self._buffer)
        except StoppedError:
            return None
        except BaseException as error:
            return _said(error)
        self._finished = fragment.is_last
        return "rollout", [field.numpy() for field in self._buffer.first(fragment.length)], fragment

    def close(self) -> None:
        """Close the environments. Idempotent."""
        if self._collector is not None:
            self._collector.close()
            self._collector = None


def _said(error: BaseException) -> tuple[str, str, bool]:
    return "error", "".join(traceback.format_exception(error)), bool(getattr(error, "fatal", False))
