"""From a batch to a step on the weights."""
