"""A learner that is on a device of its own, a GPU: rollouts on their way to it, and weights on their way back."""
