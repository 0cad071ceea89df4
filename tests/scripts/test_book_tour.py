"""The book's programs on the project's own pieces give the book's figures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared_server import run_script

from a3c.returns import discounted_sum

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "book_tour.py"
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def tour():
    # Workers are told sys.path when they start, so that they find the module of their task.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        import book_tour

        yield book_tour


@pytest.fixture(scope="module")
def learned(tour):
    return [tour.learn_corridor(seed) for seed in SEEDS]


def run_tour(folder, *programs):
    return run_script([sys.executable, SCRIPT, *programs], folder, os.environ)


def test_5_1_the_squares_come_in_the_order_of_the_numbers(tour):
    assert tour.squares_in_order(range(64), processes=8) == [number * number for number in range(64)]


def test_5_1_the_order_is_not_that_of_arrival(tour, monkeypatch):
    backwards = [tour.Part(1, 0, [4, 9]), tour.Part(0, 0, [0, 1])]
    monkeypatch.setattr(tour, "squares_by_arrival", lambda numbers, processes: iter(backwards))
    assert tour.squares_in_order(range(4), processes=2) == [0, 1, 4, 9]


def test_5_2_every_part_arrives_once_and_names_its_sender(tour):
    parts = list(tour.squares_by_arrival(range(64), processes=8))
    assert sorted(part.worker for part in parts) == list(range(8))
    assert len({part.pid for part in parts} - {os.getpid()}) == 8
    for part in parts:
        assert part.squares == [number * number for number in range(8 * part.worker, 8 * part.worker + 8)]


def test_5_2_parts_larger_than_a_pipe_holds_arrive(tour):
    parts = tour.squares_by_arrival(range(100_000), processes=2)
    assert sorted(len(part.squares) for part in parts) == [50_000, 50_000]


def test_5_2_numbers_that_do_not_divide_evenly_are_all_squared(tour):
    parts = sorted(tour.squares_by_arrival(range(7), processes=3))
    assert [part.squares for part in parts] == [[0, 1, 4], [9, 16, 25], [36]]


def test_5_2_the_pool_is_closed_even_if_nobody_reads_on(tour, monkeypatch):
    pools = []

    class WatchedPool(tour.WorkerPool):
        def start(self):
            pools.append(self)
            super().start()

    monkeypatch.setattr(tour, "WorkerPool", WatchedPool)
    parts = tour.squares_by_arrival(range(4), processes=2)
    next(parts)
    parts.close()
    assert pools[0].pids == []
    assert pools[0].exit_codes == [0, 0]


def test_5_3_the_exact_values_are_the_returns_of_going_right(tour):
    corridor = tour.Corridor()
    corridor.reset()
    steps = [corridor.step(tour.RIGHT) for _ in range(tour.STATES)]
    assert [terminated for _, _, terminated, _, _ in steps] == [False] * (tour.STATES - 1) + [True]
    rewards = torch.tensor([[reward] for _, reward, _, _, _ in steps])
    returns = discounted_sum(rewards, torch.full_like(rewards, tour.DISCOUNT), torch.zeros(1))
    torch.testing.assert_close(returns[:, 0], tour.exact_values())


def test_5_3_the_corridor_has_a_wall_at_the_left_and_shows_where_one_is(tour):
    corridor = tour.Corridor()
    states = [corridor.reset()[0], *(corridor.step(action)[0] for action in (tour.LEFT, tour.RIGHT, tour.LEFT))]
    assert [state.tolist().index(1) for state in states] == [0, 0, 1, 0]


def test_5_3_the_critic_learns_the_exact_values(tour, learned):
    for before, after in learned:
        assert (before.values - tour.exact_values()).abs().max() > 0.3
        torch.testing.assert_close(after.values, tour.exact_values(), atol=0.06, rtol=0)


def test_5_3_the_actor_learns_to_go_right(learned):
    for before, after in learned:
        assert (before.right_probabilities - 0.5).abs().max() < 0.05
        assert after.right_probabilities.min() > 0.95


def test_5_3_a_seed_gives_the_same_figures_again(tour, learned):
    again = tour.learn_corridor(SEEDS[0])
    for first, second in zip(learned[0], again, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("bootstrap_value", "book", "whole"),
    [
        (0.0, [0.01, 1.99], [1.0099, 2.9701]),  # 1 + 0.99·(∓1); once more 1 + 0.99·that
        (1.0, [0.9901, 2.9701], [1.980199, 3.940399]),  # 1 + 0.99·(∓1 + 0.99·1); once more 1 + 0.99·that
    ],
)
def test_5_10_gives_the_books_numbers_from_step_1_on(tour, bootstrap_value, book, whole):
    returns = tour.game_returns(bootstrap_value)
    assert returns[1].tolist() == pytest.approx(book, abs=1e-12)
    assert returns[0].tolist() == pytest.approx(whole, abs=1e-12)


def test_the_whole_tour_runs_as_a_script():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    titles = [line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("Program")]
    assert titles == ["Program 5.1", "Program 5.2", "Program 5.3", "Program 5.10"]
    printed = done.stdout.split()
    assert {str(number * number) for number in range(64)} <= set(printed)
    assert {"0.01", "1.99", "0.9901", "2.9701"} <= set(printed)


def test_only_the_programs_asked_for_are_run(tmp_path):
    done = run_tour(tmp_path, "5.10")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Program 5.10:")
    assert done.stdout.count("Program") == 1


def test_an_unknown_program_is_refused_in_one_line(tmp_path):
    done = run_tour(tmp_path, "5.10", "5.4")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "book_tour.py: error: argument program: got '5.4', must be one of 5.1, 5.2, 5.3, 5.10\n"
