"""Where a step's time goes: parts of a collector's fragments and of a learner's updates, timed in place."""

from __future__ import annotations

import itertools
import logging
import pickle
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from a3c import A3C, Collector, MLPActorCritic, NStep, RolloutBatch, RolloutDataModule
from a3c.batch import BatchShape, empty_batch
from a3c.envs.checks import EnvCheck
from a3c.learner.guard import UpdateGuard
from a3c.rollouts.weights import SharedWeights
from a3c.rollouts.workers.heartbeat import Heartbeat
from a3c.training.cli.command import TRAINER_DEFAULTS

LENGTH, COLUMNS = 32, 64
WARM_UP = 20  # fragments or updates that are not counted

Record = dict[str, Any]


class Stopwatch:
    """Sums the seconds spent in chosen calls while the program runs as it always does.

    Parts timed one by one, in loops of their own, look faster than they are among the others.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Replaces a method by one that is timed; what is timed within it counts there only."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            inner_before = sum(self.seconds.values())
            started = time.perf_counter()
            result = method(*args, **kwargs)
            inner = sum(self.seconds.values()) - inner_before
            self.seconds[label] += time.perf_counter() - started - inner
            return result

        owner.__dict__[name] = timed

    def records(self, who: str, rest: str, whole: float, repetitions: int) -> Iterator[Record]:
        """Gives the parts, what remains of the whole, and the whole."""
        parts = {**self.seconds, rest: whole - sum(self.seconds.values()), "all": whole}
        for part, seconds in parts.items():
            yield {
                "part": "breakdown",
                "who": who,
                "of": part,
                "microseconds": round(seconds * 1e6 / repetitions, 1),
                "nanoseconds_a_step": round(seconds * 1e9 / (repetitions * LENGTH * COLUMNS), 1),
                "share": round(seconds / whole, 3),
            }


class Setting:
    """A collector, a batch of it, and the learner for it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.data = RolloutDataModule(envs_per_worker=COLUMNS, max_env_steps=10**12)
        self.network = MLPActorCritic(self.data.observation_space, self.data.action_space)
        self.weights = SharedWeights(self.network)
        actor = pickle.loads(pickle.dumps(self.network))
        self.collector = Collector(self.data.env.make(COLUMNS), actor, self.weights, seed=1)
        self.batch = empty_batch(BatchShape(LENGTH, COLUMNS, (4,), torch.float32))
        self.collector.collect(self.batch)
        self.module = A3C(self.network, NStep(LENGTH))


