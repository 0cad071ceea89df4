"""One collector in this process: the source of rollouts where nobody else collects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from a3c.batch import Lost, Rollout, RolloutBatch
from a3c.envs.random_states import global_states, set_global_states
from a3c.envs.state import EnvStateError
from a3c.envs.watchdog import StepWatch
from a3c.rollouts.collector import Collector, CollectorSpec, Life

log = logging.getLogger(__name__)


class InlineSource:
    """Collects only when asked, with the newest weights: nothing is ever stale.

    Args:
        spec: the collector to build.
        buffers: memory of the fragments that are read at the same time.
        life: whose collector it is; the first of worker 0 by default.
        on_begin: told in which buffer a fragment begins.
        on_step: told how many time steps stand in it.
        keeps_state: whether its state can still be asked for once it is closed.
        watch: breaks off an environment that hangs; None where another process looks.

    Attributes:
        collector: the collector, once started.
        exhausted: its episode budget is used up.
    """

    def __init__(
        self,
        spec: CollectorSpec,
        buffers: Sequence[RolloutBatch],
        life: Life | None = None,
        on_begin: Callable[[int], None] = lambda buffer: None,
        on_step: Callable[[int], None] = lambda written: None,
        keeps_state: bool = False,
        watch: StepWatch | None = None,
    ) -> None:
        self._spec = spec
        self._buffers = buffers
        self._free = list(range(len(buffers)))
        self._life = life or Life()
        self._on_begin, self._on_step = on_begin, on_step
        self._keeps_state = keeps_state
        self._watch = watch
        self._state: dict[str, Any] | None = None  # while there is no collector
        self._before: dict[str, Any] | None = None  # random states of this process, to be put back at the end
        self._collecting = False
        self.collector: Collector | None = None
        self.exhausted = spec.rules.max_episodes == 0

    def start(self) -> None:
        """Make the environments, and go on from the state that was loaded, if any. Idempotent.

        Raises:
            EnvStateError: the state is that of other environments.
        """
        if self.collector is None:
            if self._watch is not None:
                self._watch.__enter__()
            self._before = global_states()
            self.collector = self._spec.build(self._life, self._on_step)
            if self._state is not None and "collector" in self._state:
                self.collector.load_state_dict(self._state["collector"])
                set_global_states(self._state["random"])  # last of all: nothing else draws before training goes on
            self._state = None
            self._rest()

    def _rest(self) -> None:
        if self._watch is not None:
            self._watch.rest()

    def get(self, timeout: float) -> Rollout | Lost | None:
        """Collect the next rollout; never waits."""
        assert self.collector is not None, "start() comes first"
        place = self._free.pop()
        buffer = self._buffers[place]
        self._on_begin(place)
        self._collecting = True
        fragment = self.collector.collect(buffer)
        self._collecting = False
        self._rest()
        if fragment.discarded is not None:
            log.warning("a rollout is discarded: %s", fragment.discarded)
            self._free.append(place)
            return Lost(self._life.worker, buffer.real_steps(fragment.length), "bad_values")
        self.exhausted = fragment.is_last
        return Rollout(
            buffer.first(fragment.length),
            fragment.episodes,
            self._life.worker,
            fragment.is_last,
            lambda: self._free.append(place),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what another process goes on from: the collector's state and this process's random states.

        Once closed, those of that moment; before the start, what was loaded. Where there is nothing
        to go on from, the reason stands under "lost" instead.
        """
        if self.collector is None:
            return self._state or {"lost": "nothing was collected"}
        if self._collecting:
            return {"lost": "an exception ended the run in the middle of a rollout"}
        try:
            return {"collector": self.collector.state_dict(), "random": global_states()}
        except EnvStateError as error:
            return {"lost": str(error)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a state until the start, to go on from it then."""
        self._state = state

    def close(self) -> None:
        """Close the environments. Idempotent."""
        if self.collector is not None:
            if self._keeps_state:
                self._state = self.state_dict()
            if self._watch is not None:
                self._watch.beat()
            self.collector.close()
            self.collector, self._collecting = None, False
        if self._before is not None:
            set_global_states(self._before)
            self._before = None
        if self._watch is not None:
            self._watch.__exit__()
