"""Schedules: values by hand, torch's own schedulers alongside, pickling, and what is refused."""

import math
import pickle

import pytest
import torch
from torch.optim import SGD, Adam, lr_scheduler

from a3c.learner.schedules import Constant, Linear, Rates, TorchScheduler


def values(curve, *env_steps):
    return [curve(steps) for steps in env_steps]


# Lines


def test_constant_stays_as_it_is_with_or_without_a_budget():
    for budget in (100, None):
        assert values(Constant().curve(0.3, budget), 0, 1, 100, 10**9) == [0.3] * 4


def test_linear_goes_to_0_over_the_budget_and_stays_there():
    # 0.8·(1 − s/100)
    curve = Linear().curve(0.8, 100)
    assert values(curve, 0, 25, 50, 100, 101, 10**9) == pytest.approx([0.8, 0.6, 0.4, 0, 0, 0])
    assert curve(100) == 0


def test_linear_ends_at_the_fraction_of_the_initial_value():
    # From 8 to 8·¼ = 2; half way at (8 + 2)/2
    assert values(Linear(final=0.25).curve(8.0, 100), 0, 50, 100, 200) == [8, 5, 2, 2]


def test_linear_may_rise_or_stay_level():
    assert values(Linear(final=3.0).curve(1.0, 10), 0, 5, 10, 20) == [1, 2, 3, 3]
    assert values(Linear(final=1.0).curve(0.7, 10), 0, 5, 10) == [0.7] * 3


@pytest.mark.parametrize("budget", [100, None])
def test_linear_with_env_steps_of_its_own_ends_there_and_not_with_the_budget(budget):
    assert values(Linear(env_steps=10).curve(1.0, budget), 0, 5, 10, 60) == [1, 0.5, 0, 0]


# Schedulers of torch

SCHEDULERS = {
    "StepLR": lambda optimizer: lr_scheduler.StepLR(optimizer, 3, gamma=0.5),
    "CosineAnnealingLR": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01),
    "LambdaLR": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "OneCycleLR": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=10, cycle_momentum=False),
}


def test_every_value_of_a_torch_scheduler_holds_for_every_env_steps():
    # 1 for two of its steps, then 0.1: of 10 env steps each
    curve = TorchScheduler(lambda optimizer: lr_scheduler.StepLR(optimizer, 2), every_env_steps=10).curve(1.0, 40)
    assert values(curve, 0, 9, 10, 19, 20, 29, 39) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1])


def test_the_last_value_within_the_budget_stays():
    # 35 env steps are four steps of 10, the last of them begun: 1, ½, ¼, ⅛, and no 1/16
    curve = TorchScheduler(SCHEDULERS["LambdaLR"], every_env_steps=10).curve(1.0, 35)
    assert values(curve, 29, 30, 35, 40, 10**9) == [1 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 4]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_torch_scheduler_gives_what_it_gives_alongside_an_optimizer(name):
    curve = TorchScheduler(SCHEDULERS[name], every_env_steps=7).curve(0.2, 70)
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = Adam([parameter], lr=0.2)
    scheduler = SCHEDULERS[name](optimizer)
    seen = set()
    for step in range(10):
        lr = optimizer.param_groups[0]["lr"]
        assert values(curve, 7 * step, 7 * step + 6) == [lr, lr]
        seen.add(lr)
        parameter.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
    assert len(seen) > 3


# Pickling

