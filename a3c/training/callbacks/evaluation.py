"""Evaluates the policy greedily while it is trained, and ends the run once it is solved."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from a3c.envs.watchdog import StepWatch
from a3c.evaluation.evaluator import Evaluation, Evaluator


class GreedyEvaluation(Callback):
    """Plays greedy episodes every so many env steps; training's clock stands still meanwhile.

    Args:
        every_env_steps: env steps between evaluations, ≥ 1.
        episodes: episodes of each, ≥ 1.
        final_episodes: fresh episodes, with other seeds, that give the run's final figure; 0 for
            none.
        stop_when_solved: end the run when an evaluation reaches the environment's reward
            threshold and a second one, on other episodes, does so even less its standard error. The
            final figure comes from fresh episodes again, so it is not selected.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        every_env_steps: int = 10_000,
        episodes: int = 64,
        final_episodes: int = 100,
        stop_when_solved: bool = True,
    ) -> None:
        for name, value, least in (
            ("every_env_steps", every_env_steps, 1),
            ("episodes", episodes, 1),
            ("final_episodes", final_episodes, 0),
        ):
            if value < least:
                raise ValueError(f"{name}: got {value}, must be at least {least}")
        self.every_env_steps = every_env_steps
        self.episodes = episodes
        self.final_episodes = final_episodes
        self.stop_when_solved = stop_when_solved
        self.solved_at_env_steps: int | None = None
        self.solved_at_seconds: float | None = None
        self.best: float | None = None
        self.is_best = False  # whether the evaluation just made is the best so far
        self.final: Evaluation | None = None
        self._next = every_env_steps
        self._count = 0
        self._evaluator: Evaluator | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._evaluator = Evaluator(data.env, self.episodes)
        self._next = (data.progress.env_steps // self.every_env_steps + 1) * self.every_env_steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self.is_best = False
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if data.progress.env_steps < self._next and not trainer.should_stop:
            return
        self._next = (data.progress.env_steps // self.every_env_steps + 1) * self.every_env_steps
        if trainer.interrupted:
            return
        with data.progress.clock.paused():
            pl_module.hold()
            self._evaluate(trainer, pl_module, data)

    def _evaluate(self, trainer: Trainer, module: Any, data: Any) -> None:
        assert self._evaluator is not None, "on_fit_start comes first"
        self._count += 1
        result = self._play(self._evaluator, trainer, seed_of(data.seed, "evaluation", self._count))
        if result is None:
            return
        self.is_best = self.best is None or result.return_mean >= self.best
        if self.is_best:
            self.best = result.return_mean
        module.log_now({"eval/episode_return": result.return_mean, "eval/episode_length": result.length_mean})
        if self.solved_at_env_steps is None and self._is_solved(result, trainer, data):
            self.solved_at_env_steps = data.progress.env_steps
            self.solved_at_seconds = data.progress.clock.seconds
            if self.stop_when_solved:
                trainer.should_stop = True

    def _is_solved(self, result: Evaluation, trainer: Trainer, data: Any) -> bool:
        """Return whether the threshold is reached, and reached again on other episodes.

        A run is evaluated many times, so the first figure over the threshold tends to be a lucky
        one; a second one has not been selected, and must be there with a standard error to spare.
        """
        assert self._evaluator is not None, "on_fit_start comes first"
        threshold = data.env.reward_threshold
        if threshold is None or result.return_mean < threshold:
            return False
        seed = seed_of(data.seed, "confirmation", self._count)
        again = self._play(self._evaluator, trainer, seed)
        return again is not None and bool(again.return_mean - again.standard_error >= threshold)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        pl_module.finish()  # the cores are free for the last episodes
        self.close()
        if self.final_episodes and not trainer.interrupted:
            evaluator = Evaluator(data.env, self.final_episodes)
            self.final = self._play(evaluator, trainer, seed_of(data.seed, "final", 0))
            evaluator.close()

    @staticmethod
    def _play(evaluator: Evaluator, trainer: Trainer, seed: int) -> Evaluation | None:
        """Play an evaluation's episodes; None if the run is interrupted."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = trainer.lightning_module
        with StepWatch(data.policy.timeout, "an environment of an evaluation") as watch:

            def should_stop() -> bool:
                watch.beat()
                return trainer.interrupted

            return evaluator(module.network, seed, should_stop)

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


def seed_of(run_seed: int, purpose: str, number: int) -> int:
    """Return a seed that no worker, and no other evaluation of the run, uses."""
    words = (run_seed, *purpose.encode(), number)
    return int(np.random.SeedSequence(words).generate_state(1)[0])
