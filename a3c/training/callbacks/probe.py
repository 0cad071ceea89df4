"""Trains with one estimator, and compares all others with it on the same batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import wandb
from lightning.pytorch import Callback, LightningModule, Trainer

from a3c.batch import RolloutBatch
from a3c.learner.objective import Estimation
from a3c.returns import ReturnEstimator
from a3c.returns.labels import label_of
from a3c.rollouts.collector import LINEAGE
from a3c.training.module import A3C
from a3c.training.probe.measures import MEASURES, ask_all, compare, default_estimators, named
from a3c.training.probe.plan import ProbePlan
from a3c.training.probe.realised_returns import RealisedReturns, Resolved
from a3c.training.seams import module_of


class EstimatorProbe(Callback):
    """Logs ``probe/LABEL/MEASURE`` for a set of estimators, on batches that one of them trains with.

    All see the values and log-probabilities of the training step's own forward pass, before the update;
    weights, gradients, buffers and random states stay as they would be without the probe. Rewards are
    multiplied by the module's `reward_scale`, as in training, so targets and their bias are in scaled units.

    `a3c.training.probe.measures.compare` says what is measured at once. The bias, against the realised
    returns of `a3c.training.probe.realised_returns`, comes on a later line of the log, once the batch's
    episodes have ended, with the share of steps that it speaks of as ``probe/resolved``. It is a mean
    over those steps only, which are not a fair sample where time limits cut many of the episodes. A batch
    that is given up has none. Nor has an estimator whose `target_units` are its own, and while one of
    those trains no estimator has one, since the critic is in those units too. What waits is not kept
    in checkpoints: a run that is gone on with begins with an empty list.

    Does not work where workers learn by themselves, since the Trainer sees no batches there.

    Args:
        plan: what is compared, and how often; the usual estimators by default.
    """

    def __init__(self, plan: ProbePlan | None = None) -> None:
        self.plan = plan or ProbePlan()
        self._trained = ""
        self._estimators: dict[str, ReturnEstimator] = {}
        self._returns: RealisedReturns | None = None  # once a fit has begun
        self._probed_at: int | None = None  # updates
        self._row: dict[str, float] = {}  # of the update at hand
        self._resolved: list[Resolved] = []  # not logged yet
        self._means: dict[str, _Mean] = {}  # over the fit, of each key

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module = module_of(trainer)
        trained = module.returns
        wanted = default_estimators(trained) if self.plan.estimators is None else self.plan.parsed()
        self._trained, self._estimators = label_of(trained), named(wanted, trained)
        self._returns = RealisedReturns(module.objective.discount, LINEAGE)
        self._probed_at, self._means = None, {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: RolloutBatch, batch_idx: int
    ) -> None:
        module = module_of(trainer)
        updates = module.updates
        if updates % self.plan.every_updates or updates == self._probed_at or module.mode.warming_up:
            return
        self._probed_at = updates

        def observe(estimation: Estimation) -> None:
            self._measure(estimation, module)

        module.observer = observe

    def _measure(self, estimation: Estimation, module: A3C) -> None:
        assert self._returns is not None, "setup comes first"
        targets = ask_all(estimation, self._trained, self._estimators)
        for label, numbers in compare(estimation, targets, module.network).items():
            self._row.update({f"probe/{label}/{measure}": number for measure, number in numbers.items()})
        own_critic = self._estimators[self._trained].target_units == "own"
        value_targets = torch.stack(
            [
                torch.full_like(each.value_targets, torch.nan)
                if own_critic or self._estimators[label].target_units == "own"
                else each.value_targets
                for label, each in targets.items()
            ]
        )
        batch, discounts = estimation.batch.to("cpu"), estimation.discounts.cpu()
        self._resolved += self._returns.begin(batch, discounts, value_targets.cpu())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: RolloutBatch, batch_idx: int
    ) -> None:
        assert self._returns is not None, "setup comes first"
        module = module_of(trainer)
        if module.observer is None and not module.mode.warming_up:
            self._resolved += self._returns.follow(batch.to("cpu"), module.objective.reward_scale)
        module.observer = None
        if self._row or self._resolved:
            self._log(module)

    def _log(self, module: A3C) -> None:
        """Log what was measured now, and what has been resolved by now."""
        row, self._row = self._row, {}
        resolved, self._resolved = self._resolved, []
        self._log_row(module, row)
        for bias, share in resolved:
            biases = zip(self._estimators, bias.tolist(), strict=True)
            self._log_row(
                module, {"probe/resolved": share, **{f"probe/{label}/bias": number for label, number in biases}}, share
            )

    def _log_row(self, module: A3C, row: dict[str, float], share: float = 1.0) -> None:
        defined = {key: number for key, number in row.items() if math.isfinite(number)}
        if defined:
            for key, number in defined.items():
                self._means.setdefault(key, _Mean()).add(number, share if key.endswith("/bias") else 1.0)
            module.log_now(defined)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(module_of(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        module_of(trainer).observer = None
        self._finish(module_of(trainer))

    def _finish(self, module: A3C) -> None:
        if self._returns is None:
            return
        self._resolved += self._returns.close()
        self._returns = None
        self._log(module)
        columns, rows = self.table()
        if rows:
            module.log_media({"probe": wandb.Table(columns, rows)})

    def table(self) -> tuple[list[str | int], list[Sequence[Any]]]:
        """Return the means of all measures over the fit: column names, and a row for each estimator.

        A batch counts in the mean bias with the share of its steps that are resolved, and the mean of these
        shares, which is that of all estimators, comes last. A measure that was never defined is None.
        """
        rows: list[Sequence[Any]] = []
        for label in self._estimators if self._means else ():
            keys = [*(f"probe/{label}/{measure}" for measure in MEASURES), "probe/resolved"]
            means = [self._means[key].value if key in self._means else None for key in keys]
            rows.append([label, label == self._trained, *means])
        return ["estimator", "trains", *MEASURES, "resolved"], rows


class _Mean:
    """A weighted mean of numbers that come one after another."""

    def __init__(self) -> None:
        self._weight = self._sum = 0.0

    def add(self, number: float, weight: float) -> None:
        self._weight += weight
        self._sum += weight * number

    @property
    def value(self) -> float:
        return self._sum / self._weight
