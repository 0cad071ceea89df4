"""A3C, the LightningModule: the learner in the Trainer."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Adam, Optimizer

from a3c.batch import RolloutBatch
from a3c.blueprint import describe
from a3c.networks.actor_critic import ActorCritic
from a3c.objective import Objective
from a3c.returns import ReturnEstimator
from a3c.rollouts.weights import SharedWeights


class A3C(LightningModule):
    """Advantage actor-critic on batches of rollouts.

    Mnih et al. (2016), Asynchronous Methods for Deep Reinforcement Learning, arXiv:1602.01783.

    Args:
        network: policy and value function.
        returns: return estimator; swapping it changes nothing else.
        optimizer: makes the optimizer from the parameters.
        discount: γ, in [0, 1].
        value_coefficient: weight of the value loss, ≥ 0.
        entropy_coefficient: weight of the entropy bonus, ≥ 0.
        reward_scale: factor on rewards before returns are estimated, > 0; 1 − γ keeps values of
            rewards around 1 within a critic's quick reach. Logged returns stay unscaled.
        value_loss: squared error or Huber loss.
        huber_delta: where the Huber loss turns linear, > 0.
        reduction: mean over real steps, or their sum.
        max_grad_norm: gradients are scaled down to this L2 norm, > 0; None for no clipping.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        network: ActorCritic,
        returns: ReturnEstimator,
        optimizer: OptimizerCallable = lambda params: Adam(params, lr=2e-3, fused=True),
        discount: float = 0.99,
        value_coefficient: float = 0.5,
        entropy_coefficient: float = 0.0,
        reward_scale: float = 1.0,
        value_loss: Literal["squared_error", "huber"] = "squared_error",
        huber_delta: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        max_grad_norm: float | None = 0.5,
    ) -> None:
        super().__init__()
        if max_grad_norm is not None and not (max_grad_norm > 0 and math.isfinite(max_grad_norm)):
            raise ValueError(f"max_grad_norm: got {max_grad_norm}, must be above 0 and finite, or null")
        self.optimizer_name = _check_optimizer(optimizer, network)
        try:
            describe(network), describe(returns)
        except TypeError as error:  # said now, not when the first checkpoint is saved
            raise ValueError(str(error)) from error
        self.network = network
        self.returns = returns
        self.objective = Objective(
            returns,
            discount,
            value_coefficient,
            entropy_coefficient,
            reward_scale,
            value_loss,
            huber_delta,
            reduction,
        )
        self.max_grad_norm = max_grad_norm
        self.make_optimizer = optimizer
        self.weights: SharedWeights | None = None  # set by the data module when a fit begins
        self.updates = 0
        self.lag_sum = 0.0  # of each update's mean lag, since the run began
        self.lag_max = 0
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self.latest: dict[str, float] = {}  # what was logged last, for the progress bar

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(self.network.parameters())

    def training_step(self, batch: RolloutBatch, batch_index: int) -> Tensor:
        loss, metrics = self.objective(self.network, batch)
        self._add_lag(batch, metrics)
        # self.log takes 0.3 ms a key and step: sums are kept here and given on every k updates.
        for key, value in metrics.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value
        self._summed += 1
        return loss

    def _add_lag(self, batch: RolloutBatch, metrics: dict[str, Tensor]) -> None:
        """Measures how many updates old the weights were that a column's first step acted with."""
        if self.weights is None:
            return
        lags = self.weights.version - batch.policy_versions[0]
        mean, largest = lags.float().mean(), int(lags.max())
        metrics["lag/policy_versions"] = mean
        self.lag_sum += float(mean)
        self.lag_max = max(self.lag_max, largest)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.max_grad_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm, foreach=True)
            self._sums["gradient/norm"] = self._sums.get("gradient/norm", torch.zeros(())) + norm.detach()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.updates += 1
        if self.weights is not None:
            self.weights.publish(self.network)  # before any callback: workers wait for nothing else

    def on_train_batch_end(self, outputs: Any, batch: RolloutBatch, batch_index: int) -> None:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.updates % every == 0 or self.trainer.should_stop:
            self.flush_metrics()
        if self.trainer.should_stop:
            self._data.progress.clock.stop()

    def flush_metrics(self) -> None:
        """Logs the means since the last flush, with the counters, against env steps."""
        if not self._summed:
            return
        keys = list(self._sums)
        means = (torch.stack([self._sums[key] for key in keys]) / self._summed).tolist()
        self._sums, self._summed = {}, 0
        metrics = dict(zip(keys, means, strict=True))
        metrics["time/env_steps_per_second"] = self._data.progress.take_rate()
        self.log_now(metrics)

    def log_now(self, metrics: dict[str, float]) -> None:
        """Logs metrics at once, beside the run's counters, to every logger."""
        row = {**metrics, "updates": float(self.updates), **self._data.progress.metrics()}
        self.latest.update(row)
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self.updates)

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["a3c"] = {
            "network": describe(self.network),
            "returns": describe(self.returns),
            "env": describe(self._data.env),
            "optimizer": self.optimizer_name,
            "updates": self.updates,
            "lag_sum": self.lag_sum,
            "lag_max": self.lag_max,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["a3c"]
        self.updates, self.lag_sum, self.lag_max = saved["updates"], saved["lag_sum"], saved["lag_max"]


def _check_optimizer(make: OptimizerCallable, network: ActorCritic) -> str:
    """Refuses, before a run begins, what the optimizer's constructor would refuse in it; gives its name."""
    try:
        optimizer = make(network.parameters())
    except (ValueError, TypeError) as error:
        raise ValueError(f"optimizer: {error}") from error
    rates = [group["lr"] for group in optimizer.param_groups]
    if not all(math.isfinite(rate) for rate in rates):
        raise ValueError(f"optimizer: got lr {rates[0]}, must be finite")
    return type(optimizer).__name__
