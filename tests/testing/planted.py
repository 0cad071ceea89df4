"""Estimators with one fault each, and what a suite must say of it."""

import torch
from kinds import FromAverage

from a3c.returns import (
    GAE,
    AverageReward,
    FullEpisode,
    L2Normalised,
    NStep,
    ReturnEstimator,
    Targets,
    VTrace,
    Wrapper,
    importance_ratios,
    lambda_returns,
    real_rewards,
    trace_cuts,
)


class Faulty(ReturnEstimator):
    """GAE in small parts, each of which a fault may replace."""

    lambda_ = 0.9

    def __init__(self, n_steps: int = 8):
        self.n_steps = self.horizon = n_steps

    def rewards(self, batch):
        return real_rewards(batch)

    def discounts(self, batch, discounts):
        return discounts

    def cuts(self, batch):
        return trace_cuts(batch)

    def next_values(self, batch, values):
        return values[1:]

    def finish(self, targets, values, batch):
        return Targets(targets - values[:-1], targets)

    def __call__(self, batch, values, log_probs, discounts):
        values = values.detach()
        lambdas = self.lambda_ * (~self.cuts(batch)).to(values.dtype)
        discounts = self.discounts(batch, discounts)
        targets = lambda_returns(self.rewards(batch), discounts, self.next_values(batch, values), lambdas)
        return self.finish(targets, values, batch)


def cuts_at(*kinds):
    """Cuts of a trace at some of the places where it must be cut."""

    def cuts(self, batch):
        found = torch.zeros_like(batch.mask)
        if "truncated" in kinds:
            found |= batch.truncated
        if "terminated" in kinds:
            found |= batch.terminated
        if "masked" in kinds:
            found[:-1] |= ~batch.mask[1:]
        if "end" in kinds:
            found[-1] = True
        return found

    return cuts


class RunsOverTimeLimits(Faulty):
    def rewards(self, batch):
        return batch.rewards.where(batch.mask, 0)

    cuts = cuts_at("terminated", "end")


class RunsOverTerminalStates(Faulty):
    def discounts(self, batch, discounts):
        return torch.full_like(discounts, 0.9)

    cuts = cuts_at("truncated", "end")


class NormalisedLeak(Wrapper):
    """Mixes the batch, so that only the neighbours' order shows the leak below it."""

    def __call__(self, batch, values, log_probs, discounts):
        inner = self.estimator(batch, values, log_probs, discounts)
        real = inner.advantages[batch.mask]
        std = real.std(correction=0) if len(real) else 1.0
        return inner._replace(advantages=inner.advantages / (std + 1e-8))


class Shuffling(NormalisedLeak):
    """A forward leak: each advantage is added to the next."""

    def __call__(self, batch, values, log_probs, discounts):
        inner = self.estimator(batch, values, log_probs, discounts)
        return inner._replace(advantages=inner.advantages.where(batch.mask, 0).cumsum(0))


class RewardsLate(Faulty):
    def rewards(self, batch):
        return torch.cat((torch.zeros_like(batch.rewards[:1]), real_rewards(batch)[:-1]))


class StatesActedIn(Faulty):
    def next_values(self, batch, values):
        return values[:-1]


class ValueOneLate(Faulty):
    """Two rewards, and then the critic a step too late."""

    lambda_ = 1.0

    def __call__(self, batch, values, log_probs, discounts):
        values = values.detach()
        right = NStep(1)(batch, values, log_probs, discounts)
        rewards, cuts = real_rewards(batch), trace_cuts(batch)
        targets = right.value_targets.clone()
        inside = ~cuts[:-1]
        inside[:-1] &= ~cuts[1:-1]
        late = rewards[:-1] + discounts[:-1] * (rewards[1:] + discounts[1:] * values[1:-1])
        targets[:-1] = late.where(inside & ~cuts[:-1] & ~cuts[1:], targets[:-1])
        return Targets(targets - values[:-1], targets)


class BeforeTheLastAction(Faulty):
    """The published fault: a time limit is bootstrapped from the state before the last action."""

    def next_values(self, batch, values):
        return values[:-1].where(batch.truncated, values[1:])


class NothingAtTimeLimits(Faulty):
    def next_values(self, batch, values):
        return values[1:].masked_fill(batch.truncated, 0)


class TimeLimitsAreEnds(Faulty):
    def discounts(self, batch, discounts):
        return discounts * ~batch.truncated


