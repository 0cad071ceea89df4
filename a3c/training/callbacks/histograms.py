"""Histograms of weights and gradients, for W&B alone."""

from __future__ import annotations

import numpy as np
import wandb
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from a3c.training.seams import module_of

BINS = 64


class Histograms(Callback):
    """Sends ``weights/NAME`` and ``gradients/NAME`` for every parameter, by its name in the network.

    Gradients are those of the whole loss before they are clipped, weights those that they belong to, before
    the step; of an update of several steps, the first one's. Numbers that are not finite are left out. Nothing of it
    goes to metrics.csv.

    Args:
        every_updates: updates from one set to the next, ≥ 1.
    """

    def __init__(self, every_updates: int) -> None:
        self.every_updates = every_updates
        self._sent_at: int | None = None  # updates

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = module_of(trainer)
        if module.updates % self.every_updates or module.updates == self._sent_at:
            return
        self._sent_at = module.updates
        rows = {}
        for name, parameter in module.network.named_parameters():
            for kind, numbers in (("weights", parameter), ("gradients", parameter.grad)):
                histogram = None if numbers is None else _histogram(numbers)
                if histogram is not None:
                    rows[f"{kind}/{name}"] = histogram
        module.log_media(rows)


def _histogram(numbers: Tensor) -> wandb.Histogram | None:
    """Return the histogram of the finite ones among some numbers; None if there are none, or no bins for them."""
    finite = numbers.detach()[numbers.detach().isfinite()]
    if not len(finite):
        return None
    try:  # in 64 bits, where the numbers of a network hardly ever lie too close together or too far apart
        return wandb.Histogram(np_histogram=np.histogram(finite.double().cpu().numpy(), bins=BINS))
    except ValueError:
        return None
