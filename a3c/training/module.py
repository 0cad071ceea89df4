"""A3C, the LightningModule: the learner in the Trainer."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Adam, Optimizer, SparseAdam

from a3c.batch import RolloutBatch
from a3c.learner.compiled import CompiledObjective
from a3c.learner.guard import TrainingDivergedError, put_back, state_of
from a3c.learner.hogwild.reports import UpdateReport
from a3c.learner.learning import Learning
from a3c.learner.log_window import LogWindow
from a3c.learner.metrics import LagRecord, column_lags, mean_lag
from a3c.learner.objective import Objective, Observer
from a3c.learner.reuse import GradientStep, Reuse
from a3c.learner.schedules import Rates, Schedule
from a3c.networks.actor_critic import ActorCritic
from a3c.networks.checks import check_network
from a3c.networks.normalisation import Normalisation
from a3c.peers.agreement import LearnerLostError, LearnersDifferError, exchange, gather, size, take_over
from a3c.peers.gradients import Share, join_gradients
from a3c.returns import ReturnEstimator
from a3c.runs.checkpoints import FORMAT
from a3c.runs.descriptions import describe
from a3c.runs.resume import changes
from a3c.training.modes import Mode
from a3c.training.options import check_counts
from a3c.training.seams import data_of, log_every

log = logging.getLogger(__name__)


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
        normalise_advantages: bring advantages to mean 0 and standard deviation 1 over the real steps of each
            batch, before the policy loss.
        normalise_observations: give the network every number of a Box, a pixel too, less its running mean and
            divided by its running standard deviation, over all steps trained on; in "hogwild" over a part of them.
        clip_observations: clip normalised observations to ±C, > 0; None for no clipping.
        popart: learn values in units of their targets' running mean and standard deviation (PopArt,
            arXiv:1602.07714), while the values themselves stay in units of reward. Of a network with a
            `critic_head`; not in "hogwild".
        popart_beta: step size of these two running averages, in (0, 1]; 3e-4 is that of arXiv:1809.04474.
        max_grad_norm: gradients are scaled down to this L2 norm, > 0; None for no clipping.
        lr_schedule: of the learning rate, over env steps; None keeps it as it is.
        entropy_schedule: of the entropy coefficient, over env steps; None keeps it as it is.
        shared_optimizer: where workers learn, one optimizer whose statistics they share, as in the
            paper; False gives each its own, as in the book. Elsewhere there is one anyway.
        max_skipped_updates: an update whose loss or gradient is not finite is skipped; more than so
            many in a row, ≥ 0, end the run.
        passes: over each batch, ≥ 1.
        minibatches: gradient steps of a pass, ≥ 1, each on an equal part of the batch: on whole columns where the
            network has a memory or rollouts are cut at episodes, on single steps elsewhere.
        ratio_clip: ε > 0 of PPO's clipped surrogate (arXiv:1707.06347) against the policy that acted; None for the
            plain policy gradient.
        target_kl: an update ends before a step, but its first, whose minibatch is further than so many nats, > 0, from
            the policy that it began with; None for no such end.
        recompute_targets: have the estimator look at the batch anew in each pass, with the values and ratios of then;
            False keeps what it said in the first.
        compile_objective: backend of torch.compile for the estimator and the losses, such as "inductor"; None for none.

    Attributes:
        observer: shown what the next losses are made from, where the Trainer makes the updates; it may
            not change anything.

    Raises:
        ValueError: a value outside its range, or a network that does not give what it must.
        RuntimeError: a method of the network raised; its own exception is the cause.
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
        normalise_advantages: bool = False,
        normalise_observations: bool = False,
        clip_observations: float | None = None,
        popart: bool = False,
        popart_beta: float = 3e-4,
        max_grad_norm: float | None = 0.5,
        lr_schedule: Schedule | None = None,
        entropy_schedule: Schedule | None = None,
        shared_optimizer: bool = True,
        max_skipped_updates: int = 10,
        passes: int = 1,
        minibatches: int = 1,
        ratio_clip: float | None = None,
        target_kl: float | None = None,
        recompute_targets: bool = False,
        compile_objective: str | None = None,
    ) -> None:
        super().__init__()
        if max_grad_norm is not None and not (max_grad_norm > 0 and math.isfinite(max_grad_norm)):
            raise ValueError(f"max_grad_norm: got {max_grad_norm}, must be above 0 and finite, or null")
        check_counts(0, max_skipped_updates=max_skipped_updates)
        probe = _check_optimizer(optimizer, network)
        self.optimizer_name = type(probe).__name__
        # As configured, of each group of parameters: a checkpoint has them as they are by then.
        self._optimizer_options = [_without_parameters(group) for group in probe.param_groups]
        try:
            describe(network), describe(returns)
        except TypeError as error:  # said now, not when the first checkpoint is saved
            raise ValueError(str(error)) from error
        check_network(network)
        self.normalisation = Normalisation(normalise_observations, clip_observations, popart, popart_beta)
        self.normalisation.attach(network)
        self.network = network
        self.returns = returns
        make = Objective if compile_objective is None else partial(CompiledObjective, backend=compile_objective)
        self.objective = make(
            returns,
            discount,
            value_coefficient,
            entropy_coefficient,
            reward_scale,
            value_loss,
            huber_delta,
            reduction,
            normalise_advantages,
            ratio_clip,
        )
        self.learning = Learning(
            self.objective,
            max_grad_norm=max_grad_norm,
            max_skipped=max_skipped_updates,
            shared_optimizer=shared_optimizer,
            reuse=Reuse(passes, minibatches, target_kl, recompute_targets),
        )
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.entropy_schedule = entropy_schedule
        self.observer: Observer | None = None
        self.updates = self.gradient_steps = 0
        self.latest: dict[str, Any] = {}  # what was logged last, for the progress bar
        self.window = LogWindow()
        self._guard = self.learning.make_guard()
        self._flushed_at = 0  # updates
        self._mode: Mode | None = None  # once a fit has begun
        self._is_broken_off = False

    @property
    def mode(self) -> Mode:
        """The update mode of the fit, and what it shares."""
        assert self._mode is not None, "a fit has begun"
        return self._mode

    def setup(self, stage: str) -> None:
        self._mode = mode = data_of(self.trainer).mode
        self.check_run(mode)
        self.automatic_optimization = False  # an update may be many steps; where workers learn it is none
        self.learning = replace(self.learning, rates=self._bind_schedules(mode.collection.max_env_steps))
        self._guard.begin()
        self._is_broken_off = False

    def check_run(self, mode: Mode) -> None:
        """Refuse schedules, networks and optimizers that a run cannot use.

        Raises:
            ValueError: the argument's name, what was given, what is allowed.
        """
        self._bind_schedules(mode.collection.max_env_steps)
        if isinstance(self.objective, CompiledObjective) and not mode.trainer_learns:
            raise ValueError(
                f"compile_objective: got {self.objective.backend} in mode {mode.name}, must be null there: each of its "
                "workers would compile by itself"
            )
        mode.check_network(self.network)
        mode.check_reuse(self.learning, self.network)
        mode.check_optimizer(self.make_optimizer(self.network.parameters()))

    @property
    def lags(self) -> LagRecord:
        """The run's record of lags."""
        return self.window.lags

    @property
    def acting_network(self) -> ActorCritic:
        """The network as it acts: on the CPU, and its weights those of the last update."""
        return self.network if self._mode is None else self._mode.acting(self.network)

    @property
    def attached_optimizers(self) -> Sequence[Optimizer]:
        """The optimizers of the fit, once they have their state."""
        return self.trainer.optimizers

    def _bind_schedules(self, max_env_steps: int | None) -> Rates:
        rates, entropy = None, None
        try:
            name = "lr_schedule"
            if self.lr_schedule is not None:
                rates = tuple(
                    self.lr_schedule.curve(options["lr"], max_env_steps) for options in self._optimizer_options
                )
            name = "entropy_schedule"
            if self.entropy_schedule is not None:
                entropy = self.entropy_schedule.curve(self.objective.entropy_coefficient, max_env_steps)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from error
        return Rates(rates, entropy)

    def optimizers_of(self, mode: Mode) -> int:
        """Return how many optimizers a run has: one, or one for each worker that learns."""
        return 1 if self.learning.shared_optimizer else max(1, mode.learners)

    def identity(self, mode: Mode) -> dict[str, Any]:
        """Describe what a run must share with a checkpoint in order to go on from it."""
        return {
            "env": describe(mode.collection.env),
            "network": describe(self.network),
            "returns": describe(self.returns),
            "optimizer": self.optimizer_name,
            "optimizers": self.optimizers_of(mode),
            # None for no, as checkpoints have it that know of neither
            "normalise_observations": self.normalisation.normalise_observations or None,
            "popart": self.normalisation.popart or None,
        }

    def configure_optimizers(self) -> list[Optimizer]:
        return [self.make_optimizer(self.network.parameters()) for _ in range(self.optimizers_of(self.mode))]

    def on_fit_start(self) -> None:
        self._begin_alike()
        self._agree()  # a callback may want no training at all
        if not self.returns.says_its_horizon:
            name = type(self.returns).__name__
            log.warning("model.returns: %s sets no horizon, so it is given whole episodes", name)

    def _begin_alike(self) -> None:
        """Have all learners begin with the first one's weights.

        Raises:
            LearnersDifferError: they go on from different checkpoints, or only some of them do.
        """
        begins = gather((self.updates, self.mode.progress.env_steps))
        if len(set(begins)) > 1:
            words = "; ".join(f"learner {number}: {updates} updates" for number, (updates, _) in enumerate(begins))
            raise LearnersDifferError(
                f"ckpt_path: the learners of the run begin at different points ({words}), must be the same"
            )
        take_over([*self.network.parameters(), *self.network.buffers()])

    def on_train_start(self) -> None:
        # For progress bars of Lightning's, to which the dataset's length, which is there for another reason, is none.
        self.trainer.fit_loop.max_batches = math.inf

    def training_step(self, batch: RolloutBatch | UpdateReport, batch_index: int) -> Tensor | None:
        """Learn from transitions, or take note of what workers report that learn by themselves."""
        if isinstance(batch, UpdateReport):
            self._watch(batch)
            return None
        return self._learn(batch)

    def _learn(self, batch: RolloutBatch) -> Tensor | None:
        """Make one update; return the loss of its last step, or None if it is skipped."""
        steps = int(batch.mask.sum())
        mode, optimizer = self.mode, self.optimizers()
        assert isinstance(optimizer, LightningOptimizer), "there is one where the Trainer makes the updates"
        env_steps = mode.progress.env_steps - steps  # those before this update
        self.learning.rates.set_learning_rates(optimizer.optimizer, env_steps)
        made: list[GradientStep] = []
        norms: list[Tensor] = []
        may_go_back = not self.learning.reuse.is_single or size() > 1
        before = (state_of(optimizer.optimizer), self.returns.state_dict()) if may_go_back else None
        seed = (mode.collection.seed, self.updates)
        try:
            for step in self.learning.gradient_steps(self.network, batch, env_steps, seed, self.observer):
                optimizer.zero_grad()
                self.manual_backward(step.loss)
                joint = self._join(step)
                norm = self._guard.admit(self.network, [joint.loss])
                if norm is None:
                    if before is not None:
                        put_back(optimizer.optimizer, before[0])
                    self._skip(steps)
                    return None
                if joint.is_empty and (made or not step.is_last):
                    continue
                optimizer.step()
                norms.append(norm)
                made.append(step)
                if joint.is_last and not step.is_last:
                    log.warning(
                        "the update ended after %d gradient steps of it; a run that goes on from here is not bit-equal "
                        "to one that was never interrupted",
                        len(made),
                    )
                    break
            self._conclude(made, norms, batch)
        except LearnerLostError:  # what is left is as it was before the update
            assert before is not None, "there are several"
            put_back(optimizer.optimizer, before[0])
            self.returns.load_state_dict(before[1])
            mode.progress.reject(mode.progress.update_steps)
            mode.restore(self.network)
            raise
        return made[-1].loss.detach()

    def _join(self, step: GradientStep) -> Share:
        """Make one gradient of those of all learners, and return what goes with it."""
        steps = int(step.trace.mask.sum()) if size() > 1 else 0
        mine = Share(step.loss.detach(), steps, self._is_broken_off)
        return join_gradients(self.network.parameters(), mine, self.objective.reduction == "mean")

    def break_off(self) -> None:
        """Have the update at hand end after the gradient step at hand; its steps so far count."""
        self._is_broken_off = True

    def _conclude(self, made: Sequence[GradientStep], norms: Sequence[Tensor], batch: RolloutBatch) -> None:
        """Count an update, and hand its weights on."""
        mode = self.mode
        self._guard.begin()
        self.objective.take_in(self.network, made[0].estimation)
        self.updates += 1
        self.gradient_steps += len(made)
        version = mode.version
        mode.publish(self.network)  # before any callback: workers wait for nothing else
        sums = self.window.warm_up if mode.warming_up else self.window.sums
        for metrics in self.learning.metrics(made):
            sums.add(metrics)
        sums.add({"gradient/norm": torch.stack(list(norms)).mean()})
        sums.updates += 1
        lags = column_lags(version, batch.policy_versions)
        sums.add({"lag/policy_versions": norms[0].new_tensor(mean_lag(lags))})
        if not mode.warming_up:
            self.lags.add(lags)

    def _watch(self, report: UpdateReport) -> None:
        self.window.sums.add_sums(report.sums, report.updates)
        self.lags.add(report.lags)
        self._take_counts()

    def _take_counts(self) -> None:
        if (made := self.mode.made) is not None:
            self.updates, self._guard.skipped, self.gradient_steps = made

    def _skip(self, env_steps: int) -> None:
        self.mode.progress.reject(env_steps)
        self.mode.restore(self.network)  # the weights of its earlier steps, and buffers that the forward pass changed
        try:
            self._guard.skip()
        except TrainingDivergedError:
            self.flush_metrics()
            raise

    @property
    def skipped_updates(self) -> int:
        """Updates skipped so far, since their loss or gradient was not finite."""
        return self._guard.skipped

    def hold(self) -> None:
        """Take over the newest weights, statistics and counters, and keep workers from changing them.

        Until the end of the batch at hand, so that an evaluation and the checkpoint of it speak of
        the same weights. Where the Trainer makes the updates there is nothing to do.
        """
        self.mode.hold()
        self._take_counts()

    def finish(self) -> None:
        """Stop the workers and take in what they have still to say. Idempotent."""
        for report in self.mode.finish():
            self._watch(report)
        self._take_counts()
        if size() == 1:  # several do so together, at the end of the epoch
            self.flush_metrics()

    def on_train_batch_end(self, outputs: Any, batch: RolloutBatch | UpdateReport, batch_index: int) -> None:
        self._agree()
        every = log_every(self.trainer)
        if self.updates // every > self._flushed_at // every or self.trainer.should_stop:
            self._share_metrics()
            self.flush_metrics()
        if self.trainer.should_stop:
            self.mode.progress.clock.stop()
        else:
            self.mode.release()

    def on_train_epoch_start(self) -> None:
        self._agree()  # callbacks have had their say

    def on_train_epoch_end(self) -> None:
        self._agree()  # in case a learner has been told to stop while it waited for rollouts
        if size() > 1:
            self._share_metrics()
            self.flush_metrics()

    def _agree(self) -> None:
        """Have all learners stop if one of them wishes it."""
        stopping = data_of(self.trainer).stopping
        stopping.agree([int(wish) for (wish,) in exchange([stopping.wish])])

    def on_train_end(self) -> None:
        self.finish()

    def _share_metrics(self) -> None:
        """Have the next line of the log speak of all learners."""
        if size() == 1:
            return
        self.window.share(self.network)
        self.mode.progress.share_episodes()

    def flush_metrics(self) -> None:
        """Log the means since the last flush, with the counters, against env steps."""
        self._flushed_at = self.updates
        row = self.window.take_row()
        if not row:
            return
        row.update(self.learning.rates.metrics(self.mode.progress.env_steps))
        row["time/env_steps_per_second"] = self.mode.progress.take_rate()
        self.log_now(row)

    def log_now(self, metrics: dict[str, Any]) -> None:
        """Log metrics at once, beside the run's counters, to every logger.

        Args:
            metrics: numbers by key, or counts by value (a histogram).
        """
        row = {
            **metrics,
            "updates": float(self.updates),
            "gradient_steps": float(self.gradient_steps),
            "guard/skipped_updates": float(self.skipped_updates),
        }
        row.update(self.mode.progress.metrics())
        self.latest.update(row)
        numbers = {key: value for key, value in row.items() if not isinstance(value, Mapping)}
        # What callbacks monitor.
        self.trainer.callback_metrics.update({key: torch.tensor(float(value)) for key, value in numbers.items()})
        for logger in self.trainer.loggers:
            logger.log_metrics(row if getattr(logger, "takes_counts", False) is True else numbers, step=self.updates)

    def log_media(self, rows: Mapping[str, Any]) -> None:
        """Log images, videos, tables or histograms by key, to the loggers that take them."""
        for logger in self.trainer.loggers:
            log_media: Callable[[Mapping[str, Any], int], None] | None = getattr(logger, "log_media", None)
            if log_media is not None:
                log_media(rows, self.mode.progress.env_steps)

    @property
    def settings(self) -> dict[str, Any]:
        """What a run may change when it goes on, and what then changes the meaning of its figures."""
        names = [field.name for field in fields(self.objective) if field.name not in ("returns", "backend")]
        of_optimizer = {
            f"optimizer.{key}" if len(self._optimizer_options) == 1 else f"optimizer.{number}.{key}": value
            for number, options in enumerate(self._optimizer_options)
            for key, value in options.items()
        }
        return {
            **{name: getattr(self.objective, name) for name in names},
            **asdict(self.learning.reuse),
            "max_grad_norm": self.learning.max_grad_norm,
            "clip_observations": self.normalisation.clip_observations,
            "popart_beta": self.normalisation.popart_beta,
            **of_optimizer,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.setdefault("a3c", {})  # callbacks have their say first
        statistics = self.mode.collection.env.statistics
        saved |= {
            **self.identity(self.mode),
            "format": FORMAT,
            "target_units": self.returns.target_units,
            "estimator_state": self.returns.state_dict(),
            "env_statistics": None if statistics is None else statistics.state_dict(),
            "settings": self.settings,
            "optimizer_options": self._optimizer_options,
            "env_steps": self.mode.progress.env_steps,
            "updates": self.updates,
            "gradient_steps": self.gradient_steps,
            "lags": self.lags.state_dict(),
            "skipped_updates": self.skipped_updates,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["a3c"]
        self.updates = self._flushed_at = saved["updates"]
        self.gradient_steps = saved["gradient_steps"]
        self.lags.load_state_dict(saved["lags"])
        self._guard.skipped = saved["skipped_updates"]
        self.returns.load_state_dict(saved["estimator_state"])
        if (statistics := self.mode.collection.env.statistics) is not None:
            statistics.load_state_dict(saved["env_statistics"])
        for change in changes(saved["settings"], self.settings):
            log.warning("%s", change)
        for state in checkpoint["optimizer_states"]:  # which Lightning loads after this
            for group, before, ours in zip(
                state["param_groups"], saved["optimizer_options"], self._optimizer_options, strict=True
            ):
                group.update({key: value for key, value in ours.items() if before.get(key, value) != value})


def _without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _check_optimizer(make: OptimizerCallable, network: ActorCritic) -> Optimizer:
    """Refuse, before a run begins, what the optimizer's constructor would refuse in it."""
    try:
        optimizer = make(network.parameters())
    except (ValueError, TypeError) as error:
        raise ValueError(f"optimizer: {error}") from error
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        name = type(optimizer).__name__
        raise ValueError(f"optimizer: got {name}, which asks for the loss many times a step; must ask for it once")
    if isinstance(optimizer, SparseAdam):
        raise ValueError("optimizer: got SparseAdam, must be one for gradients that are not sparse, such as Adam")
    rates = [group["lr"] for group in optimizer.param_groups]
    if not all(math.isfinite(rate) for rate in rates):
        raise ValueError(f"optimizer: got lr {rates[0]}, must be finite")
    return optimizer