class TerminalStatesHaveValue(Faulty):
    cuts = cuts_at("terminated", "truncated", "masked", "end")

    def discounts(self, batch, discounts):
        return torch.full_like(discounts, 0.9)


class NothingAtTheEnd(Faulty):
    def next_values(self, batch, values):
        return torch.cat((values[1:-1], torch.zeros_like(values[-1:])))


class LateCut(NStep):
    """Cuts after step n + 1, which the fragment's end then hides from the recursion: no value stands there."""

    def __call__(self, batch, values, log_probs, discounts):
        lambdas = (~cuts_at("truncated", "masked")(self, batch)).float()
        lambdas[self.n_steps :: self.n_steps] = 0
        targets = lambda_returns(real_rewards(batch), discounts, values.detach()[1:], lambdas)
        return Targets(targets - values.detach()[:-1], targets)


class WithGradient(GAE):
    def __call__(self, batch, values, log_probs, discounts):
        targets = super().__call__(batch, values, log_probs, discounts).value_targets
        return Targets(targets - values[:-1], targets)


class ChangesRewards(GAE):
    def __call__(self, batch, values, log_probs, discounts):
        batch.rewards.clamp_(-1, 1)
        return super().__call__(batch, values, log_probs, discounts)


class ChangesValues(GAE):
    def __call__(self, batch, values, log_probs, discounts):
        values[-1] *= 2
        return super().__call__(batch, values, log_probs, discounts)


class AllStates(Faulty):
    def finish(self, targets, values, batch):
        return Targets(targets - values[:-1], values)


class NoColumns(Faulty):
    def finish(self, targets, values, batch):
        return Targets(targets.mean(1), targets)


class WrongWeights(Faulty):
    def finish(self, targets, values, batch):
        return Targets(targets - values[:-1], targets, torch.ones(batch.columns))


class OneTensor(Faulty):
    def finish(self, targets, values, batch):
        return targets


class NoTensor(Faulty):
    def finish(self, targets, values, batch):
        return Targets(targets, targets.tolist())


class InDouble(Faulty):
    def finish(self, targets, values, batch):
        return Targets((targets - values[:-1]).double(), targets)


class InWholeNumbers(Faulty):
    def finish(self, targets, values, batch):
        return Targets((targets - values[:-1]).sign().long(), targets)


class PoisonedByMasked(Faulty):
    def rewards(self, batch):
        return batch.rewards * batch.mask


class Infinite(Faulty):
    """Divides by a deviation that one number does not have."""

    def finish(self, targets, values, batch):
        advantages = targets - values[:-1]
        variance = (advantages - advantages[batch.mask].mean()).square()[batch.mask].sum() / (batch.mask.sum() - 1)
        return Targets(advantages / variance.sqrt(), targets)


class NormalisedOverAll(Faulty):
    def finish(self, targets, values, batch):
        advantages = targets - values[:-1]
        return Targets((advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8), targets)


class CountsRows(Faulty):
    """Divides by the number of rows, padding among them."""

    target_units = "own"

    def finish(self, targets, values, batch):
        return Targets((targets - values[:-1]) / batch.length, targets)


class Counting(Faulty):
    """Counts its calls, and says so in its results."""

    calls = 0

    def finish(self, targets, values, batch):
        self.calls += 1
        return Targets(targets - values[:-1] + self.calls, targets)


class Tossing(Faulty):
    def finish(self, targets, values, batch):
        return Targets(targets - values[:-1] + torch.randn_like(targets), targets)


class LearnsInACall(FromAverage):
    """Counts in its statistics, which the results do not show."""

    def __init__(self, n_steps: int = 8):
        super().__init__(n_steps)
        self._calls = torch.zeros(1)

    @property
    def statistics(self):
        return {**super().statistics, "calls": self._calls}

    def __call__(self, batch, values, log_probs, discounts):
        self._calls += 1
        return super().__call__(batch, values, log_probs, discounts)


class LearnsFromNothing(FromAverage):
    def take_in(self, batch, values, log_probs, discounts):
        self._mean.lerp_(batch.rewards[batch.mask].mean(), self.rate)


class LearnsFromMasked(FromAverage):
    def take_in(self, batch, values, log_probs, discounts):
        self._mean.lerp_(batch.rewards.mean(), self.rate)


class LearnsAndChanges(FromAverage):
    def take_in(self, batch, values, log_probs, discounts):
        super().take_in(batch, values, log_probs, discounts)
        batch.rewards.sub_(self._mean)


