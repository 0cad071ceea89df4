import math

import numpy as np
import pytest

from a3c.batch import Episode
from a3c.evaluation.evaluator import Evaluation
from a3c.evaluation.scores import score


def evaluation(*returns):
    return Evaluation([Episode(float(one), 1) for one in returns])


def test_the_figures_of_four_episodes():
    scores = score(evaluation(1000, 0, 20, 10))
    assert scores.mean == (1000 + 0 + 20 + 10) / 4
    assert scores.iqm == (10 + 20) / 2  # a quarter of four episodes is one at either end
    assert (scores.minimum, scores.maximum) == (0, 1000)
    assert scores.std == pytest.approx(np.std([1000, 0, 20, 10]))


def test_the_interval_of_many_episodes_is_that_of_the_normal_approximation():
    returns = np.random.default_rng(3).normal(50, 10, size=2000)
    low, high = score(evaluation(*returns)).interval
    half = 1.96 * returns.std() / math.sqrt(2000)
    assert low == pytest.approx(returns.mean() - half, abs=0.05)
    assert high == pytest.approx(returns.mean() + half, abs=0.05)


def test_the_interval_leans_the_way_the_returns_do():
    # The percentiles of the resampled means lean by a factor of 1.25 here; corrected, by 1.9.
    scores = score(evaluation(*[500] * 95, 300, 200, 100, 50, 10))
    low, high = scores.interval
    assert scores.mean - low > 1.6 * (high - scores.mean) > 0


def test_the_interval_depends_on_the_seed_alone():
    returns = np.random.default_rng(0).exponential(10, size=50)
    one, again, other = (score(evaluation(*returns), seed).interval for seed in (1, 1, 2))
    assert one == again != other


def test_episodes_all_alike_have_an_interval_of_no_width_and_a_single_one_has_none():
    assert score(evaluation(500, 500, 500)).interval == (500, 500)
    assert score(evaluation(0.1 + 0.2, 0.3)).interval == pytest.approx((0.3, 0.3))
    assert score(evaluation(7)).interval is None


def test_a_return_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="episode 2 of 3 has a return of nan, must be finite"):
        score(evaluation(1, math.nan, 2))
