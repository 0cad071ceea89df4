"""What a run leaves behind at its end: summary.json and its pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from a3c.returns.labels import label_of
from a3c.runs.curves import episode_length_curve, learning_curve
from a3c.runs.descriptions import describe
from a3c.training.callbacks.evaluation import GreedyEvaluation
from a3c.training.callbacks.interruption import Interrupted
from a3c.training.seams import data_of, module_of


class RunReport(Callback):
    """Writes the run's summary and draws its curves when training ends.

    Comes after `GreedyEvaluation` in the list of callbacks, whose final figure it writes down.

    Args:
        folder: the run folder, with its metrics.csv in it.
        evaluation: where the evaluation figures come from.
        resumed_from: the checkpoint that the run goes on from, if any.
    """

    def __init__(self, folder: Path, evaluation: GreedyEvaluation, resumed_from: Path | None = None) -> None:
        self.folder = folder
        self._evaluation = evaluation
        self._resumed_from = resumed_from
        self._began = self._failed = False
        self.summary: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._failed = not isinstance(exception, (Interrupted, KeyboardInterrupt))
        if self._began and (self._failed or not self.summary):
            self._write_summary(trainer)

    def _write_summary(self, trainer: Trainer) -> None:
        self.summary = self._summarise(trainer)
        (self.folder / "summary.json").write_text(json.dumps(self.summary, indent=2) + "\n", encoding="utf-8")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            logger.save()
        self._write_summary(trainer)
        if (self.folder / "metrics.csv").exists():
            summary = self.summary
            title = f"{summary['env']} · {summary['estimator']} · {summary['mode']} · seed {summary['seed']}"
            figure = learning_curve(self.folder / "metrics.csv", title, data_of(trainer).env.reward_threshold)
            figure.savefig(self.folder / "learning_curve.png", dpi=120)
            lengths = episode_length_curve(self.folder / "metrics.csv", title)
            lengths.savefig(self.folder / "episode_length.png", dpi=120)

    def _summarise(self, trainer: Trainer) -> dict[str, Any]:
        data, module = data_of(trainer), module_of(trainer)
        progress, evaluation = data.progress, self._evaluation
        seconds = progress.clock.seconds
        final = evaluation.final
        return {
            "env": data.env.name,
            "estimator": type(module.returns).__name__,
            "estimator_label": label_of(module.returns),
            "estimator_arguments": describe(module.returns)["init_args"],
            "mode": data.mode.name,
            "seed": data.seed,
            "interrupted": trainer.interrupted and not self._failed,
            "failed": self._failed,
            "env_steps": progress.env_steps,
            "updates": module.updates,
            "gradient_steps": module.gradient_steps,
            "skipped_updates": module.skipped_updates,
            "train_seconds": seconds,
            "env_steps_per_second": progress.env_steps / seconds if seconds > 0 else math.nan,
            "episodes": progress.episodes,
            "last_350_episode_length_mean": progress.long_run_episode_length,
            "train_return_mean": progress.metrics().get("rollout/episode_return"),
            "eval_return_mean": final.return_mean if final else None,
            "eval_return_std": final.return_std if final else None,
            "eval_episodes": len(final.episodes) if final else 0,
            "eval_episodes_cut": sum(final.cut) if final else 0,
            "solved_at_env_steps": evaluation.solved_at_env_steps,
            "solved_at_seconds": evaluation.solved_at_seconds,
            "best_eval_return_mean": evaluation.best,
            "policy_lag_mean": module.lags.mean,
            "policy_lag_max": module.lags.largest,
            "policy_lag_columns": module.lags.state_dict(),
            "collected_env_steps": progress.collected,
            "trained_env_steps": progress.trained,
            "dropped_env_steps": progress.dropped.total(),
            "dropped_by_reason": dict(progress.dropped),
            "in_flight_env_steps": progress.in_flight,
            "learners": trainer.world_size,
            "workers": data.mode.workers,
            "envs_per_worker": data.mode.collection.envs_per_worker,
            "rollouts_per_update": data.mode.collection.rollouts_per_update,
            "worker_deaths": progress.worker_deaths,
            "worker_restarts": progress.worker_restarts,
            "resumed_from": str(self._resumed_from) if self._resumed_from else None,
            "worker_exit_codes": data.mode.exit_codes,
        }
