"""Labels: parsed and shown, and one line for what is wrong with them."""

import pytest

import a3c
from a3c import (
    GAE,
    UPGO,
    AdvantageNormalised,
    AverageReward,
    Compound,
    DecoupledGAE,
    FullEpisode,
    GroupBaseline,
    ImportanceSampled,
    L2Normalised,
    LeakyVTrace,
    NStep,
    PositiveOnly,
    Retrace,
    SlidingNStep,
    TDLambda,
    ValueRescaled,
    VTrace,
)
from a3c.returns.labels import OWN, label_of, parse


@pytest.mark.parametrize(
    ("label", "estimator"),
    [
        ("NStep", NStep()),
        ("FullEpisode", FullEpisode()),
        ("NStep:n_steps=20", NStep(20)),
        ("NStep:n_steps=20,end_at_episode=true", NStep(20, end_at_episode=True)),
        ("GAE:lambda_=0.9", GAE(lambda_=0.9)),
        ("VTrace:n_steps=16,c_clip=0.5", VTrace(16, c_clip=0.5)),
        ("VTrace:lambda_=0.9", VTrace(lambda_=0.9)),
        ("TDLambda", TDLambda()),
        ("DecoupledGAE:lambda_critic=0.99", DecoupledGAE(lambda_critic=0.99)),
        ("SlidingNStep:n_steps=8,lookahead=3", SlidingNStep(8, 3)),
        ("Compound:long=20,weight=0.25", Compound(long=20, weight=0.25)),
        ("LeakyVTrace:alpha_rho=0.5", LeakyVTrace(alpha_rho=0.5)),
        ("Retrace:lambda_=0.9", Retrace(lambda_=0.9)),
        ("ImportanceSampled", ImportanceSampled()),
        ("ImportanceSampled:correction=one_step", ImportanceSampled(correction="one_step")),
        ("ImportanceSampled:correction=none", ImportanceSampled(correction="none")),
        ("UPGO:n_steps=16", UPGO(16)),
        ("AverageReward:rate=0.1", AverageReward(rate=0.1)),
        ("GroupBaseline", GroupBaseline()),
        ("ValueRescaled:estimator=(GAE:lambda_=0.9)", ValueRescaled(GAE(lambda_=0.9))),
        ("ValueRescaled:estimator=GAE,epsilon=0.01", ValueRescaled(GAE(), 0.01)),
        ("PositiveOnly:estimator=VTrace", PositiveOnly(VTrace())),
        (
            "AdvantageNormalised:estimator=(PositiveOnly:estimator=(SlidingNStep:lookahead=3))",
            AdvantageNormalised(PositiveOnly(SlidingNStep(lookahead=3))),
        ),
        ("L2Normalised:estimator=NStep", L2Normalised(NStep())),
        ("L2Normalised:estimator=(GAE:n_steps=8,lambda_=0.9)", L2Normalised(GAE(8, 0.9))),
    ],
)
def test_a_label_and_its_estimator_are_each_others(label, estimator):
    assert label_of(estimator) == label
    parsed = parse(label)
    assert type(parsed) is type(estimator)
    assert label_of(parsed) == label


def test_defaults_that_are_typed_are_left_out():
    assert label_of(parse("GAE: n_steps = 32, lambda_=0.9")) == "GAE:lambda_=0.9"


def test_a_class_of_ones_own_goes_by_its_import_path():
    label = "poisoned.PoisonedNStep"
    assert label_of(parse(label)) == label


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("NSteps", r"got estimator 'NSteps', must be one of .*FullEpisode, NStep, .*; nearest: NStep$"),
        ("", r"got estimator '', must be one of"),
        ("ReturnEstimator", r"got estimator 'ReturnEstimator', must be one of"),
        ("NStep:n=3", r"'NStep:n=3': got key 'n', must be one of n_steps, end_at_episode$"),
        ("FullEpisode:n_steps=3", r"got key 'n_steps', FullEpisode takes no arguments$"),
        ("NStep:n_steps", r"got 'n_steps', must be key=value$"),
        ("NStep:n_steps=", r"got 'n_steps=', must be key=value$"),
        ("NStep:n_steps=3,n_steps=4", r"got key 'n_steps' twice$"),
        ("SlidingNStep:lookahead=40", r"'SlidingNStep:lookahead=40': lookahead: got 40, must be between 1 and 32$"),
        ("ImportanceSampled:correction=all", r"correction: got 'all', must be one of untruncated, weighted, one_step"),
        ("L2Normalised:estimator=UPGO", r"estimator: got UPGO, must be one whose advantages are its targets less"),
        ("NStep:n_steps=0", r"'NStep:n_steps=0': n_steps: got 0, must be at least 1$"),
        ("L2Normalised", r"got no estimator, must be L2Normalised:estimator=VALUE$"),
        ("L2Normalised:estimator=Nstep", r"nearest: NStep"),
        ("no_such_module.Mine", r"no_such_module\.Mine cannot be imported: "),
        ("a3c.batch.RolloutBatch", r"is not a class derived from ReturnEstimator$"),
    ],
)
def test_what_is_no_label_gets_one_line(label, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse(label)
    assert "\n" not in str(caught.value)


def test_every_estimator_of_the_package_can_be_imported_from_its_top():
    for name, cls in OWN.items():
        assert getattr(a3c, name) is cls
