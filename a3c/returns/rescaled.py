"""Values in units that grow like a square root: the critic learns h(G) instead of G."""

from __future__ import annotations

import torch
from torch import Tensor

from a3c.batch import RolloutBatch
from a3c.returns.base import ReturnEstimator, Targets, check_range
from a3c.returns.wrapper import Wrapper


def signed_hyperbolic(x: Tensor, epsilon: float) -> Tensor:
    """Compress numbers of any size: h(x) = sign(x)·(√(|x| + 1) − 1) + ε·x.

    Pohlen et al. (2018), arXiv:1805.11593.

    Args:
        x: numbers of any shape.
        epsilon: ε ≥ 0, the slope that remains where x is large; h⁻¹ is Lipschitz continuous if it is above 0.
    """
    wide = x.double()  # in 32 bits there and back would lose half the digits of a small x
    return (wide.sign() * ((wide.abs() + 1).sqrt() - 1) + epsilon * wide).to(x.dtype)


def signed_parabolic(x: Tensor, epsilon: float) -> Tensor:
    """Return h⁻¹(x) = sign(x)·(s² − 1), where s ≥ 1 solves ε·s² + s = |x| + 1 + ε.

    The paper's s = (√(1 + 4ε·(|x| + 1 + ε)) − 1) / 2ε, written so that nothing cancels and ε may be 0.

    Args:
        x: numbers of any shape.
        epsilon: ε ≥ 0, as in `signed_hyperbolic`.
    """
    wide = x.double()
    sums = wide.abs() + 1 + epsilon
    roots = 2 * sums / (1 + torch.sqrt(1 + 4 * epsilon * sums))
    return (wide.sign() * (roots.square() - 1)).to(x.dtype)


class ValueRescaled(Wrapper):
    """Has the critic learn another estimator's targets in the units of h: Pohlen et al. (2018), arXiv:1805.11593.

    What the critic says is h(V): the estimator within is given h⁻¹ of it, and its value targets G become h(G). Large
    returns then make no large errors, without rewards being clipped. Advantages stay in the units of rewards.

    Args:
        estimator: the one whose targets are transformed.
        epsilon: ε of h(x) = sign(x)·(√(|x| + 1) − 1) + ε·x, at least 0; 10⁻³ is that of R2D2 (Kapturowski et al. 2019).

    Raises:
        ValueError: epsilon below 0.
    """

    def __init__(self, estimator: ReturnEstimator, epsilon: float = 1e-3) -> None:
        super().__init__(estimator)
        check_range("epsilon", epsilon, 0)
        self.epsilon = epsilon
        self.target_units = "own"

    def __call__(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> Targets:
        inner = self.estimator(batch, self._unscaled(values), log_probs, discounts)
        return inner._replace(value_targets=signed_hyperbolic(inner.value_targets, self.epsilon))

    def take_in(self, batch: RolloutBatch, values: Tensor, log_probs: Tensor, discounts: Tensor) -> None:
        super().take_in(batch, self._unscaled(values), log_probs, discounts)

    def _unscaled(self, values: Tensor) -> Tensor:
        return signed_parabolic(values.detach(), self.epsilon)
