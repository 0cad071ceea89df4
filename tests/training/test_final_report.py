"""What a run prints at its end."""

import io

import pytest
from rich.console import Console

from a3c.runs.figures import figure
from a3c.training.cli.final_report import print_summary

SUMMARY = {
    "env": "Grid-v0",
    "estimator": "NStep",
    "mode": "sync",
    "seed": 1,
    "interrupted": False,
    "env_steps": 1000,
    "updates": 10,
    "gradient_steps": 10,
    "episodes": 5,
    "train_seconds": 1.0,
    "env_steps_per_second": 1000.0,
    "policy_lag_mean": None,
    "policy_lag_max": 0,
    "eval_episodes": 3,
    "solved_at_env_steps": None,
    "worker_exit_codes": [],
    "worker_deaths": 0,
    "dropped_env_steps": 0,
    "eval_return_mean": 0.00123,
    "eval_return_std": 0.000456,
}


def printed(folder, **changes):
    console = Console(file=io.StringIO(), width=100)
    print_summary(SUMMARY | changes, folder, can_go_on=False, console=console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (475.62, "475.6"),
        (9.375, "9.38"),
        (0.00123, "0.00123"),
        (-0.98765, "-0.988"),
        (0.0, "0"),
        (-12345.6, "-12345.6"),
    ],
)
def test_small_rewards_keep_their_digits(value, shown):
    assert figure(value) == shown


def test_the_table_shows_small_returns(tmp_path):
    assert "0.00123 ± 0.000456" in printed(tmp_path)


def test_the_terminal_shows_the_one_record_of_a_run_or_says_that_it_has_parts(tmp_path):
    first, second = (tmp_path / f"wandb/offline-run-2026_{number}-abc" for number in (1, 2))
    first.mkdir(parents=True)
    assert f"wandb leet {first}\n" in printed(tmp_path)
    second.mkdir()
    assert f"wandb leet {tmp_path / 'wandb'} (the run has 2 parts)\n" in printed(tmp_path)
    assert f"wandb sync {first} {second}\n" in printed(tmp_path)


def test_updates_of_several_steps_say_how_many(tmp_path):
    assert "gradient steps" not in printed(tmp_path)
    assert " 10, 320 gradient steps │" in printed(tmp_path, gradient_steps=320)
