"""The shared optimizer: steps bit for bit those of an ordinary one, on statistics that the parent has."""

import pytest
import torch
from sharing_tasks import processes, step_with_gradient
from torch import nn
from torch.optim import LBFGS, SGD, Adadelta, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, Rprop

from a3c.learner.hogwild.live_weights import LiveWeights
from a3c.learner.hogwild.shared_optimizer import (
    SHAREABLE,
    SharedOptimizer,
    check_shareable,
    detach_step_counts,
    step_counts,
)
from a3c.learner.hogwild.tally import Tally

OPTIONS = [
    (Adadelta, {"lr": 0.5}),
    (Adadelta, {"lr": 0.5, "rho": 0.5, "weight_decay": 0.1}),
    (Adam, {}),
    (Adam, {"amsgrad": True, "weight_decay": 0.1}),
    (Adam, {"fused": True}),
    (Adam, {"fused": True, "amsgrad": True}),
    (Adam, {"foreach": True}),
    (Adamax, {"weight_decay": 0.1}),
    (AdamW, {}),
    (AdamW, {"amsgrad": True, "weight_decay": 0.5, "fused": True}),
    (RAdam, {"betas": (0.5, 0.9)}),  # ρ₅ > 5 within the steps made here: both its branches
    (RAdam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    (RMSprop, {}),
    (RMSprop, {"centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (SGD, {"momentum": 0.9, "maximize": True}),
]
EVERY_OPTION = pytest.mark.parametrize(
    ("kind", "options"), OPTIONS, ids=lambda given: getattr(given, "__name__", None) or "-".join(given) or "plain"
)


def make_parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 2), (2,), (1, 4), ()]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def gradients_of(step):
    return [parameter.detach() for parameter in make_parameters(100 + step)]


def make_step(optimizer, parameters, step, without=()):
    for index, (parameter, gradient) in enumerate(zip(parameters, gradients_of(step), strict=True)):
        parameter.grad = None if index in without else gradient
    optimizer.step()


def make(kind, options):
    """Gives an optimizer and its parameters."""
    parameters = make_parameters()
    return kind(parameters, **{"lr": 0.1, **options}), parameters


def share(kind, options):
    """Gives a parent's optimizer, one that is attached to it, and the latter's parameters."""
    parent, _ = make(kind, options)
    theirs = make_parameters()
    return parent, SharedOptimizer(parent, parameters_of(parent)).attach(theirs), theirs


def parameters_of(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def statistics(optimizer):
    """Gives the optimizer's statistics by (parameter, name)."""
    state = optimizer.state_dict()["state"]
    return {(index, name): value for index, named in state.items() for name, value in named.items()}


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def assert_same_statistics(ours, theirs):
    ours, theirs = statistics(ours), statistics(theirs)
    assert ours.keys() == theirs.keys()
    assert_same([ours[key] for key in theirs], list(theirs.values()))


def test_every_shareable_class_is_tested_here():
    assert {kind for kind, _ in OPTIONS} == set(SHAREABLE)


# The same steps


@EVERY_OPTION
def test_an_attached_optimizer_makes_the_steps_of_an_ordinary_one_bit_for_bit(kind, options):
    ordinary, ours = make(kind, options)
    _, attached, theirs = share(kind, options)
    for step in range(5):
        before = [parameter.detach().clone() for parameter in ours]
        make_step(ordinary, ours, step)
        make_step(attached, theirs, step)
        assert_same(theirs, ours)
        assert not any(torch.equal(now, then) for now, then in zip(ours, before, strict=True))


def test_an_sgd_with_dampening_is_refused_since_its_first_step_is_another():
    for options in ({"dampening": 0.5}, {"momentum": 0.9}):
        check_shareable(SGD(make_parameters(), lr=0.1, **options))
    with pytest.raises(ValueError, match=r"^optimizer: got SGD with dampening, must be without"):
        check_shareable(SGD(make_parameters(), lr=0.1, momentum=0.9, dampening=0.5))


def test_an_optimizer_with_attributes_of_its_own_is_refused():
    class Counting(Adam):
        def __init__(self, parameters):
            super().__init__(parameters)
            self.calls = 0

    with pytest.raises(ValueError, match=r"^optimizer: Counting has attributes \['calls'\], must have none"):
        check_shareable(Counting(make_parameters()))


def test_parameters_in_another_order_and_some_left_out_are_found_by_identity():
    def make_split(parameters):
        return SGD([{"params": parameters[2:], "lr": 0.0}, {"params": parameters[:1]}], lr=0.1, momentum=0.9)

    ours, parents, theirs = make_parameters(), make_parameters(), make_parameters()
    ordinary, parent = make_split(ours), make_split(parents)
    attached = SharedOptimizer(parent, parents).attach(theirs)
    for step in range(3):
        make_step(ordinary, ours, step)
        make_step(attached, theirs, step)
    assert_same(theirs, ours)
    assert not torch.equal(theirs[0], parents[0])
    assert torch.equal(theirs[3], parents[3])


def test_statistics_that_a_checkpoint_lacks_are_begun():
    parent, parameters = make(Adam, {})
    make_step(parent, parameters, 0, without=(1,))
    assert parameters[1] not in parent.state
    theirs = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    attached = SharedOptimizer(parent, parameters).attach(theirs)
    make_step(attached, theirs, 1)
    assert [count.item() for count in step_counts(parent)] == [2, 2, 2, 1]
    assert statistics(parent)[1, "exp_avg"].abs().sum() > 0


@EVERY_OPTION
def test_two_attached_optimizers_in_turn_make_the_steps_of_one(kind, options):
    ordinary, ours = make(kind, options)
    parent, _ = make(kind, options)
    shared, theirs = SharedOptimizer(parent, parameters_of(parent)), make_parameters()
    attached = [shared.attach(theirs), shared.attach(theirs)]
    for step in range(4):
        make_step(ordinary, ours, step)
        make_step(attached[step % 2], theirs, step)
    assert_same(theirs, ours)


@EVERY_OPTION
def test_a_parameter_without_a_gradient_is_skipped_until_it_has_one(kind, options):
    ordinary, ours = make(kind, options)
    parent, attached, theirs = share(kind, options)
    for step in range(5):
        without = (1, 3) if step < 3 else ()
        if step == 3:
            assert torch.equal(theirs[1], make_parameters()[1])
            assert not any(value.any() for (index, _), value in statistics(parent).items() if index == 1)
        make_step(ordinary, ours, step, without)
        make_step(attached, theirs, step, without)
        assert_same(theirs, ours)


@pytest.mark.parametrize("kind", [Adam, RMSprop, SGD])
def test_every_parameter_group_keeps_its_options(kind):
    def grouped(parameters):
        first = {"params": parameters[:1], "lr": 0.5, "weight_decay": 0.3}
        return kind([first, {"params": parameters[1:]}], lr=0.01)

    ours, theirs = make_parameters(), make_parameters()
    ordinary, parent = grouped(ours), grouped(make_parameters())
    attached = SharedOptimizer(parent, parameters_of(parent)).attach(theirs)
    for step in range(5):
        make_step(ordinary, ours, step)
        make_step(attached, theirs, step)
    assert_same(theirs, ours)
    assert [group["lr"] for group in attached.param_groups] == [0.5, 0.01]
    assert [len(group["params"]) for group in attached.param_groups] == [1, 3]
    assert_same_statistics(parent, ordinary)


def test_a_learning_rate_set_on_one_attached_optimizer_is_its_own():
    parent, _ = make(Adam, {})
    shared = SharedOptimizer(parent, parameters_of(parent))
    one, other = shared.attach(make_parameters()), shared.attach(make_parameters())
    one.param_groups[0]["lr"] = 7.0
    assert other.param_groups[0]["lr"] == parent.param_groups[0]["lr"] == 0.1


# The same statistics


@EVERY_OPTION
def test_the_parent_has_the_statistics_that_an_attached_optimizer_writes(kind, options):
    ordinary, ours = make(kind, options)
    parent, attached, theirs = share(kind, options)
    for step in range(3):
        make_step(ordinary, ours, step)
        make_step(attached, theirs, step)
        assert_same_statistics(parent, ordinary)
    assert all(value.any() for value in statistics(parent).values())


@EVERY_OPTION
def test_restored_statistics_are_kept_and_gone_on_with(kind, options):
    ordinary, ours = make(kind, options)
    for step in range(3):
        make_step(ordinary, ours, step)
    parent, _ = make(kind, options)
    parent.load_state_dict(ordinary.state_dict())
    shared = SharedOptimizer(parent, parameters_of(parent))
    assert_same_statistics(parent, ordinary)
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    attached = shared.attach(theirs)
    for step in range(3, 5):
        make_step(ordinary, ours, step)
        make_step(attached, theirs, step)
    assert_same(theirs, ours)
    assert_same_statistics(parent, ordinary)


def test_a_restored_optimizer_leaves_what_it_was_restored_from_alone():
    ordinary, ours = make(Adam, {})
    make_step(ordinary, ours, 0)
    saved = ordinary.state_dict()
    parent, _ = make(Adam, {})
    parent.load_state_dict(saved)
    theirs = make_parameters()
    make_step(SharedOptimizer(parent, parameters_of(parent)).attach(theirs), theirs, 1)
    assert saved["state"][0]["step"].item() == 1
    assert parent.state_dict()["state"][0]["step"].item() == 2


def test_the_steps_of_other_processes_are_in_the_parents_statistics():
    network, reference = nn.Linear(3, 2), nn.Linear(3, 2)
    reference.load_state_dict(network.state_dict())
    parent, ordinary = (Adam(each.parameters(), lr=0.1) for each in (network, reference))
    weights, shared = LiveWeights(network, Tally(1)), SharedOptimizer(parent, parameters_of(parent))
    for value in (1.0, -3.0):  # the second process goes on with what the first one left
        with processes(step_with_gradient, [(shared, weights, value)]):
            pass
        for parameter in reference.parameters():
            parameter.grad = torch.full_like(parameter, value)
        ordinary.step()
    assert_same_statistics(parent, ordinary)
    assert_same(weights.parameters, list(reference.parameters()))


# Setting up


@EVERY_OPTION
def test_setting_up_changes_no_parameter_no_gradient_and_no_learning_rate(kind, options):
    parent, parameters = make(kind, options)
    parent.param_groups[0]["lr"] = 0.25
    SharedOptimizer(parent, parameters_of(parent))
    assert_same(parameters, make_parameters())
    assert all(parameter.grad is None for parameter in parameters)
    assert parent.param_groups[0]["lr"] == 0.25
    assert not any(value.any() for value in statistics(parent).values())


@pytest.mark.parametrize("kind", [NAdam, Rprop, LBFGS])
def test_an_optimizer_whose_statistics_do_not_all_begin_at_0_is_refused_by_name(kind):
    optimizer = kind(make_parameters())
    for refuse in (check_shareable, lambda given: SharedOptimizer(given, parameters_of(given))):
        with pytest.raises(ValueError, match=f"^optimizer: got {kind.__name__}, must be one .*Adam.*RMSprop, SGD$"):
            refuse(optimizer)
    assert not optimizer.state  # refused before anything is set up


# Counts of steps


@pytest.mark.parametrize("kind", [Adam, RMSprop])
def test_step_counts_are_those_of_every_parameter(kind):
    parent, attached, theirs = share(kind, {})
    for step in range(3):
        make_step(attached, theirs, step, without=(0,))
    for optimizer in (parent, attached):
        assert [count.item() for count in step_counts(optimizer)] == [0, 3, 3, 3]


def test_sgd_counts_no_steps():
    parent, attached, _ = share(SGD, {"momentum": 0.9})
    assert step_counts(parent) == step_counts(attached) == detach_step_counts(attached) == []


@pytest.mark.parametrize("options", [{}, {"fused": True}])
def test_detached_counts_are_the_optimizers_own_and_leave_the_parents_alone(options):
    parent, attached, theirs = share(Adam, options)
    make_step(attached, theirs, 0)
    counts = detach_step_counts(attached)
    assert [count.item() for count in counts] == [1] * 4
    make_step(attached, theirs, 1)
    assert [count.item() for count in counts] == [2] * 4
    assert [count.item() for count in step_counts(parent)] == [1] * 4
    # All else is shared still.
    assert torch.equal(statistics(parent)[0, "exp_avg"], statistics(attached)[0, "exp_avg"])


def test_detached_counts_that_are_set_are_those_that_the_next_step_uses():
    # Two workers, each with counts of its own, told before its step how many updates all have made
    ordinary, ours = make(Adam, {})
    parent, _ = make(Adam, {})
    shared, theirs = SharedOptimizer(parent, parameters_of(parent)), make_parameters()
    attached = [shared.attach(theirs), shared.attach(theirs)]
    counts = [detach_step_counts(optimizer) for optimizer in attached]
    for step in range(4):
        for count in counts[step % 2]:
            count.fill_(step)
        make_step(attached[step % 2], theirs, step)
        make_step(ordinary, ours, step)
        assert_same(theirs, ours)
