"""What is measured on the updates between two lines of the log, by one learner or by all of a run."""

from __future__ import annotations

from typing import Any

from torch import nn

from a3c.learner.metrics import LagRecord, MetricSums
from a3c.peers.agreement import LearnersDifferError, gather, rank


class LogWindow:
    """Sums of metrics since the last line of the log, and the run's record of lags.

    Attributes:
        sums: over updates.
        warm_up: over those that train on fresh rollouts although lag is to be injected.
        lags: since the run began.
    """

    def __init__(self) -> None:
        self.sums, self.warm_up = MetricSums(), MetricSums()
        self.lags = LagRecord()

    def share(self, network: nn.Module) -> None:
        """Have the next line speak of all learners.

        Args:
            network: of this one, whose weights are to be everyone's.

        Raises:
            LearnerLostError: one is gone.
            LearnersDifferError: they have come to different weights.
        """
        weights = sum(float(parameter.detach().double().sum()) for parameter in network.parameters())
        mine = (weights, self.sums.take(), self.warm_up.take(), self.lags.take_window())
        everyones = gather(mine)
        if len({repr(theirs[0]) for theirs in everyones}) > 1:
            raise LearnersDifferError(
                f"the learners of the run have come to different weights, of the sums {[one[0] for one in everyones]}; "
                "a callback or a network that changes them in one process only is a likely cause"
            )
        for _, (sums, _), (warm_up, _), _ in everyones:
            self.sums.add_sums(sums, 0)
            self.warm_up.add_sums(warm_up, 0)
        self.sums.updates, self.warm_up.updates = mine[1][1], mine[2][1]
        self.lags.join([theirs[3] for theirs in everyones], rank())

    def take_row(self) -> dict[str, Any]:
        """Return the means by key, with the lags, and begin anew; nothing, where there was no update."""
        row: dict[str, Any] = {f"warm_up/{key}": value for key, value in self.warm_up.take_means().items()}
        if self.sums.updates:
            row.update(self.sums.take_means())
            lags = self.lags.take_window()
            row["lag/largest"] = max(lags, default=0)
            row["lag/histogram"] = lags
        return row