class ReplacesItsStatistics(FromAverage):
    def take_in(self, batch, values, log_probs, discounts):
        if batch.mask.any():
            self._mean = self._mean.lerp(batch.rewards[batch.mask].mean(), self.rate)


class LoadsAnother(FromAverage):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._mean = state["mean"].clone()


class ForgetsItsState(FromAverage):
    @property
    def statistics(self):
        return {}


class GivesItsOwnState(FromAverage):
    def state_dict(self):
        return dict(self.statistics)


class TakesAnyState(GAE):
    def load_state_dict(self, state):
        pass


class StumblesOverAnyState(FromAverage):
    def load_state_dict(self, state):
        self._mean.copy_(state["mean"])


class KeepsNoArgument(Faulty):
    def __init__(self, n_steps: int = 8, bonus: float = 0.0):
        super().__init__(n_steps)
        self._bonus = bonus


class TakesAnything(Faulty):
    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs


class KeepsAnotherArgument(Faulty):
    """Keeps percent as a fraction, of which the next one is built."""

    def __init__(self, percent: float = 90.0):
        super().__init__()
        self.percent = self.lambda_ = percent / 100


class PicklesLess(Faulty):
    def __init__(self, n_steps: int = 8):
        super().__init__(n_steps)
        self.lambda_ = 0.2

    def __deepcopy__(self, memo):
        return type(self)(self.n_steps)

    def __reduce__(self):
        return _faulty, (self.n_steps,)


def _faulty(n_steps):
    return Faulty(n_steps)


class HalfAStep(Faulty):
    def __init__(self, n_steps: float = 0.5):
        super().__init__(n_steps)


class UnknownUnits(Faulty):
    target_units = "points"


class MaybeAtEpisode(Faulty):
    end_at_episode = None


class EndsAtTheLastRow(FullEpisode):
    """Looks for the end of each column in the last row alone."""

    def __call__(self, batch, values, log_probs, discounts):
        lambdas = torch.ones_like(discounts)
        lambdas[-1] = 0
        targets = lambda_returns(real_rewards(batch), discounts, values.detach()[1:], lambdas)
        return Targets(targets - values.detach()[:-1], targets)


class BiasedAdvantages(Faulty):
    """Advantages less the values of the states that followed."""

    def finish(self, targets, values, batch):
        return Targets(targets - values[1:], targets)


class TurnedRound(Faulty):
    """Values less targets."""

    def finish(self, targets, values, batch):
        return Targets(values[:-1] - targets, targets)


class RewardsLateInItsOwnUnits(Faulty):
    """The reward of the step before, which no exact critic is asked about."""

    target_units = "own"

    def rewards(self, batch):
        return real_rewards(batch).roll(1, 0).masked_fill(trace_cuts(batch).roll(1, 0) | ~batch.mask, 0)


class BootstrapsTargetsAlone(Faulty):
    """Advantages take a time limit for an end, targets do not."""

    target_units = "own"

    def __call__(self, batch, values, log_probs, discounts):
        ends = super().__call__(batch, values, log_probs, discounts.masked_fill(batch.truncated, 0))
        return super().__call__(batch, values, log_probs, discounts)._replace(advantages=ends.advantages)


class Boasting(Faulty):
    """Says that its advantages are errors, and halves them."""

    advantages_are_errors = True

    def finish(self, targets, values, batch):
        return Targets((targets - values[:-1]) / 2, targets)


class Weighted(Faulty):
    """Advantages times importance ratios, in which a fault may lie."""

    carries_ratios = True

    def ratios(self, batch, log_probs):
        return importance_ratios(batch, log_probs)

    def __call__(self, batch, values, log_probs, discounts):
        plain = super().__call__(batch, values, log_probs, discounts)
        return plain._replace(advantages=plain.advantages * self.ratios(batch, log_probs))


class RatiosRunOn(Weighted):
    def ratios(self, batch, log_probs):
        return super().ratios(batch, log_probs).cumprod(0).clamp(max=1)


class RatiosOfTheColumnBeside(Weighted):
    def ratios(self, batch, log_probs):
        return super().ratios(batch, log_probs).roll(1, 1)


class RatiosTurnedRound(Weighted):
    def ratios(self, batch, log_probs):
        return 1 / super().ratios(batch, log_probs)


class RatiosWithoutBound(Weighted):
    def ratios(self, batch, log_probs):
        return (log_probs - batch.behaviour_log_probs).where(batch.mask, 0).exp()


