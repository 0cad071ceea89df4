"""How a fit comes to its end, on which all its learners agree."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerStatus

STOP = 1  # a wish without a signal; those of signals are their numbers, which are larger


class FitEnd:
    """Who wishes a fit to end, and whether it does.

    A wish is this learner's own, and may come from a signal handler at any moment. Between two updates all
    learners come to know each other's; only then the Trainer is told, as it would else leave the others waiting.

    Args:
        trainer: of the fit.

    Attributes:
        signal: number of the signal that some learner ends by; 0 for none.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._wish = 0
        self.signal = 0

    def stop(self) -> None:
        """Have the Trainer stop after the update at hand: all learners have agreed."""
        self._trainer.should_stop = True

    def interrupt(self, number: int) -> None:
        """Wish for an end because of a signal."""
        self._wish = max(self._wish, number)
        self._trainer.state.status = TrainerStatus.INTERRUPTED

    def should_stop(self) -> bool:
        """Return whether the fit is to stop, as far as this learner knows."""
        return self._wish > 0 or self._trainer.should_stop

    @property
    def wish(self) -> int:
        """What the others are to know: 0, 1 or the number of a signal."""
        return max(self._wish, STOP * self._trainer.should_stop)

    def agree(self, wishes: Sequence[int]) -> None:
        """Take in the wishes of all learners."""
        largest = max(wishes)
        if largest > 0:
            self._trainer.should_stop = True
        if largest > STOP:
            self.signal = largest
            self.interrupt(largest)
