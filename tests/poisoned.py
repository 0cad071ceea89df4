"""An estimator and a network that spoil chosen updates; workers import this module."""

import torch

from a3c import MLPActorCritic, NStep, Targets


class PoisonedNStep(NStep):
    """Gives advantages of NaN from a process's call `first` on, `count` times, to environments from `from_env` on."""

    def __init__(self, n_steps=8, first=3, count=1, from_env=0):
        super().__init__(n_steps)
        self.first, self.count, self.from_env = first, count, from_env
        self.calls = 0

    def __call__(self, batch, values, log_probs, discounts):
        targets = super().__call__(batch, values, log_probs, discounts)
        if int(batch.env_ids[0]) < self.from_env:
            return targets
        self.calls += 1
        if not self.first <= self.calls < self.first + self.count:
            return targets
        return Targets(targets.advantages * torch.nan, targets.value_targets)


class CountingNetwork(MLPActorCritic):
    """Counts in a buffer how often it was trained on; the gradients of chosen calls are infinite, the loss is not."""

    def __init__(self, observation_space, action_space, hidden_sizes=(8,), poisoned_calls=()):
        super().__init__(observation_space, action_space, hidden_sizes)
        self.poisoned_calls = list(poisoned_calls)
        self.calls = 0
        self.register_buffer("trained_on", torch.zeros(()))

    def forward(self, observations):
        logits, values = super().forward(observations)
        self.calls += 1
        self.trained_on += 1
        if self.calls in self.poisoned_calls:
            logits.register_hook(lambda gradient: gradient * torch.inf)
        return logits, values
