"""The data contract between collection and learning: what a rollout holds, and in which shapes.

Everything is time-major. T is the number of steps of a fragment, B its number of columns (one
environment, or one episode segment, a column).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class RolloutBatch(NamedTuple):
    """Transitions of B columns over T steps, as an estimator and a loss read them.

    Vector environments reset themselves in the step *after* an episode's end (Gymnasium's
    ``NEXT_STEP`` mode). So ``observations[t + 1]`` is always the state that step t led to, the
    final one of an episode included, and the reset step that follows has ``mask`` False.
    Padding below a shorter column has ``mask`` False as well.

    Attributes:
        observations: states before each action and after the last one, [T+1, B, *shape].
        actions: actions taken, [T, B, *action_shape], in the dtype of their space's layout.
        rewards: rewards received for them, [T, B], float32.
        terminated: the step ended its episode in a terminal state, [T, B], bool.
        truncated: the step's episode was cut by a time limit, [T, B], bool.
        mask: the step is a real transition, [T, B], bool; False on reset steps and padding.
        behaviour_log_probs: log μ(a|s) under the policy that acted, [T, B], float32.
        policy_versions: version of the weights that acted, [T, B], int64.
        states: what a network with memory remembered before each action, [T, B, *state_shape], float32;
            [T, B, 0] of a network without.
        env_ids: identity of each column's environment in the whole run, [B], int64.
        segment_ids: place of each column among its environment's segments, counted from 0, [B],
            int64; consecutive segments of one environment join to its full trajectory.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    behaviour_log_probs: Tensor
    policy_versions: Tensor
    states: Tensor
    env_ids: Tensor
    segment_ids: Tensor

    @property
    def length(self) -> int:
        """Number of time steps T."""
        return self.rewards.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns B."""
        return self.rewards.shape[1]

    @property
    def begins(self) -> Tensor:
        """Whether each observation is the first of an episode that began within the batch, [T+1, B], bool."""
        return torch.cat((torch.zeros_like(self.mask[:1]), ~self.mask))

    def first(self, steps: int) -> RolloutBatch:
        """Return views of the first `steps` time steps, all columns."""
        if steps == self.length:
            return self
        rows = {name: getattr(self, name)[:steps] for name in TIME_FIELDS[1:]}
        return self._replace(observations=self.observations[: steps + 1], **rows)

    def real_steps(self, steps: int) -> int:
        """Return the number of real transitions among the first `steps` time steps that were written.

        For a fragment that was left unfinished: of its mask only the first row is read.
        """
        if steps == 0:
            return 0
        ended = self.terminated[: steps - 1] | self.truncated[: steps - 1]
        return int(self.mask[0].sum()) + int((~ended).sum())

    def to(self, device: torch.device | str) -> RolloutBatch:
        """Return the batch on a device; the same one if it is there."""
        return RolloutBatch(*(field.to(device) for field in self))

    def copy(self) -> RolloutBatch:
        """Return the same batch in memory of its own."""
        return RolloutBatch(*(field.clone() for field in self))


TIME_FIELDS = RolloutBatch._fields[:9]  # those with a time axis; the rest is one value a column


class BatchShape(NamedTuple):
    """Sizes and dtypes of a batch's memory.

    Attributes:
        length: time steps T.
        columns: columns B.
        observation_shape: shape of one observation.
        observation_dtype: dtype of the observations.
        action_shape: shape of one action.
        action_dtype: dtype of the actions.
        state_shape: shape of what a network remembers of one column.
    """

    length: int
    columns: int
    observation_shape: Sequence[int]
    observation_dtype: torch.dtype
    action_shape: Sequence[int] = ()
    action_dtype: torch.dtype = torch.int64
    state_shape: Sequence[int] = (0,)

    @classmethod
    def like(cls, fields: Mapping[str, Tensor], length: int, columns: int) -> BatchShape:
        """Return the shape of a batch of other sizes, with observations, actions and states like these, [T, B, ...]."""
        observations, actions, states = (fields[name] for name in ("observations", "actions", "states"))
        return cls(
            length,
            columns,
            observations.shape[2:],
            observations.dtype,
            actions.shape[2:],
            actions.dtype,
            states.shape[2:],
        )

    def fields(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return shape and dtype of every field of the batch, in its order."""
        steps, columns = (self.length, self.columns), (self.columns,)
        return {
            "observations": ((self.length + 1, self.columns, *self.observation_shape), self.observation_dtype),
            "actions": ((*steps, *self.action_shape), self.action_dtype),
            "rewards": (steps, torch.float32),
            "terminated": (steps, torch.bool),
            "truncated": (steps, torch.bool),
            "mask": (steps, torch.bool),
            "behaviour_log_probs": (steps, torch.float32),
            "policy_versions": (steps, torch.int64),
            "states": ((*steps, *self.state_shape), torch.float32),
            "env_ids": (columns, torch.int64),
            "segment_ids": (columns, torch.int64),
        }

    @property
    def nbytes(self) -> int:
        """Bytes that such a batch takes."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.fields().values())


def empty_batch(shape: BatchShape, device: torch.device | None = None) -> RolloutBatch:
    """Return a batch of zeros: nothing masked in, no episode ended.

    Args:
        shape: of the batch.
        device: that it is on; None for the CPU.
    """
    return RolloutBatch(*(torch.zeros(size, dtype=dtype, device=device) for size, dtype in shape.fields().values()))


def join_columns(batches: Sequence[RolloutBatch]) -> RolloutBatch:
    """Join batches side by side, the shorter ones padded below with masked zeros.

    A single batch is given back as it is, without a copy.
    """
    if len(batches) == 1:
        return batches[0]
    if len({batch.length for batch in batches}) == 1:
        fields = zip(*batches, strict=True)
        return RolloutBatch(*(torch.cat(parts, dim=min(parts[0].dim(), 2) - 1) for parts in fields))
    length = max(batch.length for batch in batches)
    columns = sum(batch.columns for batch in batches)
    joined = empty_batch(BatchShape.like(batches[0]._asdict(), length, columns), batches[0].mask.device)
    column = 0
    for batch in batches:
        end = column + batch.columns
        for name in TIME_FIELDS:
            part = getattr(batch, name)
            getattr(joined, name)[: part.shape[0], column:end] = part
        joined.env_ids[column:end] = batch.env_ids
        joined.segment_ids[column:end] = batch.segment_ids
        column = end
    return joined


class Episode(NamedTuple):
    """One whole episode as the environment itself scored it, beneath any reward wrapper."""

    episode_return: float
    length: int


class Rollout(NamedTuple):
    """One fragment from one collector, with the episodes that ended in it.

    Attributes:
        batch: the fragment; its memory is the source's own and is reused after `release`.
        episodes: the episodes that ended within it, in the order in which they ended.
        worker: which collector it comes from.
        is_last: the collector's episode budget is used up: nothing more comes from it.
        release: gives the memory back to the source; the batch must not be read after it.
    """

    batch: RolloutBatch
    episodes: Sequence[Episode]
    worker: int
    is_last: bool
    release: Callable[[], None]


class Lost(NamedTuple):
    """Steps that a source lost, and with them the unfinished episodes of the collector they came from.

    Attributes:
        worker: which collector; its environments begin new episodes.
        env_steps: real steps lost that were never handed over.
        reason: key among the reasons to drop.
    """

    worker: int
    env_steps: int
    reason: str
