"""Evaluates the policy greedily while it is trained, and ends the run once it is solved."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from a3c.evaluation.evaluator import Evaluation, Evaluator
from a3c.training.callbacks.every import EveryEnvSteps, seed_of, watched
from a3c.training.options import check_counts
from a3c.training.seams import callbacks_of, data_of, module_of

_log = logging.getLogger(__name__)


class GreedyEvaluation(Callback):
    """Plays greedy episodes at the beginning and every so many env steps; training's clock stands still meanwhile.

    Args:
        every_env_steps: env steps between evaluations, ≥ 1; null for none while the run trains.
        episodes: episodes of each, ≥ 1.
        final_episodes: fresh episodes, with other seeds, that give the run's final figure; 0 for
            none.
        stop_when_solved: end the run when an evaluation reaches the environment's reward
            threshold and a second one, on other episodes, does so even less its standard error. The
            final figure comes from fresh episodes again, so it is not selected.
        max_episode_steps: steps after which an episode is cut, and counts with its return so far; null
            for the environment's own time limit, and for 10,000 where it has none.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        every_env_steps: int | None = 10_000,
        episodes: int = 64,
        final_episodes: int = 100,
        stop_when_solved: bool = True,
        max_episode_steps: int | None = None,
    ) -> None:
        check_counts(1, every_env_steps=every_env_steps, episodes=episodes, max_episode_steps=max_episode_steps)
        check_counts(0, final_episodes=final_episodes)
        self.every_env_steps = every_env_steps
        self.episodes = episodes
        self.final_episodes = final_episodes
        self.stop_when_solved = stop_when_solved
        self.max_episode_steps = max_episode_steps
        self.solved_at_env_steps: int | None = None
        self.solved_at_seconds: float | None = None
        self.best: float | None = None
        self.is_best = False  # whether the evaluation just made is the best so far
        self.final: Evaluation | None = None
        self._schedule = EveryEnvSteps(every_env_steps)
        self._count = 0
        self._evaluator: Evaluator | None = None
        self._said = False  # that episodes are cut

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluator = self._make(trainer, self.episodes)
        self._schedule.begin(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_env_steps is not None and data_of(trainer).progress.env_steps == 0:
            with data_of(trainer).progress.clock.paused():  # where a learning curve begins; nothing is decided by it
                if (result := self._play(self._evaluator, trainer, "evaluation", 0)) is not None:
                    self._log(result, trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.is_best = False
        if self._schedule.is_due(trainer):
            with data_of(trainer).progress.clock.paused():
                module_of(trainer).hold()
                self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        progress = data_of(trainer).progress
        self._count += 1
        result = self._play(self._evaluator, trainer, "evaluation", self._count)
        if result is None:
            return
        self.is_best = self.best is None or result.return_mean >= self.best
        if self.is_best:
            self.best = result.return_mean
        self._log(result, trainer)
        for callback in callbacks_of(trainer):
            if not isinstance(callback, ProgressBar):  # to what monitors a metric this is the end of a validation
                callback.on_validation_end(trainer, module_of(trainer))
        if self.solved_at_env_steps is None and self._is_solved(result, trainer):
            self.solved_at_env_steps = progress.env_steps
            self.solved_at_seconds = progress.clock.seconds
            if self.stop_when_solved:
                trainer.should_stop = True

    def _log(self, result: Evaluation, trainer: Trainer) -> None:
        figures = {"eval/episode_return": result.return_mean, "eval/episode_length": result.length_mean}
        if any(result.cut):
            figures["eval/episodes_cut"] = float(sum(result.cut))
        module_of(trainer).log_now(figures)

    def _is_solved(self, result: Evaluation, trainer: Trainer) -> bool:
        """Return whether the threshold is reached, and reached again on other episodes.

        A run is evaluated many times, so the first figure over the threshold tends to be a lucky
        one; a second one has not been selected, and must be there with a standard error to spare.
        """
        threshold = data_of(trainer).env.reward_threshold
        if threshold is None or result.return_mean < threshold:
            return False
        again = self._play(self._evaluator, trainer, "confirmation", self._count)
        return again is not None and bool(again.return_mean - again.standard_error >= threshold)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module_of(trainer).finish()  # the cores are free for the last episodes
        self.close()
        if self.final_episodes and not trainer.interrupted:
            evaluator = self._make(trainer, self.final_episodes)
            self.final = self._play(evaluator, trainer, "final", 0)
            evaluator.close()

    def _make(self, trainer: Trainer, episodes: int) -> Evaluator:
        return Evaluator(data_of(trainer).env, episodes, max_episode_steps=self.max_episode_steps)

    def _play(self, evaluator: Evaluator | None, trainer: Trainer, purpose: str, number: int) -> Evaluation | None:
        """Play an evaluation's episodes, with seeds of their own; None if the run is interrupted."""
        assert evaluator is not None, "on_fit_start comes first"
        data = data_of(trainer)
        with watched(trainer, "an environment of an evaluation") as should_stop:
            result = evaluator(module_of(trainer).acting_network, seed_of(data.seed, purpose, number), should_stop)
        if result is not None and any(result.cut) and not self._said:
            self._said = True
            _log.warning(
                "%s: %d of the %d episodes of an evaluation were cut after %s steps, and count with their returns "
                "so far (evaluation.max_episode_steps)",
                data.env.name,
                sum(result.cut),
                len(result.cut),
                f"{evaluator.bound:,}",
            )
        return result

    def close(self) -> None:
        """Close the environments. Idempotent."""
        if self._evaluator is not None:
            self._evaluator.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self._count,
            "solved_at_env_steps": self.solved_at_env_steps,
            "solved_at_seconds": self.solved_at_seconds,
            "best": self.best,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._count = state_dict["count"]  # `best` is that of the best.ckpt in the run's own folder
        self.solved_at_env_steps = state_dict["solved_at_env_steps"]
        self.solved_at_seconds = state_dict["solved_at_seconds"]
