"""How return estimators differ on one and the same batch, while one of them trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from a3c.envs.random_states import random_states_kept
from a3c.learner.losses import MaskedReduction, policy_gradient_loss
from a3c.learner.objective import Estimation
from a3c.returns import GAE, FullEpisode, NStep, ReturnEstimator, Targets, VTrace
from a3c.returns.labels import label_of

AT_ONCE = ("target_variance", "advantage_correlation", "sign_agreement", "gradient_cosine")
MEASURES = ("target_variance", "bias", *AT_ONCE[1:])
ROUNDING = 1e-12  # of numbers of 64 bits, relative to the largest


def default_estimators(trained: ReturnEstimator) -> list[ReturnEstimator]:
    """Return one estimator of each kind, on rollouts as the trained one has them.

    FullEpisode is among them where rollouts are whole episodes; elsewhere it would be NStep.
    """
    n_steps = trained.horizon
    if n_steps is None:
        return [FullEpisode(), NStep(1), NStep(), GAE(), VTrace()]
    return [NStep(1), NStep(n_steps), GAE(n_steps), VTrace(n_steps)]


def named(estimators: Iterable[ReturnEstimator], trained: ReturnEstimator) -> dict[str, ReturnEstimator]:
    """Name estimators for what they are on rollouts of another one, which comes first.

    An estimator that would have trained on rollouts of the same length goes by its label, and so does an
    NStep that cuts the trace of longer ones. Any other is something else here than in a run of its own:
    FullEpisode ends with the critic where the rollout ends, and GAE looks as far as that. It goes by
    ``FullEpisode@32`` on rollouts of 32 steps, and by ``GAE@episode`` on whole episodes.

    Args:
        estimators: those to compare, in any order; the same one counts once.
        trained: the one whose rollouts they see.
    """
    steps = trained.horizon
    place = "episode" if steps is None else str(steps)
    found = {label_of(trained): trained}
    for estimator in estimators:
        cuts_itself = isinstance(estimator, NStep) and (steps is None or estimator.n_steps < steps)
        label = label_of(estimator)
        if estimator.horizon != steps and not cuts_itself:
            label += f"@{place}"
        found.setdefault(label, estimator)
    return found


def ask_all(estimation: Estimation, trained: str, estimators: Mapping[str, ReturnEstimator]) -> dict[str, Targets]:
    """Return every estimator's targets for one batch; those that train are not worked out again.

    Args:
        estimation: of the estimator that trains.
        trained: its label.
        estimators: all, that one among them, by label.
    """
    with random_states_kept():  # an estimator of one's own may draw, and training may not notice
        return {
            label: estimation.targets if label == trained else estimation.ask(estimator)
            for label, estimator in estimators.items()
        }


def compare(estimation: Estimation, targets: Mapping[str, Targets], network: nn.Module) -> dict[str, dict[str, float]]:
    """Compare targets with those that train, over the batch's real steps.

    Args:
        estimation: of the estimator that trains; its graph stays as it is, and no gradient is stored.
        targets: those to compare, by label.
        network: the one that the estimation's log-probabilities come from.

    Returns:
        For each label the measures `AT_ONCE`: the value targets' variance (in squared units of scaled rewards);
        Pearson's correlation of the advantages with those that train, and the share of steps where both have
        the same sign; and the cosine between the two gradients of the policy term with respect to the
        parameters that it reaches. NaN where a measure is not defined: of advantages that are all
        alike, of a gradient of zero.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    mask = estimation.batch.mask

    def policy_gradient(targets: Targets) -> Tensor:
        reduce = MaskedReduction(mask, "mean", targets.weights)
        loss = policy_gradient_loss(estimation.log_probs, targets.advantages, reduce)
        # Never .backward(): it would add to the gradients that the update is made of.
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).double()

    own = estimation.targets.advantages[mask].double()
    own_gradient = policy_gradient(estimation.targets)
    rows = []
    for each in targets.values():
        other = each.advantages[mask].double()
        gradient = own_gradient if each is estimation.targets else policy_gradient(each)
        variance = each.value_targets[mask].double().var(correction=0)
        rows.append(
            torch.stack((variance, correlation(other, own), sign_agreement(other, own), cosine(gradient, own_gradient)))
        )
    numbers = torch.stack(rows).tolist()  # one read for all
    return {label: dict(zip(AT_ONCE, row, strict=True)) for label, row in zip(targets, numbers, strict=True)}


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of the angle between two vectors; NaN if one is zero."""
    angle: Tensor = torch.dot(first, second) / (first.norm() * second.norm())
    return angle


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's correlation of two vectors; NaN if one has equal numbers only."""

    def centred(numbers: Tensor) -> Tensor:
        deviations = numbers - numbers.mean()
        return deviations.where(deviations.abs() > ROUNDING * numbers.abs().max(), 0)

    return cosine(centred(first), centred(second))


def sign_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of places where two vectors have the same sign; 0 is a sign of its own."""
    agreement: Tensor = (first.sign() == second.sign()).double().mean()
    return agreement
