"""Runs the book's programs 5.1, 5.2, 5.3 and 5.10 on this project's own pieces, within seconds.

``python scripts/book_tour.py`` runs all four, ``python scripts/book_tour.py 5.3 5.10`` these two. The
others are the training itself: 5.4 to 5.8 ``scripts/train.py --config configs/book/full_episode.yaml``,
5.9 ``configs/book/n_step.yaml``.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from a3c.batch import BatchShape, empty_batch
from a3c.envs.spec import EnvSpec
from a3c.learner.objective import Objective
from a3c.networks import ActorCritic, Categorical, MLPActorCritic
from a3c.returns import NStep, discounted_sum
from a3c.rollouts.collector import Collector
from a3c.rollouts.weights import SharedWeights
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import WorkerContext

# Programs 5.1 and 5.2
NUMBERS = 64
PROCESSES = 8

# Program 5.3; γ is the book's
STATES = 4
LEFT, RIGHT = 0, 1
DISCOUNT = 0.9
CORRIDORS = 8  # stepped side by side
UPDATES = 300
LEARNING_RATE = 0.02
SEEDS = (1, 2, 3)

# Program 5.10
GAMES = ((1.0, 1.0, -1.0), (1.0, 1.0, 1.0))
GAMES_DISCOUNT = 0.99


class Part(NamedTuple):
    """What one process made of its share of the numbers.

    Attributes:
        worker: number of the process in its pool.
        pid: its process id.
        squares: of its numbers, in their order.
    """

    worker: int
    pid: int
    squares: list[int]


@dataclass(frozen=True)
class SquareTask:
    """Squares one share of the numbers in each worker.

    Attributes:
        shares: the numbers of each worker.
    """

    shares: Sequence[Sequence[int]]

    def __call__(self, context: WorkerContext) -> None:
        context.ready()
        squares = [number**2 for number in self.shares[context.life.worker]]
        context.report(Part(context.life.worker, os.getpid(), squares), is_last=True)


def squares_by_arrival(numbers: Sequence[int], processes: int) -> Iterator[Part]:
    """Squares numbers, an equal share in each process; gives the parts in order of arrival.

    It reads while the processes run. The book joins them first, which never ends once a part is
    larger than a pipe holds: its sender waits for a reader, and the reader for the sender.
    """
    size = -(-len(numbers) // processes)
    pool = WorkerPool(SquareTask([numbers[size * i : size * (i + 1)] for i in range(processes)]), processes)
    pool.start()
    try:
        while not pool.exhausted:
            if (part := pool.get(timeout=1.0)) is not None:
                yield part
    finally:
        pool.close()


def squares_in_order(numbers: Sequence[int], processes: int) -> list[int]:
    """Squares numbers, an equal share in each process; gives the squares in order of the numbers."""
    parts = sorted(squares_by_arrival(numbers, processes), key=lambda part: part.worker)
    return [square for part in parts for square in part.squares]


class Corridor(gymnasium.Env[NDArray[np.float32], np.int64]):
    """A row of states with a wall at the left; the step out at the right gives 1 and terminates.

    Observations are one-hot, and 0 behind the exit. Every episode starts at the wall.
    """

    observation_space = spaces.Box(0, 1, (STATES,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._state = 0
        return self._observation(), {}

    def _observation(self) -> NDArray[np.float32]:
        return np.array([state == self._state for state in range(STATES)], np.float32)

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self._state = self._state + 1 if action == RIGHT else max(0, self._state - 1)
        terminated = self._state == STATES
        return self._observation(), float(terminated), terminated, False, {}


gymnasium.register("Corridor-v0", Corridor)  # type: ignore[arg-type]  # wants **kwargs, which swallow mistakes


class Predictions(NamedTuple):
    """What actor and critic say of the corridor's states.

    Attributes:
        right_probabilities: probability of the step to the right, [STATES].
        values: the critic's values, [STATES].
    """

    right_probabilities: Tensor
    values: Tensor


@torch.no_grad()
def predict(network: ActorCritic) -> Predictions:
    """Gives what a network says of every state of the corridor."""
    parameters, values = network(torch.eye(STATES))
    return Predictions(Categorical(parameters).log_probabilities[:, RIGHT].exp(), values)


def exact_values() -> Tensor:
    """Gives the values of going right always, [STATES]: γᵏ where k more steps lead to the last state."""
    return DISCOUNT ** torch.arange(STATES - 1, -1, -1)


def learn_corridor(seed: int, updates: int = UPDATES) -> tuple[Predictions, Predictions]:
    """Trains a one-step actor-critic in this process; gives its predictions before and after.

    Args:
        seed: of the network, the environments and the actions.
        updates: how many, each on one step in every corridor.
    """
    torch.manual_seed(seed)
    env = EnvSpec("Corridor-v0").make(CORRIDORS)
    network = MLPActorCritic(env.single_observation_space, env.single_action_space, hidden_sizes=(32,))
    weights = SharedWeights(network)
    collector = Collector(env, copy.deepcopy(network), weights, seed=seed)
    objective = Objective(NStep(1), discount=DISCOUNT)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    batch = empty_batch(BatchShape(1, CORRIDORS, (STATES,), torch.float32))
    before = predict(network)
    for _ in range(updates):
        collector.collect(batch)
        loss, _ = objective(network, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        weights.publish(network)
    collector.close()
    return before, predict(network)


def game_returns(bootstrap_value: float) -> Tensor:
    """Gives the returns of the games from each of their steps on, [T, B], B the games."""
    rewards = torch.tensor(GAMES, dtype=torch.float64).T
    discounts = torch.full_like(rewards, GAMES_DISCOUNT)
    return discounted_sum(rewards, discounts, torch.full_like(rewards[0], bootstrap_value))


def spaced(figures: Sequence[float], form: str) -> str:
    """Writes figures side by side."""
    return " ".join(format(figure, form) for figure in figures)


def program_5_1() -> Iterator[str]:
    """Tells of a pool that keeps the order of its inputs."""
    yield f"a pool of {PROCESSES} processes, results in the order of the inputs"
    squares = squares_in_order(range(NUMBERS), PROCESSES)
    yield f"The squares of 0 to {NUMBERS - 1}. Each process squares one row; whichever ends first, the rows are put"
    yield "back in the order of the numbers:"
    size = NUMBERS // PROCESSES
    for row in range(PROCESSES):
        yield "  " + spaced(squares[size * row : size * (row + 1)], "5d")


def program_5_2() -> Iterator[str]:
    """Tells of processes whose results are taken as they come."""
    yield f"{PROCESSES} processes and a queue, results in the order of arrival"
    yield "The same squares, each row as soon as it arrives. That is often the order in which the processes were"
    yield "started, but nothing promises it; so every part says who sent it:"
    yield "  arrival  process      pid  squares"
    for arrival, part in enumerate(squares_by_arrival(range(NUMBERS), PROCESSES), start=1):
        yield f"  {arrival:7d}  {part.worker:7d}  {part.pid:7d} {spaced(part.squares, '5d')}"


def program_5_3() -> Iterator[str]:
    """Tells of an actor-critic that learns to leave a corridor."""
    yield "the one-step actor-critic"
    yield f"A corridor of {STATES} states: left, or right towards the exit, which pays 1. The advantage of each step,"
    yield f"r + γ·V(next state) − V(state) with γ = {DISCOUNT}, teaches the actor; its square is the critic's loss."
    yield f"After {UPDATES} updates V is close to the exact γᵏ, k steps before the last, and the actor goes right:"
    yield f"{'V':>{16 + 7 * STATES}}{'probability of right':>{4 + 7 * STATES}}"
    states = spaced(range(STATES), "6d")
    yield f"  {'in state':15}{states}    {states}"
    yield _row("exact", Predictions(torch.ones(STATES), exact_values()))
    for seed in SEEDS:
        before, after = learn_corridor(seed)
        yield _row(f"seed {seed}, before", before)
        yield _row("        after", after)


def _row(name: str, predictions: Predictions) -> str:
    values, probabilities = predictions.values.tolist(), predictions.right_probabilities.tolist()
    return f"  {name:15}{spaced(values, '6.3f')}    {spaced(probabilities, '6.3f')}"


def program_5_10() -> Iterator[str]:
    """Tells what a bootstrap value does to returns."""
    yield "returns with and without bootstrapping"
    yield f"Two games of three steps, γ = {GAMES_DISCOUNT}. The book's loop leaves the first reward out: it prints the"
    yield "returns from step 1 on. A bootstrap value of 1 adds γ² to these, and γ³ to the whole returns:"
    yield "  rewards    bootstrap value  from step 1, the book's  from step 0, whole"
    for bootstrap_value in (0.0, 1.0):
        whole, book, _ = game_returns(bootstrap_value).tolist()
        for game, rewards in enumerate(GAMES):
            figures = f"{bootstrap_value:15g}  {book[game]:23.8g}  {whole[game]:18.8g}"
            yield f"  {spaced(rewards, '2g'):9}  {figures}"


PROGRAMS: dict[str, Callable[[], Iterator[str]]] = {
    "5.1": program_5_1,
    "5.2": program_5_2,
    "5.3": program_5_3,
    "5.10": program_5_10,
}


def _number(text: str) -> str:
    if text not in PROGRAMS:
        raise argparse.ArgumentTypeError(f"got {text!r}, must be one of {', '.join(PROGRAMS)}")
    return text


def main() -> None:
    """Runs the chosen programs."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,  # a mistake is explained in one line
    )
    parser.add_argument("program", nargs="*", type=_number, default=list(PROGRAMS), help=", ".join(PROGRAMS))
    torch.set_num_threads(1)
    for number in parser.parse_args().program:
        lines = PROGRAMS[number]()
        print(f"Program {number}: {next(lines)}", flush=True)
        for line in lines:
            print(line, flush=True)
        print()


if __name__ == "__main__":  # worker processes import this file again
    main()
