"""What a run says when it has ended: its table, and where things lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from a3c.runs.figures import figure


def print_summary(summary: dict[str, Any], folder: Path, can_go_on: bool, console: Console) -> None:
    """Print what a run came to.

    Args:
        summary: what stands in summary.json.
        folder: the run folder.
        can_go_on: a signal ended the run before its budget, with a checkpoint.
        console: where to.
    """
    table = Table(title=f"{summary['env']} · {summary['estimator']} · {summary['mode']} · seed {summary['seed']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for row in _rows(summary):
        table.add_row(*row)
    console.print(table)
    console.print(f"run folder:     {folder}", soft_wrap=True)
    if can_go_on:
        console.print(f"to go on:       --ckpt_path last --run_dir {folder}", soft_wrap=True)
    picture = folder / "learning_curve.png"
    if picture.exists():
        console.print(f"learning curve: {picture}", soft_wrap=True)
    elif not summary["interrupted"]:
        console.print(
            "nothing was trained: the checkpoint's budget is used up; give a larger one to go on", soft_wrap=True
        )
    offline = [str(path) for path in sorted(folder.glob("wandb/offline-run-*"))]  # several after a resume
    if offline:
        shown = offline[0] if len(offline) == 1 else f"{folder / 'wandb'} (the run has {len(offline)} parts)"
        console.print(f"in the terminal: wandb leet {shown}", soft_wrap=True)
        console.print(f"to your account: wandb sync {' '.join(offline)}", soft_wrap=True)


def _updates(updates: int, gradient_steps: int) -> str:
    of = f", {gradient_steps:,} gradient steps" if gradient_steps != updates else ""
    return f"{updates:,}{of}"


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("env steps", f"{summary['env_steps']:,}"),
        ("updates", _updates(summary["updates"], summary["gradient_steps"])),
        ("episodes", f"{summary['episodes']:,}"),
        ("training", f"{summary['train_seconds']:.2f} s"),
        ("speed", f"{summary['env_steps_per_second']:,.0f} env steps/s"),
        ("policy lag, mean and most", f"{summary['policy_lag_mean'] or 0:.2f}, {summary['policy_lag_max']} updates"),
    ]
    if summary["eval_return_mean"] is not None:
        mean, spread = summary["eval_return_mean"], summary["eval_return_std"]
        rows.append((f"greedy return, {summary['eval_episodes']} fresh episodes", f"{figure(mean)} ± {figure(spread)}"))
    if summary["solved_at_env_steps"] is not None:
        steps, seconds = summary["solved_at_env_steps"], summary["solved_at_seconds"]
        rows.append(("solved after", f"{steps:,} env steps, {seconds:.2f} s"))
    else:
        rows.append(("solved", "no"))
    if summary["worker_exit_codes"]:
        rows.append(("exit codes of the workers", " ".join(map(str, summary["worker_exit_codes"]))))
    if summary["worker_deaths"]:
        rows.append(
            ("workers that died, and were replaced", f"{summary['worker_deaths']}, {summary['worker_restarts']}")
        )
    if summary["dropped_env_steps"]:
        reasons = ", ".join(f"{reason} {steps:,}" for reason, steps in summary["dropped_by_reason"].items() if steps)
        rows.append(("env steps dropped", reasons))
    if summary["interrupted"]:
        rows.append(("ended by", "a signal, before the budget"))
    return rows
