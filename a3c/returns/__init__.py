"""Return estimators: pure backward recursions, and the strategies that put them to use.

An estimator turns a batch of transitions and the critic's values into advantages (what the actor
is told) and value targets (what the critic is told). Most of them go back to one recursion,

    Gₜ = rₜ + γₜ·((1 − λₜ)·Vₜ₊₁ + λₜ·Gₜ₊₁),

in which λₜ = 0 cuts the trace: the rest of the return is then taken from the critic. It is cut
after a truncated step, before padding, at the fragment's end and, for N-step returns, every n
steps. Where an episode terminated γₜ is 0, so nothing beyond it counts.

Write your own: a subclass of `ReturnEstimator` in any importable file works by its import path
(``--model.returns my_file.MyReturns``).
"""

from a3c.returns.average_reward import AverageReward
from a3c.returns.base import ReturnEstimator, Targets, real_rewards
from a3c.returns.group_baseline import GroupBaseline
from a3c.returns.lambda_family import GAE, DecoupledGAE, FullEpisode, NStep, TDLambda
from a3c.returns.normalised import AdvantageNormalised, L2Normalised
from a3c.returns.off_policy import ImportanceSampled, Retrace
from a3c.returns.ratios import importance_ratios
from a3c.returns.recursions import (
    discounted_sum,
    lambda_returns,
    linear_recursion,
    sliding_returns,
    trace_cuts,
    upgoing_returns,
    vtrace_targets,
)
from a3c.returns.rescaled import ValueRescaled
from a3c.returns.sliding import Compound, SlidingNStep
from a3c.returns.upgoing import UPGO, PositiveOnly
from a3c.returns.vtrace import LeakyVTrace, VTrace
from a3c.returns.wrapper import Wrapper

__all__ = [
    "GAE",
    "UPGO",
    "AdvantageNormalised",
    "AverageReward",
    "Compound",
    "DecoupledGAE",
    "FullEpisode",
    "GroupBaseline",
    "ImportanceSampled",
    "L2Normalised",
    "LeakyVTrace",
    "NStep",
    "PositiveOnly",
    "Retrace",
    "ReturnEstimator",
    "SlidingNStep",
    "TDLambda",
    "Targets",
    "VTrace",
    "ValueRescaled",
    "Wrapper",
    "discounted_sum",
    "importance_ratios",
    "lambda_returns",
    "linear_recursion",
    "real_rewards",
    "sliding_returns",
    "trace_cuts",
    "upgoing_returns",
    "vtrace_targets",
]
