"""The parent's side of workers that learn: what it shares with them, and how it takes over what they made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from torch.optim import Optimizer

from a3c.learner.hogwild.actor_learner import UpdateRule
from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.shared_optimizer import SharedOptimizer, step_counts
from a3c.learner.hogwild.tally import Tally
from a3c.learner.learning import Learning
from a3c.networks.actor_critic import ActorCritic

log = logging.getLogger(__name__)


class SharedLearning:
    """Puts the optimizers' statistics beside the shared weights, and keeps the parent's copies up to date.

    Made once the optimizers have their state, from a checkpoint or new.

    Args:
        network: the parent's, which no worker touches.
        optimizers: the parent's, one for all workers or one for each.
        weights: the shared weights.
        tally: counts what the workers do.

    Attributes:
        optimizers: what workers attach to.
    """

    def __init__(
        self,
        network: ActorCritic,
        optimizers: Sequence[Optimizer],
        weights: LiveWeights,
        tally: Tally,
    ) -> None:
        self._network = network
        self._weights = weights
        self._tally = tally
        self.optimizers = [SharedOptimizer(optimizer, network.parameters()) for optimizer in optimizers]
        # Shared by several, counts of steps would lose increments: they come from the tally. Each one's own are right.
        self._counts = step_counts(optimizers[0]) if len(optimizers) == 1 else []
        self._steps_before = int(max(self._counts, default=0))

    def rule(self, learning: Learning, max_lag: int | None, seed: int) -> UpdateRule:
        """Return the rule by which workers learn; an update with more lag is dropped."""
        steps_before = self._steps_before if learning.shared_optimizer else None
        return UpdateRule(learning, self._weights, self._tally, max_lag, steps_before, seed)

    @property
    def updates(self) -> int:
        """Updates that workers have made."""
        return self._weights.version

    @property
    def gradient_steps(self) -> int:
        """Gradient steps that workers have made."""
        return self._tally.total("gradient_steps")

    @property
    def skipped(self) -> int:
        """Updates that workers have skipped."""
        return self._tally.total("skipped")

    def hold(self, is_alive: Callable[[int], bool]) -> None:
        """Keep workers from changing anything until `release`, and take over what they made.

        Args:
            is_alive: whether a worker's process runs.
        """
        stuck = self._tally.hold(is_alive)
        if stuck:
            log.warning("workers %s did not leave their update: what is saved now may be torn", stuck)
        self.take_over()

    def take_over(self) -> None:
        """Copy the newest weights and counts into the parent's network and optimizers."""
        self._weights.pull(self._network)
        for count in self._counts:
            count.fill_(self._steps_before + self.gradient_steps)

    def release(self) -> None:
        """Let the workers go on."""
        self._tally.release()
