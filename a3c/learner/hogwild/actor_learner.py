"""The learner in a worker: gradients of its own rollouts, stepped on the shared weights without a lock.

Mnih et al. (2016), Asynchronous Methods for Deep Reinforcement Learning, arXiv:1602.01783, alg. S3.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from a3c.batch import Episode, RolloutBatch
from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.reports import UpdateReport
from a3c.learner.hogwild.shared_optimizer import SharedOptimizer, detach_step_counts
from a3c.learner.hogwild.tally import Tally
from a3c.learner.learning import Learning
from a3c.learner.metrics import MetricSums, column_lags, mean_lag
from a3c.learner.reuse import GradientStep
from a3c.networks.actor_critic import ActorCritic
from a3c.rollouts.collector import CollectorSpec
from a3c.rollouts.dataset import Batching, RolloutDataset
from a3c.rollouts.inline import InlineSource
from a3c.rollouts.progress import Progress
from a3c.rollouts.workers.process import WorkerContext

REPORT_SECONDS = 0.05  # between two reports of a worker; each costs the parent about a millisecond


@dataclass(frozen=True)
class UpdateRule:
    """How a batch becomes a step on the shared weights.

    Attributes:
        learning: the loss and the rules of a step, the same as in every other mode.
        weights: the shared parameters.
        tally: counts updates and steps.
        max_lag: a batch is dropped if others have made more updates since its weights were
            pulled; None for no limit.
        steps_before: gradient steps that the optimizer had counted before, where all workers share one;
            None where each has its own.
        seed: of minibatches, together with the worker's number and its update's.
    """

    learning: Learning
    weights: LiveWeights
    tally: Tally
    max_lag: int | None = None
    steps_before: int | None = None
    seed: int = 0


class ActorLearner:
    """One worker's updates.

    Args:
        worker: number of the worker.
        network: the worker's own copy, with which it also acts.
        rule: how it learns.
        optimizer: over the shared parameters.
        should_stop: asked between steps, and while it is held.
    """

    def __init__(
        self,
        worker: int,
        network: ActorCritic,
        rule: UpdateRule,
        optimizer: SharedOptimizer,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._worker = worker
        self._network = network
        self._rule = rule
        self._should_stop = should_stop
        self.optimizer = optimizer.attach(rule.weights.parameters)
        self._counts = [] if rule.steps_before is None else detach_step_counts(self.optimizer)
        self._guard = rule.learning.make_guard()
        self._acted = -1  # version of the last update's newest fragment
        self.sums = MetricSums()
        self.lags: Counter[int] = Counter()

    def update(self, batch: RolloutBatch, version: int) -> None:
        """Make one update from a batch; none if it is too old by then or not finite, or on a request to stop.

        Where a later step of an update is not finite, or there is a request to stop, the ones before it have been
        made: the update ends there.

        Args:
            batch: transitions.
            version: of the weights that acted in the newest fragment.

        Raises:
            TrainingDivergedError: too many updates in a row had a loss or gradient that was not finite.
        """
        rule, tally, worker = self._rule, self._rule.tally, self._worker
        if version == self._acted:  # nothing was pulled since our own last update, which is not in it yet
            rule.weights.pull(self._network)
        self._acted = version
        env_steps, steps, rates = tally.env_steps, int(batch.mask.sum()), rule.learning.rates
        made: list[GradientStep] = []
        norms: list[Tensor] = []
        lags = Counter[int]()
        seed = (rule.seed, tally.updates, worker) if worker else (rule.seed, tally.updates)  # a single one's are sync's
        is_finite = True
        for step in rule.learning.gradient_steps(self._network, batch, env_steps, seed):
            self._network.zero_grad()
            step.loss.backward()  # type: ignore[no-untyped-call]
            norm = self._guard.admit(self._network, [step.loss.detach()])
            is_finite = norm is not None
            if norm is None or not tally.enter_step(worker, self._should_stop):
                break
            try:
                lags = lags or column_lags(tally.updates, batch.policy_versions)
                if not made and rule.max_lag is not None and max(lags) > rule.max_lag:
                    tally.add(worker, dropped=steps)
                    return
                rates.set_learning_rates(self.optimizer, env_steps)
                self._step()
                norms.append(norm)
                made.append(step)
                if step.is_last:
                    self._conclude(made, norms, lags)
                    self._guard.begin()
                    return
            finally:
                tally.leave_step(worker)
            if self._should_stop():
                break
            rule.weights.pull(self._network)
        if made:  # it ended before its last step
            tally.enter_step(worker, self._should_stop)  # told to stop or not, what was made is counted
            self._conclude(made, norms, lags)
            tally.leave_step(worker)
        if is_finite:
            self._guard.begin()
        else:
            tally.add(worker, skipped=1, rejected=0 if made else steps)
            rule.weights.pull(self._network)  # buffers, which the forward pass may have changed
            self._guard.skip(f"worker {worker}: ")

    def _step(self) -> None:
        """Step the shared parameters in place.

        Accepted race: other workers step them, and shared statistics, at the same time. Single
        numbers are written whole, so what is lost is at most one of two steps on some of them.
        """
        rule = self._rule
        for shared, ours in zip(rule.weights.parameters, self._network.parameters(), strict=True):
            shared.grad = ours.grad  # this step's: zero_grad makes it None, backward a new tensor
        if rule.steps_before is not None:
            for count in self._counts:  # exact, where lock-free increments of one number would get lost
                count.fill_(rule.steps_before + rule.tally.total("gradient_steps"))
        self.optimizer.step()
        rule.tally.add(self._worker, gradient_steps=1)

    def _conclude(self, made: Sequence[GradientStep], norms: Sequence[Tensor], lags: Counter[int]) -> None:
        """Count an update, and have the statistics follow it.

        Of the network's own statistics what others have added since our last pull is lost, as the last writer
        wins; they are estimates from a part of all steps then, and fall back by a rollout at most. An estimator's
        are shared, so of two that follow at the same moment one may be lost.
        """
        estimation = made[0].estimation
        self._rule.learning.objective.take_in(self._network, estimation)
        self._rule.weights.write_buffers(self._network)
        self._rule.tally.add(self._worker, updates=1, trained=int(estimation.batch.mask.sum()))
        for metrics in self._rule.learning.metrics(made):
            self.sums.add(metrics)
        self.sums.add(
            {"gradient/norm": torch.stack(list(norms)).mean(), "lag/policy_versions": torch.tensor(mean_lag(lags))}
        )
        self.sums.updates += 1
        self.lags.update(lags)


class _WorkerProgress(Progress):
    """Keeps the episodes for the next report."""

    def __init__(self) -> None:
        super().__init__()
        self.unreported: list[Episode] = []
        self._counted = (0, 0)  # env steps collected, and discarded, that the tally knows of

    def add_episodes(self, episodes: list[Episode]) -> None:
        self.unreported += episodes

    def count_into(self, tally: Tally, worker: int) -> None:
        """Add to the tally what was collected since the last time."""
        collected, discarded = self._counted
        self._counted = self.collected, self.dropped["bad_values"]
        tally.add(worker, collected=self.collected - collected, discarded=self.dropped["bad_values"] - discarded)


@dataclass(frozen=True)
class ActorLearnerTask:
    """Collects and learns until the budget of all workers, or its own in episodes, is used up.

    Attributes:
        collector: builds the worker's collector.
        batching: how its rollouts become batches; the budget is that of all workers together.
        rule: how it learns.
        optimizers: one for each worker, or one for all.
    """

    collector: CollectorSpec
    batching: Batching
    rule: UpdateRule
    optimizers: list[SharedOptimizer]

    def __call__(self, context: WorkerContext) -> None:
        tally, worker = self.rule.tally, context.life.worker

        heartbeat = context.heartbeat

        def held_up() -> bool:
            heartbeat.beat()  # who waits while the workers are held is alive
            return context.stopped

        def should_stop() -> bool:
            budget = self.batching.max_env_steps
            return context.stopped or (budget is not None and tally.env_steps >= budget)

        progress = _WorkerProgress()

        def begin(slot: int) -> None:
            progress.count_into(tally, worker)  # from here on the heartbeat speaks of another fragment
            heartbeat.begin(slot)

        source = InlineSource(self.collector, context.slots, context.life, begin, heartbeat.step)
        source.start()
        assert source.collector is not None, "it has just been started"
        collector = source.collector
        optimizer = self.optimizers[worker % len(self.optimizers)]
        learner = ActorLearner(worker, collector.network, self.rule, optimizer, held_up)
        # Budget and lag are looked at here and in the learner, where all workers' counts are known.
        batching = self.batching._replace(max_env_steps=None, max_lag=None)
        updates = RolloutDataset(source, progress, batching, should_stop=should_stop)
        context.ready()
        tally.wait_for_release(held_up)
        reported = time.monotonic()
        for batch in updates:
            progress.count_into(tally, worker)
            heartbeat.end()
            learner.update(batch, collector.version)
            heartbeat.beat()
            if time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                self._report(context, learner, progress, is_last=False)
        progress.count_into(tally, worker)
        self._report(context, learner, progress, is_last=True)

    @staticmethod
    def _report(context: WorkerContext, learner: ActorLearner, progress: _WorkerProgress, is_last: bool) -> None:
        sums, updates = learner.sums.take()
        lags, learner.lags = dict(learner.lags), Counter()
        episodes, progress.unreported = progress.unreported, []
        context.heartbeat.count_episodes(len(episodes))
        context.report(UpdateReport(context.life.worker, updates, sums, lags, episodes, is_last), is_last)
