"""The data contract: joining columns, views, copies and sizes."""

import torch
from builders import make_batch

from a3c.batch import TIME_FIELDS, BatchShape, RolloutBatch, empty_batch, join_columns


def numbered(length: int, columns: int, start: int) -> RolloutBatch:
    """A batch with every flag True, whose k-th field counts up from start + 1000·k."""
    fields = []
    for k, (size, dtype) in enumerate(BatchShape(length, columns, (2,), torch.float32).fields().values()):
        first = start + 1000 * k
        numbers = torch.arange(first, first + torch.Size(size).numel()).reshape(size)
        fields.append(torch.ones_like(numbers, dtype=dtype) if dtype is torch.bool else numbers.to(dtype))
    return RolloutBatch(*fields)


def test_a_batch_knows_its_length_and_columns():
    batch = make_batch([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert (batch.length, batch.columns) == (3, 2)


def test_batches_of_one_length_are_concatenated_column_by_column():
    left, right = numbered(3, 2, 100), numbered(3, 1, 500)
    joined = join_columns([left, right])
    assert (joined.length, joined.columns) == (3, 3)
    for name in TIME_FIELDS:
        field = getattr(joined, name)
        assert torch.equal(field[:, :2], getattr(left, name))
        assert torch.equal(field[:, 2:], getattr(right, name))
    assert joined.env_ids.tolist() == [9100, 9101, 9500]
    assert joined.segment_ids.tolist() == [10100, 10101, 10500]


def test_shorter_batches_are_padded_below_with_masked_zeros():
    short, long = numbered(2, 1, 100), numbered(4, 2, 500)
    joined = join_columns([short, long])
    assert (joined.length, joined.columns) == (4, 3)
    for name in TIME_FIELDS:
        field, own = getattr(joined, name), getattr(short, name)
        assert torch.equal(field[: len(own), :1], own)
        assert not field[len(own) :, :1].any()
        assert torch.equal(field[:, 1:], getattr(long, name))
    assert joined.mask[:, 0].tolist() == [True, True, False, False]
    assert joined.observations.shape == (5, 3, 2)
    assert joined.observations[2, 0].tolist() == [104, 105]  # the state after the short batch's last step
    assert joined.env_ids.tolist() == [9100, 9500, 9501]
    assert joined.segment_ids.tolist() == [10100, 10500, 10501]


def test_joining_keeps_every_dtype():
    batches = [empty_batch(BatchShape(length, 1, (3,), torch.uint8)) for length in (2, 4)]
    for joined in (join_columns(batches), join_columns([batches[0], batches[0]])):
        assert [field.dtype for field in joined] == [field.dtype for field in batches[0]]


def test_a_single_batch_is_joined_without_a_copy():
    batch = numbered(2, 1, 0)
    assert join_columns([batch]) is batch


def test_joined_batches_have_memory_of_their_own():
    left, right = numbered(2, 1, 0), numbered(2, 1, 50)
    joined = join_columns([left, right])
    left.rewards.fill_(-1)
    assert joined.rewards[:, 0].tolist() == [2000, 2001]


def test_first_gives_views_of_the_first_steps_and_one_observation_more():
    batch = numbered(4, 2, 0)
    head = batch.first(3)
    assert (head.length, head.columns) == (3, 2)
    assert torch.equal(head.observations, batch.observations[:4])
    for name in TIME_FIELDS[1:]:
        assert torch.equal(getattr(head, name), getattr(batch, name)[:3])
    assert torch.equal(head.env_ids, batch.env_ids)
    assert torch.equal(head.segment_ids, batch.segment_ids)
    batch.rewards[2, 1] = -7
    assert head.rewards[2, 1] == -7


def test_first_of_all_steps_is_the_batch_itself():
    batch = numbered(4, 2, 0)
    assert batch.first(4) is batch


def test_a_copy_is_equal_and_shares_no_memory():
    batch = numbered(3, 2, 0)
    copy = batch.copy()
    for field, copied in zip(batch, copy, strict=True):
        assert torch.equal(field, copied)
        assert field.data_ptr() != copied.data_ptr() or field.numel() == 0


def test_nbytes_counts_every_field():
    shape = BatchShape(length=2, columns=3, observation_shape=(4,), observation_dtype=torch.float32)
    observations = 3 * 3 * 4 * 4  # T+1 rows of 3 columns of 4 float32
    steps = 6 * (8 + 4 + 1 + 1 + 1 + 4 + 8)  # action, reward, three flags, log-probability, version
    columns = 3 * (8 + 8)  # env and segment
    assert shape.nbytes == observations + steps + columns
    assert shape.nbytes == sum(field.nbytes for field in empty_batch(shape))


def test_nbytes_counts_bytes_of_pixels_as_one_each():
    pixels = BatchShape(1, 1, (2, 5, 5), torch.uint8)
    floats = BatchShape(1, 1, (2, 5, 5), torch.float32)
    assert floats.nbytes - pixels.nbytes == 2 * 50 * 3  # T+1 observations of 50 numbers, 4 bytes or 1


def test_an_empty_batch_has_no_real_step():
    batch = empty_batch(BatchShape(2, 2, (), torch.float32))
    assert not batch.mask.any()
    assert batch.observations.shape == (3, 2)


def test_actions_of_more_axes_and_another_dtype_are_joined_like_all_else():
    batches = [empty_batch(BatchShape(length, 1, (3,), torch.uint8, (2,), torch.float32)) for length in (2, 4)]
    batches[1].actions[3, 0] = torch.tensor([0.5, 1.5])
    joined = join_columns(batches)
    assert joined.actions.shape == (4, 2, 2)
    assert joined.actions[3].tolist() == [[0, 0], [0.5, 1.5]]
    assert joined.first(3).actions.shape == (3, 2, 2)