def worker(repetitions: int) -> Iterator[Record]:
    """Times fragments in the collector: 64 environments, 32 steps, new weights each."""
    setting, watch = Setting(), Stopwatch()
    collector = setting.collector

    def collect(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            setting.weights.publish(setting.network)
            collector.collect(setting.batch)
        return time.perf_counter() - started

    collect(WARM_UP)
    watch.wrap(collector.env, "step", "environment")
    watch.wrap(collector.network, "actor", "policy")
    watch.wrap(collector.weights, "pull", "pull")
    watch.wrap(collector, "_whole_episodes", "episode statistics")
    whole = collect(repetitions)
    yield from watch.records("worker", "sampling and writing", whole, repetitions)


def learner(repetitions: int) -> Iterator[Record]:
    """Times updates in the Trainer, on one batch over and over, without any collection."""
    setting, watch = Setting(), Stopwatch()
    module, data = setting.module, setting.data

    def loader() -> DataLoader[Any]:
        data.mode.weights = setting.weights
        return DataLoader(_Repeat(setting.batch), batch_size=None, collate_fn=lambda item: item)

    data.__dict__["train_dataloader"] = loader
    watch.wrap(module.network, "forward", "network")
    estimator = _Callable(module.returns)
    watch.wrap(estimator, "call", "estimator")
    object.__setattr__(module.objective, "returns", lambda *args: estimator.call(*args))
    watch.wrap(module, "training_step", "losses and metrics")
    watch.wrap(module, "backward", "backward")
    watch.wrap(module, "configure_gradient_clipping", "clipping")
    watch.wrap(setting.weights, "publish", "publish")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    stamps: list[float] = []
    on_train_batch_end = module.on_train_batch_end

    def stamped(*args: Any) -> None:
        on_train_batch_end(*args)
        stamps.append(time.perf_counter())
        if len(stamps) == WARM_UP:
            watch.seconds.clear()

    module.__dict__["on_train_batch_end"] = stamped
    Trainer(**{**TRAINER_DEFAULTS, "max_steps": repetitions + WARM_UP}).fit(module, data)
    yield from watch.records("learner", "optimizer and Trainer", stamps[-1] - stamps[WARM_UP - 1], repetitions)


def guards(repetitions: int) -> Iterator[Record]:
    """Compares CPU time with and without guards: of fragments, of updates, and of one after the other.

    Both turns have the same collector or learner: two alike differ by half a percent, for good, by
    where their memory happens to lie.
    """
    setting = Setting()
    fragments, update = _fragments(setting), _update(setting)
    yield compare("worker", "a fragment", *fragments, repetitions)
    for limit in (0.5, None):
        admit, clip = UpdateGuard(limit, 0).admit, partial(_clip, limit)
        updates = partial(update, admit), partial(update, clip)
        yield compare("learner", f"an update, max_grad_norm {limit}", *updates, repetitions)
        guarded, bare = (partial(_in_turn, *both) for both in zip(fragments, updates, strict=True))
        yield compare("both", f"a rollout, max_grad_norm {limit}", guarded, bare, repetitions)


def _in_turn(*calls: Callable[[], object]) -> None:
    for call in calls:
        call()


def compare(who: str, of: str, guarded: Callable[[], object], bare: Callable[[], object], repetitions: int) -> Record:
    """Gives the ratio of two programs' CPU time, from turns that follow each other.

    Args:
        who: runs them.
        of: what they have in common.
        guarded: does something once, with a guard.
        bare: does the same without.
        repetitions: pairs of turns, of one call each.
    """
    pairs = []
    for number in range(repetitions + WARM_UP):
        turns = {True: guarded, False: bare}
        seconds = {kind: _cpu_seconds(turns[kind]) for kind in (number % 2 == 0, number % 2 == 1)}
        pairs.append((seconds[True], seconds[False]))
    ratios = [one / other for one, other in pairs[WARM_UP:]]
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "part": "guards",
        "who": who,
        "of": of,
        "microseconds": round(statistics.median(one for one, _ in pairs[WARM_UP:]) * 1e6, 1),
        "ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "pairs": repetitions,
    }


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _fragments(setting: Setting) -> tuple[Callable[[], object], Callable[[], object]]:
    """Gives what collects one fragment, with checks and signs of life, and with neither."""
    collector, (heartbeat,) = setting.collector, Heartbeat.allocate(1)
    check, nothing = collector._check, collector._on_step

    def collect(check: Any, on_step: Callable[[int], None]) -> None:
        collector._check, collector._on_step = check, on_step
        collector.collect(setting.batch)

    return partial(collect, check, heartbeat.step), partial(collect, _NoCheck(check), nothing)


class _NoCheck:
    """Looks at nothing; the comparisons in the collector's loop stay, 0.1 μs a step."""

    def __init__(self, check: EnvCheck) -> None:
        self.shape, self.dtype, self.reward_shape = check.shape, check.dtype, check.reward_shape

    def shapes(self, observation: object, reward: object) -> None:
        """Passes."""

    def values(self, observations: object, rewards: object) -> None:
        """Passes."""


def _update(setting: Setting) -> Callable[[Callable[[nn.Module, list[Tensor]], object]], None]:
    """Gives what makes one update of a learner, clipped in the way that it is given."""
    network, objective = setting.network, setting.module.objective
    optimizer = setting.module.make_optimizer(network.parameters())

    def update(clip: Callable[[nn.Module, list[Tensor]], object]) -> None:
        loss, _ = objective(network, setting.batch)
        network.zero_grad()
        loss.backward()
        clip(network, [loss.detach()])
        optimizer.step()
        setting.weights.publish(network)

    return update


def _clip(limit: float | None, network: nn.Module, losses: list[Tensor]) -> None:
    if limit is not None:
        nn.utils.clip_grad_norm_(network.parameters(), limit, foreach=True)


class _Callable:
    """Gives a callable object a method that can be replaced."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class _Repeat(IterableDataset[RolloutBatch]):
    def __init__(self, batch: RolloutBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[RolloutBatch]:
        return itertools.repeat(self.batch)