class CutsAllColumns(Faulty):
    """Cuts the traces of all columns where that of any is to be cut."""

    def cuts(self, batch):
        return trace_cuts(batch).any(1, keepdim=True).expand_as(batch.mask)


class FrozenScale(Faulty):
    """Divides by the deviation of the first batch that it was ever asked about."""

    def finish(self, targets, values, batch):
        advantages = targets - values[:-1]
        if not hasattr(self, "scale"):
            self.scale = 1 + float(advantages[batch.mask].square().mean())
        return Targets(advantages / self.scale, targets)


class Seeding(Faulty):
    def finish(self, targets, values, batch):
        torch.manual_seed(0)
        return super().finish(targets, values, batch)


class WithGradientAtTimeLimits(Faulty):
    def __call__(self, batch, values, log_probs, discounts):
        targets = super().__call__(batch, values, log_probs, discounts)
        if batch.truncated.any():
            targets = targets._replace(advantages=targets.advantages + values[:-1] - values[:-1].detach())
        return targets


class WeightsOf32Bits(Faulty):
    def finish(self, targets, values, batch):
        return Targets(targets - values[:-1], targets, torch.ones(batch.mask.shape))


class Forgetful(ReturnEstimator):
    """Around another one, of which it takes the horizon alone."""

    target_units = "own"

    def __init__(self, estimator: ReturnEstimator):
        self.estimator = estimator
        self.horizon = estimator.horizon

    def __call__(self, batch, values, log_probs, discounts):
        return self.estimator(batch, values, log_probs, discounts)


class FaultyOnceItHasLearned(FromAverage):
    """Its mean gets into the units of the targets only when there is one."""

    def __call__(self, batch, values, log_probs, discounts):
        targets = super().__call__(batch, values, log_probs, discounts)
        return targets._replace(advantages=-targets.advantages) if self._mean.abs() > 0 else targets


class PerhapsErrors(Faulty):
    advantages_are_errors = None


LEAK = NormalisedLeak(RunsOverTimeLimits())

