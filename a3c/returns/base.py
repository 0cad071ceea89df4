"""What every return estimator offers, and what estimators check and share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from torch import Tensor

from a3c.batch import RolloutBatch


class Targets(NamedTuple):
    """What the two heads learn from; none of it carries a gradient.

    Attributes:
        advantages: how much better each action was than the critic expected, [T, B].
        value_targets: what the critic should have said, [T, B].
        weights: factor on each step's whole loss (policy, value and entropy terms), as importance or
            priority weights are, [T, B]; None for 1 everywhere. A mean still divides by the number of
            real steps, not by the sum of the weights.
    """

    advantages: Tensor
    value_targets: Tensor
    weights: Tensor | None = None


class ReturnEstimator(ABC):
    """Strategy that turns transitions and values into advantages and value targets.

    Every constructor argument is kept as an attribute of the same name, so that a run can say
    which estimator it used.

    Attributes:
        horizon: steps of a rollout, or None if it needs whole episodes.
        end_at_episode: a rollout's columns stop at the end of an episode instead of running on
            into the next one.
        target_units: units of the value targets, and so of the critic: "scaled_rewards" are rewards
            multiplied by `reward_scale`, which can be compared with realised returns; "own" are others,
            which cannot.
        reusable: a batch may be passed over more than once with its targets, or in minibatches.
        carries_ratios: its advantages are multiplied by importance ratios, of which the policy loss then needs
            none of its own.
        advantages_are_errors: its advantages are its value targets less the values, whatever it is asked, so that
            they may be worked out anew from other targets, as `L2Normalised` does.
    """

    horizon: int | None = None
    end_at_episode: bool = False
    target_units: Literal["scaled_rewards", "own"] = "scaled_rewards"
    reusable: bool = True
    carries_ratios: bool = False
    advantages_are_errors: bool = False

    @property
    def says_its_horizon(self) -> bool:
        """Whether it, or a class that it derives from, sets `horizon`, instead of leaving it as it is here."""
        below = takewhile(lambda cls: cls is not ReturnEstimator, type(self).__mro__)
        return any("horizon" in vars(each) for each in (self, *below))

    @property
    def needs_segments(self) -> bool:
        """Whether it takes segments that are joined from fragments, not fragments themselves."""
        return self.horizon is None or self.end_at_episode

    @abstractmethod
    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        """Return advantages and value targets for a batch.

        Args:
            batch: transitions, [T, B]; rewards come multiplied by the model's `reward_scale`.
            values: the critic's values of all observations, the last one included, [T+1, B].
            log_probs: log π(a|s) of the taken actions under the current policy, [T, B].
            discounts: γ, or 0 where the episode terminated, [T, B].

        Returns:
            Advantages and value targets, and weights where steps are to count differently, [T, B]
            each, without gradient. What they hold at masked steps counts nowhere.
        """

    @property
    def statistics(self) -> Mapping[str, Tensor]:
        """What the estimator learns itself, by name; {} if nothing.

        `take_in` changes these tensors in place. Workers that learn share them, and checkpoints keep them.
        """
        return {}

    def take_in(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> None:
        """Have the statistics follow an update that has been made; the arguments are those that it began with.

        A call of the estimator never changes them: it may be one of several on the same batch, or made to look
        at it.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the statistics.

        An estimator that keeps anything else overrides both this and `load_state_dict`; where workers learn, each
        has then its own.
        """
        return {name: statistic.clone() for name, statistic in self.statistics.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            ValueError: the state is that of another estimator.
        """
        ours = self.statistics
        if ours.keys() != state.keys():
            keeps = f"keeps {', '.join(sorted(ours))}" if ours else "keeps no state"
            raise ValueError(f"{type(self).__name__} {keeps}, and got one with {', '.join(sorted(state)) or 'nothing'}")
        for name, statistic in ours.items():
            statistic.copy_(state[name])


def zero_masked(steps: Tensor, batch: RolloutBatch) -> Tensor:
    """Return [T, B] numbers with 0 at masked steps: the recursions multiply by 0 there, and 0 · NaN is NaN."""
    return steps.where(batch.mask, 0)


def real_rewards(batch: RolloutBatch) -> Tensor:
    """Return the rewards, with 0 at masked steps."""
    return zero_masked(batch.rewards, batch)


def check_shapes(batch: RolloutBatch, values: Tensor, **steps: Tensor) -> None:
    """Refuse values that are not [T+1, B], and other tensors that are not [T, B]."""
    length, columns = batch.rewards.shape
    if values.shape != (length + 1, columns):
        raise ValueError(f"values: got shape {tuple(values.shape)}, must be [T+1, B] = {(length + 1, columns)}")
    for name, tensor in steps.items():
        if tensor.shape != (length, columns):
            raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, must be [T, B] = {(length, columns)}")


def check_n_steps(n_steps: int) -> None:
    """Refuse a length of rollouts below 1, or that is no whole number."""
    check_steps("n_steps", n_steps)


def check_steps(name: str, steps: int, most: int | None = None) -> None:
    """Refuse a number of steps below 1 or above the most, or that is no whole number."""
    if not isinstance(steps, int) or isinstance(steps, bool):  # whatever the annotation says, labels are typed
        raise ValueError(f"{name}: got {steps}, must be a whole number, at least 1")
    check_range(name, steps, 1, most)


def check_range(name: str, value: float, low: float, high: float | None = None) -> None:
    """Refuse an argument outside its range, or that is NaN."""
    if not (value >= low and (high is None or value <= high)):  # written so that NaN fails
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name}: got {value}, must be {allowed}")
