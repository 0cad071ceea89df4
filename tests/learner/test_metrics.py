import torch

from a3c.learner.metrics import LagRecord, MetricSums, Sum, column_lags, mean_lag


def test_lag_is_counted_from_the_first_step_of_each_column():
    lags = column_lags(5, torch.tensor([[1, 3, 3], [4, 5, 5]]))
    assert lags == {4: 1, 2: 2}
    assert mean_lag(lags) == (4 + 2 + 2) / 3


def test_sums_of_ones_own_and_of_others_are_taken_together_once():
    sums = MetricSums()
    sums.add({"loss": torch.tensor(1.0)})
    sums.add({"loss": torch.tensor(2.5), "norm": torch.tensor(4.0)})
    sums.updates += 2
    sums.add_sums({"loss": Sum(10.0, 3), "other": Sum(3.0, 4)}, updates=4)
    assert sums.take() == ({"loss": (13.5, 5), "norm": (4.0, 1), "other": (3.0, 4)}, 6)
    assert sums.take() == ({}, 0)


def test_a_metric_that_is_not_there_every_time_has_the_mean_of_when_it_was():
    sums = MetricSums()
    for metrics in ({"loss": 1.0}, {"loss": 2.0, "pass_2/clip_fraction": 0.5}, {"loss": 6.0}):
        sums.add({key: torch.tensor(value) for key, value in metrics.items()})
    assert sums.take_means() == {"loss": 3.0, "pass_2/clip_fraction": 0.5}
    assert sums.take_means() == {}


def test_of_ratios_extremes_the_extreme_is_kept_of_ones_own_and_of_others():
    sums = MetricSums()
    for largest, smallest in ((1.5, 0.5), (3.0, 0.25), (2.0, 1.0)):
        sums.add({"a/largest_ratio": torch.tensor(largest), "pass_1/smallest_ratio": torch.tensor(smallest)})
    sums.add_sums({"a/largest_ratio": Sum(4.0, 9), "pass_1/smallest_ratio": Sum(0.5, 9)}, updates=1)
    assert sums.take_means() == {"a/largest_ratio": 4.0, "pass_1/smallest_ratio": 0.25}


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
