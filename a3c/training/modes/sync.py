"""Mode sync: one collector in this process."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

from a3c.batch import BatchShape, empty_batch
from a3c.envs.watchdog import StepWatch
from a3c.peers.agreement import size
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.inline import InlineSource
from a3c.rollouts.workers.failures import RestartPolicy
from a3c.rollouts.workers.resources import Demand
from a3c.training.modes.base import Learner, Sizes, Stopping
from a3c.training.modes.trainer_learns import TrainerLearns
from a3c.training.options import Collection, Workers

log = logging.getLogger(__name__)


class Sync(TrainerLearns):
    """One collector in this process, never stale, reproducible bit for bit; no worker is started."""

    name = "sync"

    def __init__(
        self, collection: Collection, workers: int | None = None, supervision: RestartPolicy | None = None
    ) -> None:
        super().__init__(collection, 1, supervision)

    @classmethod
    def collecting(cls, workers: Workers = None) -> int:
        return 1

    @classmethod
    def shared_out(cls, envs_per_worker: int, rollouts_per_update: int) -> Sizes:
        return Sizes(1, envs_per_worker, rollouts_per_update)

    def begin(self) -> None:
        super().begin()
        self._origin: dict[str, Any] = {}  # of what a checkpoint carries, where only the same can go on

    def _make_source(self, spec: CollectorSpec, shape: BatchShape, stopping: Stopping) -> InlineSource:
        buffers = [empty_batch(shape) for _ in range(self.collection.rollouts_per_update)]
        watch = StepWatch(self.supervision.timeout or math.inf, f"{self.collection.env.name} in this process")

        def beat(_: int) -> None:
            watch.beat()

        return InlineSource(spec, buffers, on_begin=beat, on_step=beat, keeps_state=True, watch=watch)

    def _carry_on(self, learner: Learner) -> dict[str, Any] | None:
        """Return the rollouts and environments of a checkpoint; None, with a warning, if they cannot go on here."""
        collection, returns = self.collection, learner.learning.objective.returns
        self._origin = {
            "mode": self.name,
            "env": repr(collection.env),
            "envs_per_worker": collection.envs_per_worker,
            "horizon": returns.horizon,
            "end_at_episode": returns.end_at_episode,
            "inject_lag": collection.inject_lag,
            "seed": collection.seed,
            "learners": size(),
        }
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            return None
        carried: dict[str, Any] = checkpoint.get("collection", {"origin": {"mode": "async or hogwild"}})
        reason = _why_not_from(carried, self._origin)
        if reason is None:
            return carried
        log.warning(
            "%s: %s; its environments start anew, and the resumed run is not bit-equal to one that was never "
            "interrupted",
            collection.env.name,
            reason,
        )
        return None

    def _load(self, carried: dict[str, Any]) -> None:
        assert isinstance(self.source, InlineSource), "made before"
        assert self._dataset is not None, "made before"
        self.source.load_state_dict(carried["source"])
        self._dataset.load_state_dict(carried["dataset"])

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if size() > 1:
            state["collection"] = {"origin": self._origin, "source": {"lost": "each of several learners had its own"}}
        elif self._dataset is not None and isinstance(self.source, InlineSource):
            state["collection"] = {
                "origin": self._origin,
                "source": self.source.state_dict(),
                "dataset": self._dataset.state_dict(),
            }
        return state

    def demand(self, learner: Learner) -> Demand:
        fragment = self._fragment_shape(learner).nbytes
        demand = super().demand(learner)
        own = demand.rollouts + self.collection.rollouts_per_update * fragment
        return replace(demand, workers=0, slots=0, rollouts=own)


def _why_not_from(carried: dict[str, Any], origin: dict[str, Any]) -> str | None:
    """Explain why a run of this origin cannot go on with the environments of a checkpoint; None if it can."""
    before = {"learners": 1, **carried["origin"]}
    differing = [name for name, ours in origin.items() if before.get(name, ours) != ours]
    if differing:
        theirs = ", ".join(f"{name} {before[name]}" for name in differing)
        return f"the checkpoint is of a run with {theirs}"
    lost: str | None = carried["source"].get("lost") or carried["dataset"].get("lost")
    return lost
