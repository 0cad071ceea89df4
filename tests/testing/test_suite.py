"""The suite for estimators: it takes correct ones of every kind, finds every planted fault, and says what it is."""

import copy
import inspect

import pytest
import torch
from kinds import (
    BatchNormalised,
    ColumnNormalised,
    FromAverage,
    LeaveOneOut,
    PlainTuple,
    Positive,
    Rescaled,
    SelfNormalised,
    Upgoing,
)
from planted import FAULTS, Faulty

from a3c.returns import GAE, FullEpisode, L2Normalised, NStep, ReturnEstimator, VTrace
from a3c.testing import EstimatorError, check_estimator, construction, form
from a3c.testing.columns import make_case
from a3c.testing.subject import Subject
from a3c.testing.suite import CHECKS

CORRECT = [
    FullEpisode(),
    *(NStep(n_steps, end_at_episode) for n_steps in (1, 2, 5, 32, 1000) for end_at_episode in (False, True)),
    GAE(8, 0.0),
    GAE(600, 0.9),
    VTrace(8, 0.9, 0.8),
    Faulty(),
    *(L2Normalised(inner) for inner in (FullEpisode(), NStep(3), NStep(3, True), GAE())),
    *(BatchNormalised(inner) for inner in (FullEpisode(), NStep(1), NStep(5), GAE(), Positive(VTrace()))),
    *(ColumnNormalised(inner) for inner in (FullEpisode(), NStep(5), GAE())),
    *(Positive(inner) for inner in (FullEpisode(), GAE(), BatchNormalised(GAE()))),
    *(Rescaled(inner) for inner in (FullEpisode(), NStep(5), GAE())),
    LeaveOneOut(),
    SelfNormalised(),
    FromAverage(),
    Positive(SelfNormalised()),
    Upgoing(),
    PlainTuple(),
]
NAMES = {"ids": lambda value: type(value).__name__ if isinstance(value, ReturnEstimator) else ""}


@pytest.mark.parametrize("estimator", CORRECT, **NAMES)
def test_a_correct_estimator_of_any_kind_passes(estimator):
    assert check_estimator(estimator) is None


@pytest.mark.parametrize(("estimator", "checks", "words"), FAULTS, **NAMES)
def test_a_planted_fault_is_found_and_explained(estimator, checks, words):
    with pytest.raises(EstimatorError) as caught:
        check_estimator(estimator)
    texts = dict(caught.value.findings)
    assert texts.keys() >= set(checks)
    assert words in texts[checks[0]]
    assert all(f"{name}: {text}" in str(caught.value) for name, text in texts.items())


def test_every_check_finds_some_fault():
    every = {check.__name__ for check in (*CHECKS, form.returns_targets, form.is_deterministic)}
    assert {name for _, checks, _ in FAULTS for name in checks} == {*every, construction.says_how_it_is_used.__name__}


def test_every_check_is_explained_where_it_stands():
    for check in CHECKS:
        assert len(inspect.getdoc(check)) > 20


def test_all_that_is_wrong_is_said_at_once_with_the_column_drawn():
    class Thrice(Faulty):
        def __init__(self, n_steps: int = 8, bonus: float = 0.0):
            super().__init__(n_steps)

        def next_values(self, batch, values):
            return values[1:].masked_fill(batch.truncated, 0)

    with pytest.raises(EstimatorError, match=r"^Thrice: 3 checks failed\. .* T one that terminates") as caught:
        check_estimator(Thrice())
    assert [name for name, _ in caught.value.findings] == [
        "bootstraps_at_time_limits",
        "agrees_with_an_exact_critic",
        "keeps_its_arguments",
    ]
    assert 'at step 0 of column 2, "[t]-........T"' in caught.value.findings[0].text


def test_what_the_estimator_raises_itself_comes_through_with_a_note_of_the_columns():
    class Broken(Faulty):
        def finish(self, targets, values, batch):
            raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own") as caught:
        check_estimator(Broken())
    assert caught.traceback[-1].name == "finish"
    assert caught.value.__notes__[0].startswith("Broken raised it for columns drawn as ['.......'] (. a step")


def test_what_take_in_raises_comes_through_as_well():
    class Broken(FromAverage):
        def take_in(self, batch, values, log_probs, discounts):
            raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own") as caught:
        check_estimator(Broken())
    assert caught.value.__notes__[0].startswith("Broken raised it for columns")


@pytest.mark.parametrize("wrong", [GAE, "GAE", None])
def test_only_an_instance_can_be_checked(wrong):
    with pytest.raises(TypeError, match="must be an instance of a class derived from ReturnEstimator"):
        check_estimator(wrong)


def test_the_estimator_itself_is_left_as_it_is():
    estimator = FromAverage()
    before = copy.deepcopy(estimator.state_dict())
    check_estimator(estimator)
    assert torch.equal(estimator.state_dict()["mean"], before["mean"])


@pytest.mark.parametrize(
    ("estimator", "mixes_columns", "mixes_steps", "uses_critic"),
    [
        (NStep(5), False, False, True),
        (FullEpisode(), False, False, True),
        (VTrace(8), False, False, True),
        (L2Normalised(NStep(5)), False, True, True),
        (L2Normalised(FullEpisode()), False, True, True),
        (BatchNormalised(FullEpisode()), True, True, True),
        (SelfNormalised(), True, False, True),
        (LeaveOneOut(), True, False, False),
    ],
    **NAMES,
)
def test_the_kind_of_an_estimator_shows_in_what_it_does(estimator, mixes_columns, mixes_steps, uses_critic):
    subject = Subject(estimator)
    found = subject.mixes_columns, subject.mixes_steps, subject.uses_critic
    assert found == (mixes_columns, mixes_steps, uses_critic)


@pytest.mark.parametrize("estimator", [NStep(1), NStep(7), NStep(300), FullEpisode(), NStep(2, True), NStep(300, True)])
def test_columns_are_of_the_form_that_training_gives(estimator):
    for case in Subject(estimator).cases:
        batch = case.batch
        ended = (batch.terminated | batch.truncated) & batch.mask
        assert not (ended[:-1] & batch.mask[1:]).any()  # a reset step or padding comes after each end
        assert not ((batch.terminated | batch.truncated) & ~batch.mask).any()
        assert (batch.behaviour_log_probs.dtype, case.values.dtype) == (torch.float32, torch.float32)
        if estimator.needs_segments:
            assert batch.mask[0].all()
            assert (ended.sum(0) <= 1).all()  # a segment is of one episode
            steps = batch.mask.sum(0)
            assert ((ended.sum(0) == 1) | (steps == estimator.horizon)).all()
            assert (steps <= (estimator.horizon or 10**9)).all()


def test_a_column_drawn_is_a_column_made():
    batch = make_case(("..T-.t-b_",)).batch
    assert batch.mask[:, 0].tolist() == [True, True, True, False, True, True, False, True, False]
    assert batch.terminated[:, 0].nonzero().flatten().tolist() == [2, 7]
    assert batch.truncated[:, 0].nonzero().flatten().tolist() == [5, 7]