# Estimator, the checks that it must fail, and words of the explanation of the first.
FAULTS = [
    (RunsOverTimeLimits(), ["knows_nothing_beyond_a_time_limit", "does_not_know_its_neighbours"], "trace must be cut"),
    (RunsOverTerminalStates(), ["knows_nothing_beyond_a_terminal_state"], "is γ itself used"),
    (LEAK, ["does_not_know_its_neighbours"], "a trace that runs on over an episode's end"),
    (Shuffling(GAE(8)), ["does_not_know_its_neighbours"], "a trace that runs on over an episode's end"),
    (RewardsLate(), ["agrees_with_an_exact_critic"], "rewards, discounts or values a step off"),
    (StatesActedIn(), ["agrees_with_an_exact_critic", "bootstraps_where_fragments_end"], "a step off"),
    (ValueOneLate(), ["agrees_with_an_exact_critic"], "a step off"),
    (BiasedAdvantages(), ["agrees_with_an_exact_critic"], "a step off"),
    (BeforeTheLastAction(), ["bootstraps_at_time_limits"], "the state before the last action"),
    (BeforeTheLastAction(), ["agrees_with_an_exact_critic"], "All steps at time limits are wrong"),
    (NothingAtTimeLimits(), ["bootstraps_at_time_limits"], "a time limit is no end"),
    (TimeLimitsAreEnds(), ["bootstraps_at_time_limits"], "a time limit is no end"),
    (TerminalStatesHaveValue(), ["gives_terminal_states_no_value"], "multiplied by γ itself"),
    (NothingAtTheEnd(), ["bootstraps_where_fragments_end"], "below the last row is values"),
    (LateCut(8), ["bootstraps_where_fragments_end"], "did not change at step"),
    (WithGradient(8), ["carries_no_gradient"], "values.detach()"),
    (ChangesRewards(8), ["leaves_its_arguments_alone"], "changed rewards"),
    (ChangesValues(8), ["leaves_its_arguments_alone"], "changed values"),
    (AllStates(), ["returns_targets"], "take values[:-1]"),
    (NoColumns(), ["returns_targets"], "expected [T, B] ="),
    (WrongWeights(), ["returns_targets"], "weights are"),
    (OneTensor(), ["returns_targets"], "it returned a tensor"),
    (NoTensor(), ["returns_targets"], "value_targets are a list"),
    (InDouble(), ["keeps_the_dtype"], "advantages are torch.float64"),
    (InWholeNumbers(), ["keeps_the_dtype"], "advantages are torch.int64"),
    (PoisonedByMasked(), ["ignores_nan_at_masked_steps"], "0 · NaN is NaN"),
    (Infinite(), ["is_finite"], "statistics of one number"),
    (NormalisedOverAll(), ["ignores_masked_steps"], "a sum, mean or norm over all steps"),
    (NormalisedOverAll(), ["ignores_padding"], "a mean over all rows"),
    (CountsRows(), ["ignores_padding"], "with 3 masked rows more below"),
    (EndsAtTheLastRow(), ["ignores_masked_steps", "bootstraps_at_time_limits"], "before a masked step"),
    (Counting(), ["is_deterministic"], "kept from call to call"),
    (Tossing(), ["is_deterministic"], "random numbers"),
    (LearnsInACall(), ["keeps_its_state_in_a_call"], "a call changed calls"),
    (LearnsFromNothing(), ["takes_in_any_batch"], "mean is [nan]"),
    (LearnsFromMasked(), ["takes_in_no_masked_step"], "take [batch.mask]"),
    (LearnsAndChanges(), ["takes_in_without_changing_it"], "take_in changed rewards"),
    (ReplacesItsStatistics(), ["keeps_its_statistics_in_place"], "take_in put another tensor"),
    (LoadsAnother(), ["keeps_its_statistics_in_place"], "load_state_dict put another tensor"),
    (ForgetsItsState(), ["restores_its_state"], "no part of statistics or state_dict()"),
    (GivesItsOwnState(), ["gives_copies_of_its_state"], "clone()"),
    (TakesAnyState(8), ["refuses_another_state"], "it took a state"),
    (StumblesOverAnyState(), ["refuses_another_state"], "KeyError('mean')"),
    (KeepsNoArgument(), ["keeps_its_arguments"], "self.bonus = bonus"),
    (TakesAnything(), ["keeps_its_arguments"], "**kwargs"),
    (KeepsAnotherArgument(), ["can_be_built_again"], "an attribute that is not the argument"),
    (PicklesLess(), ["can_be_pickled"], "a pickled copy"),
    (HalfAStep(), ["says_how_it_is_used"], "horizon: got 0.5"),
    (UnknownUnits(), ["says_how_it_is_used"], "target_units: got 'points'"),
    (MaybeAtEpisode(), ["says_how_it_is_used"], "end_at_episode: got None"),
    (PerhapsErrors(), ["says_how_it_is_used"], "advantages_are_errors: got None"),
    (TurnedRound(), ["welcomes_rewards"], "a sign, such as values less targets"),
    (RewardsLateInItsOwnUnits(), ["knows_nothing_of_earlier_rewards"], "rewards a step late"),
    (BootstrapsTargetsAlone(), ["bootstraps_at_time_limits"], "advantages did not change at step"),
    (Boasting(), ["keeps_its_word_on_advantages"], "advantages_are_errors is True"),
    (RatiosRunOn(), ["knows_nothing_before_its_episode"], "runs forwards over an episode's end"),
    (RatiosOfTheColumnBeside(), ["knows_no_order_of_columns"], "the column beside"),
    (RatiosTurnedRound(), ["weighs_what_the_policy_prefers"], "μ/π"),
    (RatiosWithoutBound(), ["bounds_its_ratios"], "importance_ratios has one"),
    (CutsAllColumns(), ["needs_no_company"], "over all columns"),
    (FrozenScale(), ["is_deterministic"], "kept from call to call"),
    (Seeding(), ["leaves_random_numbers_alone"], "seeded torch's random numbers"),
    (WithGradientAtTimeLimits(), ["carries_no_gradient"], "values.detach()"),
    (WeightsOf32Bits(), ["keeps_the_dtype"], "weights are torch.float32, expected torch.float64"),
    (Forgetful(VTrace(8)), ["says_what_the_ones_within_say"], "its carries_ratios are not those of estimator, VTrace"),
    (Forgetful(NStep(8, True)), ["says_what_the_ones_within_say"], "its horizon or end_at_episode"),
    (Forgetful(L2Normalised(NStep(8))), ["says_what_the_ones_within_say"], "its reusable"),
    (Forgetful(AverageReward(8)), ["says_what_the_ones_within_say"], "its statistics"),
    (FaultyOnceItHasLearned(), ["welcomes_rewards"], "once it has taken batches in: with 3 more as rewards"),
]
