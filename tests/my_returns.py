"""An estimator of a user's own, in a file of their own."""

from a3c import ReturnEstimator, Targets


class OneStep(ReturnEstimator):
    """One-step TD targets with a bonus on every reward."""

    def __init__(self, bonus: float = 0.5):
        self.bonus = bonus
        self.horizon = 8

    def __call__(self, batch, values, log_probs, discounts):
        targets = batch.rewards + self.bonus + discounts * values[1:]
        return Targets(targets - values[:-1], targets)
