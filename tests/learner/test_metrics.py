import torch

from a3c.learner.metrics import LagRecord, MetricSums, column_lags, mean_lag


def test_lag_is_counted_from_the_first_step_of_each_column():
    lags = column_lags(5, torch.tensor([[1, 3, 3], [4, 5, 5]]))
    assert lags == {4: 1, 2: 2}
    assert mean_lag(lags) == (4 + 2 + 2) / 3


def test_sums_of_ones_own_and_of_others_are_taken_together_once():
    sums = MetricSums()
    sums.add({"loss": torch.tensor(1.0)})
    sums.add({"loss": torch.tensor(2.5), "norm": torch.tensor(4.0)})
    sums.add({"norm": torch.tensor(1.0)}, updates=0)
    sums.add_sums({"loss": 10.0, "other": 3.0}, updates=4)
    assert sums.take() == ({"loss": 13.5, "norm": 5.0, "other": 3.0}, 6)
    assert sums.take() == ({}, 0)


def test_the_lag_record_keeps_the_run_and_gives_windows():
    record = LagRecord()
    assert record.mean is None
    assert record.largest == 0
    record.add({0: 3, 2: 1})
    assert record.take_window() == {0: 3, 2: 1}
    record.add({7: 1, 1: 5})
    assert list(record.take_window().items()) == [(1, 5), (7, 1)]
    assert record.take_window() == {}
    assert record.mean == (0 * 3 + 2 + 7 + 5) / 10
    assert record.largest == 7
    again = LagRecord()
    again.load_state_dict(record.state_dict())
    assert again.counts == record.counts
    assert again.take_window() == {}
