"""a3c: actor-critic in which return estimator and update mode are controlled variables.

Names are imported when they are first used: a worker process imports this package too, and must
pull in neither lightning nor wandb.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "RolloutBatch": "a3c.batch",
    "EnvSpec": "a3c.envs.spec",
    "ReturnEstimator": "a3c.returns",
    "Targets": "a3c.returns",
    "FullEpisode": "a3c.returns",
    "NStep": "a3c.returns",
    "GAE": "a3c.returns",
    "TDLambda": "a3c.returns",
    "DecoupledGAE": "a3c.returns",
    "SlidingNStep": "a3c.returns",
    "Compound": "a3c.returns",
    "VTrace": "a3c.returns",
    "LeakyVTrace": "a3c.returns",
    "Retrace": "a3c.returns",
    "ImportanceSampled": "a3c.returns",
    "UPGO": "a3c.returns",
    "AverageReward": "a3c.returns",
    "GroupBaseline": "a3c.returns",
    "L2Normalised": "a3c.returns",
    "AdvantageNormalised": "a3c.returns",
    "ValueRescaled": "a3c.returns",
    "PositiveOnly": "a3c.returns",
    "Objective": "a3c.learner.objective",
    "Schedule": "a3c.learner.schedules",
    "Constant": "a3c.learner.schedules",
    "Linear": "a3c.learner.schedules",
    "TorchScheduler": "a3c.learner.schedules",
    "ActorCritic": "a3c.networks",
    "MLPActorCritic": "a3c.networks",
    "ConvActorCritic": "a3c.networks",
    "BookActorCritic": "a3c.networks",
    "FittingActorCritic": "a3c.networks",
    "Memory": "a3c.networks",
    "ActionFamily": "a3c.networks",
    "Distribution": "a3c.networks",
    "TerminalReward": "a3c.envs.wrappers",
    "PartialObservation": "a3c.envs.wrappers",
    "NormaliseReward": "a3c.envs.wrappers",
    "ClipReward": "a3c.envs.wrappers",
    "Collector": "a3c.rollouts.collector",
    "RolloutDataModule": "a3c.training.datamodule",
    "A3C": "a3c.training.module",
    "Learners": "a3c.training.learners",
    "GreedyEvaluation": "a3c.training.callbacks",
    "BudgetBar": "a3c.training.callbacks",
    "EstimatorProbe": "a3c.training.callbacks",
    "ProbePlan": "a3c.training.probe.plan",
    "Agent": "a3c.evaluation.agent",
    "load": "a3c.evaluation.agent",
}

__all__ = sorted(_ROOMS)


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'a3c' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return __all__
