"""Small builders of batches and networks, so that a test shows only what it is about."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from a3c.batch import RolloutBatch
from a3c.networks import Categorical

Numbers = Sequence[float] | Sequence[Sequence[float]] | Tensor


def time_major(numbers: Numbers, dtype: torch.dtype) -> Tensor:
    """Gives [T, B] from a table of T rows, or [T, 1] from a plain list of T numbers."""
    table = torch.as_tensor(numbers).to(dtype)
    return table if table.dim() == 2 else table.unsqueeze(1)


def make_batch(
    rewards: Numbers,
    *,
    terminated: Numbers | None = None,
    truncated: Numbers | None = None,
    mask: Numbers | None = None,
    actions: Numbers | None = None,
    observations: Tensor | None = None,
    behaviour_log_probs: Numbers | None = None,
    env_ids: Sequence[int] | None = None,
    segment_ids: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> RolloutBatch:
    """Gives a batch of these rewards; what is not said is 0, and every step is real."""
    table = time_major(rewards, dtype)
    length, columns = table.shape

    def field(numbers: Numbers | None, default: float, field_dtype: torch.dtype) -> Tensor:
        if numbers is None:
            return torch.full((length, columns), default, dtype=field_dtype)
        return time_major(numbers, field_dtype)

    return RolloutBatch(
        observations=torch.zeros(length + 1, columns, 1) if observations is None else observations,
        actions=field(actions, 0, torch.int64),
        rewards=table,
        terminated=field(terminated, False, torch.bool),
        truncated=field(truncated, False, torch.bool),
        mask=field(mask, True, torch.bool),
        behaviour_log_probs=field(behaviour_log_probs, 0, dtype),
        policy_versions=torch.zeros(length, columns, dtype=torch.int64),
        states=torch.zeros(length, columns, 0),
        env_ids=torch.arange(columns) if env_ids is None else torch.tensor(env_ids),
        segment_ids=torch.zeros(columns, dtype=torch.int64) if segment_ids is None else torch.tensor(segment_ids),
    )


def discounts_of(batch: RolloutBatch, discount: float) -> Tensor:
    """Gives γ, or 0 where the episode terminated, [T, B], in the rewards' dtype."""
    return discount * (~batch.terminated).to(batch.rewards.dtype)


class TableNetwork(nn.Module):
    """Says the same logits [T+1, B, A] and values [T+1, B] whatever it is shown; both are its parameters."""

    value_unit: Tensor | None = None

    def __init__(self, logits: Tensor, values: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.values = nn.Parameter(values)

    def judge_batch(self, batch: RolloutBatch) -> tuple[Categorical, Tensor]:
        return Categorical(self.logits[:-1]), self.values