SCHEDULES = {
    "Constant": Constant(),
    "Linear": Linear(0.1, 50),
    **{name: TorchScheduler(scheduler, 10) for name, scheduler in SCHEDULERS.items()},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_curve_is_the_same_after_pickling(name):
    curve = SCHEDULES[name].curve(0.3, 100)
    again = pickle.loads(pickle.dumps(curve))
    env_steps = range(0, 200, 5)
    assert values(again, *env_steps) == values(curve, *env_steps)


def test_rates_are_the_same_after_pickling():
    rates = Rates((Linear().curve(1.0, 10),), SCHEDULES["LambdaLR"].curve(0.5, 20))
    again = pickle.loads(pickle.dumps(rates))
    for env_steps in (0, 5, 15):
        assert again.metrics(env_steps) == rates.metrics(env_steps)


# What is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linear(final=-0.1), "final: got -0.1, must be at least 0"),
        (lambda: Linear(final=math.nan), "final: got nan, must be at least 0"),
        (lambda: Linear(final=math.inf), "final: got inf, must be at least 0 and finite"),
        (lambda: Linear(env_steps=0), "env_steps: got 0, must be at least 1"),
        (lambda: Linear(env_steps=-5), "env_steps: got -5, must be at least 1"),
        (lambda: TorchScheduler(SCHEDULERS["StepLR"], 0), "every_env_steps: got 0, must be at least 1"),
        (lambda: TorchScheduler(SCHEDULERS["StepLR"], -1), "every_env_steps: got -1, must be at least 1"),
    ],
)
def test_a_value_out_of_range_raises_with_its_name_and_what_was_given(build, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build()


def test_linear_needs_a_budget_or_env_steps_of_its_own():
    with pytest.raises(ValueError, match=r"^env_steps: got none, must be at least 1 in a run without max_env_steps"):
        Linear().curve(1.0, None)


def test_a_torch_scheduler_needs_a_budget():
    with pytest.raises(ValueError, match=r"^scheduler: the run has no max_env_steps"):
        SCHEDULES["StepLR"].curve(1.0, None)


MOMENTUM = r"which changes the momentum as well; .*cycle_momentum: false"


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lr_scheduler.ReduceLROnPlateau, "got ReduceLROnPlateau, which waits for a metric; must depend on env steps"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=10), f"got OneCycleLR, {MOMENTUM}"),
        (lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.5), f"got CyclicLR, {MOMENTUM}"),
        (lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 - step), "LambdaLR gives a value that is negative"),
        (lambda o: lr_scheduler.LambdaLR(o, lambda step: math.nan), "LambdaLR gives a value that is .* not finite"),
        (lambda o: lr_scheduler.LambdaLR(o, lambda step: math.inf), "LambdaLR gives a value that is .* not finite"),
        (lambda o: lr_scheduler.LambdaLR(o, [lambda step: 1.0] * 2), "Expected 1 lr_lambdas, but got 2"),
        (lambda o: lr_scheduler.StepLR(o), ".*step_size"),
    ],
)
def test_a_scheduler_that_cannot_be_used_is_refused(scheduler, message):
    with pytest.raises(ValueError, match=f"^scheduler: {message}"):
        TorchScheduler(scheduler).curve(1.0, 10_000)


def test_a_cyclic_scheduler_that_leaves_the_momentum_alone_is_allowed():
    # Up from 1 to 3 in two steps, and down again
    def cyclic(optimizer):
        return lr_scheduler.CyclicLR(optimizer, 1.0, 3.0, step_size_up=2, cycle_momentum=False)

    assert values(TorchScheduler(cyclic, 1).curve(1.0, 5), *range(5)) == [1, 2, 3, 2, 1]


# Rates


def two_groups():
    return SGD([{"params": [torch.zeros(1)], "lr": 1.0}, {"params": [torch.zeros(1)], "lr": 5.0}])


def lrs(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_every_parameter_group_gets_the_learning_rate_of_its_own_curve():
    optimizer = two_groups()
    rates = Rates((Linear().curve(1.0, 10), Linear(0.2).curve(5.0, 10)))
    for env_steps, expected in [(0, [1, 5]), (5, [0.5, 3]), (10, [0, 1])]:
        rates.set_learning_rates(optimizer, env_steps)
        assert lrs(optimizer) == expected


def test_curves_of_another_number_than_the_groups_are_refused():
    with pytest.raises(ValueError, match="zip"):
        Rates((Constant().curve(1.0, None),)).set_learning_rates(two_groups(), 0)


def test_without_a_schedule_nothing_changes_and_nothing_is_reported():
    optimizer = two_groups()
    Rates().set_learning_rates(optimizer, 5)
    assert lrs(optimizer) == [1, 5]
    assert Rates().entropy_at(5) is None
    assert Rates().metrics(5) == {}


def test_the_entropy_coefficient_is_that_of_its_curve_and_leaves_learning_rates_alone():
    optimizer, rates = two_groups(), Rates(entropy_coefficient=Linear().curve(0.5, 10))
    rates.set_learning_rates(optimizer, 5)
    assert lrs(optimizer) == [1, 5]
    assert [rates.entropy_at(env_steps) for env_steps in (0, 5, 10)] == [0.5, 0.25, 0]  # 0, not None


def test_metrics_are_what_is_scheduled():
    lr, entropy = (Linear().curve(1.0, 10), Linear().curve(9.0, 10)), Linear().curve(0.5, 10)
    assert Rates(lr, entropy).metrics(5) == {"schedule/learning_rate": 0.5, "schedule/entropy_coefficient": 0.25}
    assert Rates(lr).metrics(10) == {"schedule/learning_rate": 0}
    assert Rates(entropy_coefficient=entropy).metrics(0) == {"schedule/entropy_coefficient": 0.5}
