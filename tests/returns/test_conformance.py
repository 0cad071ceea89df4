"""Every estimator of the package keeps to what training takes for granted."""

import inspect

import pytest

from a3c.returns import GAE, FullEpisode, L2Normalised, NStep, ReturnEstimator
from a3c.returns.labels import OWN, label_of
from a3c.testing import check_estimator

INNER = (GAE(8), NStep(5), FullEpisode(), NStep(5, end_at_episode=True))


def is_wrapper(cls):
    return any("ReturnEstimator" in str(each.annotation) for each in inspect.signature(cls).parameters.values())


def instances(cls):
    """Builds it with its defaults; one that wraps others, around each that it takes."""
    if not is_wrapper(cls):
        return [cls()]
    built = []
    for inner in INNER:
        try:
            built.append(cls(inner))
        except ValueError:  # it says that it does not take this one
            continue
    return built


@pytest.mark.parametrize("estimator", [each for cls in OWN.values() for each in instances(cls)], ids=label_of)
def test_it_passes_the_suite(estimator):
    check_estimator(estimator)


def test_none_is_left_out():
    assert len(instances(L2Normalised)) == len(INNER)
    for cls in OWN.values():
        assert issubclass(cls, ReturnEstimator)
        assert instances(cls)
