"""The steps that a loss is made of: a whole batch, or a minibatch of it, once its targets are known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.networks.actor_critic import ActorCritic
from a3c.networks.distributions import Distribution
from a3c.peers.agreement import size as learners
from a3c.returns import Targets


class Judged(NamedTuple):
    """What a network makes of steps, with its graph.

    Attributes:
        policy: in the states acted in, [T, B].
        log_probs: log π(a|s) of the actions taken, [T, B].
        values: of the states acted in, [T, B].
    """

    policy: Distribution
    log_probs: Tensor
    values: Tensor


class Steps(NamedTuple):
    """Steps and what the two heads are to learn of them; nothing here carries a gradient.

    Single steps are a batch of one time step: [1, N].

    Attributes:
        observations: states acted in, [T, B, *observation_shape].
        begins: which are the first of an episode, [T, B].
        state: what a network with memory remembered before the first, [B, *state_shape].
        actions: taken, [T, B, *action_shape].
        mask: the step is a real one, [T, B].
        behaviour_log_probs: log μ(a|s) of the policy that acted, [T, B].
        first_log_probs: log π(a|s) of the policy that the update began with, [T, B].
        credit: advantages as the policy loss takes them, [T, B].
        advantages: as the estimator gave them, [T, B].
        value_targets: [T, B].
        weights: of the steps, [T, B]; None for 1.
    """

    observations: Tensor
    begins: Tensor
    state: Tensor
    actions: Tensor
    mask: Tensor
    behaviour_log_probs: Tensor
    first_log_probs: Tensor
    credit: Tensor
    advantages: Tensor
    value_targets: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, batch: RolloutBatch, log_probs: Tensor, targets: Targets, credit: Tensor) -> Steps:
        """Return all steps of a batch.

        Args:
            batch: transitions, [T, B].
            log_probs: log π(a|s) of the policy that the update begins with, [T, B].
            targets: of the estimator, [T, B].
            credit: advantages as the policy loss takes them, [T, B].
        """
        return cls(
            batch.observations[:-1],
            batch.begins[:-1],
            batch.states[0],
            batch.actions,
            batch.mask,
            batch.behaviour_log_probs,
            log_probs.detach(),
            credit,
            *targets,
        )

    def judged_by(self, network: ActorCritic) -> Judged:
        """Return what a network makes of these steps now."""
        judgement = network.judge(self.observations, self.state, self.begins)
        policy = network.actions(judgement.parameters, judgement.mask)
        return Judged(policy, policy.log_prob(self.actions), judgement.values)

    def minibatches(self, count: int, by_columns: bool, generator: torch.Generator) -> list[Steps]:
        """Return so many parts of equal size, at random; a learner that is alone leaves out those without a real step.

        Args:
            count: number of parts, ≥ 1.
            by_columns: whole columns stay together; else single steps are drawn.
            generator: of the order.
        """
        size = self.mask.shape[1] if by_columns else self.mask.numel()
        order = torch.randperm(size, generator=generator).to(self.mask.device).tensor_split(count)
        parts = [self._columns(places) if by_columns else self._single(places) for places in order]
        if learners() > 1:  # each makes as many steps as the others
            return parts
        return [part for part in parts if part.mask.any()] or parts[:1]

    def _columns(self, places: Tensor) -> Steps:
        axes = {name: 0 if name == "state" else 1 for name in self._fields}
        return self._replace(**{name: field.index_select(axes[name], places) for name, field in self._there().items()})

    def _single(self, places: Tensor) -> Steps:
        steps = {name: field.flatten(0, 1) for name, field in self._there().items() if name != "state"}
        return self._replace(**{name: field.index_select(0, places).unsqueeze(0) for name, field in steps.items()})

    def _there(self) -> dict[str, Tensor]:
        return {name: field for name, field in self._asdict().items() if field is not None}
