"""Checks of what users write themselves: whether an estimator keeps to what training takes for granted.

Nothing in training imports this room.
"""

from a3c.testing.findings import EstimatorError, Finding
from a3c.testing.suite import check_estimator

__all__ = ["EstimatorError", "Finding", "check_estimator"]
