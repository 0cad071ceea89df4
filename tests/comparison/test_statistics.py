"""Statistics against figures computed by hand, and against what is known of them."""

import math

import numpy as np
import pytest
from scipy import stats

from a3c.comparison.statistics import band, difference, holm, iqm, p_value, probability_of_improvement, score

LOW, HIGH = np.array([1.0, 2.0, 3.0, 4.0]), np.array([11.0, 12.0, 13.0, 14.0])


def test_the_interquartile_mean_cuts_a_quarter_at_each_end():
    assert iqm(np.array([0.0, 1, 2, 3, 4, 5, 6, 1000])) == (2 + 3 + 4 + 5) / 4
    assert iqm(np.array([0.0, 10, 500, 500, 500])) == pytest.approx((10 + 500 + 500) / 3)
    assert iqm(np.array([9.0, 300, 400])) == (9 + 300 + 400) / 3  # of 3 none is cut
    assert iqm(np.array([0.0, 1]), np.array([2.0, 99])) == (1 + 2) / 2  # all samples together


def test_probability_of_improvement_is_u_by_n_m():
    ours, theirs = np.array([1.0, 3, 3, 7, 8]), np.array([2.0, 3, 6])
    u = stats.mannwhitneyu(ours, theirs).statistic
    assert probability_of_improvement([ours], [theirs]).value == pytest.approx(u / 15)
    assert probability_of_improvement([HIGH], [LOW]) == (1, 1, 1)
    assert probability_of_improvement([LOW], [LOW]).value == 0.5
    assert probability_of_improvement([HIGH, LOW], [LOW, HIGH]).value == 0.5  # the mean over environments


def test_a_difference_of_shifted_samples_is_the_shift():
    found = difference([HIGH], [LOW])
    assert found.value == 10
    assert 6 < found.low < 10 < found.high < 14
    assert found == difference([HIGH], [LOW])  # drawn from a fixed seed


def test_intervals_cover_what_they_should():
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        found = score([generator.normal(5, 1, size=30)])
        inside += found.low <= 5 <= found.high
    assert inside >= 52


def test_bootstrap_samples_are_drawn_within_environments():
    """Across environments that are each without spread, any mixing would give one."""
    found = score([np.zeros(4), np.ones(4)])
    assert found == (0.5, 0.5, 0.5)


def test_fewer_than_three_runs_give_no_interval():
    for found in (score([LOW[:2]]), difference([LOW], [HIGH[:2]]), probability_of_improvement([LOW[:1]], [HIGH])):
        assert math.isfinite(found.value)
        assert not found.has_interval
    assert math.isnan(p_value([LOW[:2]], [HIGH]))
    assert score([LOW[:3]]).has_interval


def test_the_p_value_of_few_runs_is_welchs_on_both_sides():
    ours, theirs = np.array([1.0, 5, 6, 8, 20]), np.array([4.0, 7, 9, 12, 13])
    expected = stats.ttest_ind(ours, theirs, equal_var=False).pvalue
    assert p_value([ours], [theirs]) == pytest.approx(expected)
    assert p_value([theirs], [ours]) == pytest.approx(expected)
    assert p_value([HIGH, HIGH], [LOW, LOW]) < p_value([HIGH], [LOW])  # two environments say more
    assert p_value([HIGH, LOW], [LOW, HIGH]) == pytest.approx(1)  # or the opposite of each other


def test_from_ten_runs_on_one_that_failed_does_not_hide_the_others():
    ours, theirs = np.arange(10.0) + 10, np.arange(10.0)
    ours[3] = -200
    assert p_value([ours], [theirs]) == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False, trim=0.25).pvalue)
    assert p_value([ours], [theirs]) < 0.01
    assert p_value([ours[:9]], [theirs]) > 0.1


def test_samples_without_spread_are_the_same_or_differ():
    assert p_value([np.full(4, 500.0)], [np.full(4, 500.0)]) == 1
    assert p_value([np.full(4, 500.0)], [np.full(4, 9.0)]) == 0


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])


def test_a_band_lies_around_its_mean():
    curves = np.random.default_rng(1).normal(size=(5, 7)).cumsum(axis=1)
    middle, low, high = band(curves)
    assert middle == pytest.approx([iqm(curves[:, point]) for point in range(7)])
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert (low < high).all()
