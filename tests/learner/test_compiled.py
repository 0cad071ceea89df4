"""The objective by torch.compile: what it learns is what the plain one learns."""

import pytest
import torch
from helpers import fit

from a3c import GAE, MLPActorCritic, NStep
from a3c.learner.compiled import CompilationError, CompiledObjective
from a3c.learner.objective import Objective

REUSED = {"passes": 2, "minibatches": 2, "ratio_clip": 0.2, "normalise_advantages": True, "entropy_coefficient": 0.01}


@pytest.fixture(autouse=True)
def _forgotten_afterwards():
    yield
    torch.compiler.reset()


def test_a_fit_with_a_compiled_objective_is_the_fit_without():
    calls = []

    def traced(graph, inputs):
        calls.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.register_backend(traced, name="traced")
    fits = [
        fit(GAE(8), learning={**REUSED, "compile_objective": backend}, max_env_steps=320)[0]
        for backend in (None, "traced")
    ]
    assert sum(calls) > 50  # nodes of what was compiled
    assert type(fits[1].learning.objective) is CompiledObjective
    assert fits[0].updates == fits[1].updates >= 10
    for ours, theirs in zip(*(model.network.parameters() for model in fits), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert fits[1].latest["loss/total"] == pytest.approx(fits[0].latest["loss/total"], rel=1e-4)
    assert fits[0].settings == fits[1].settings  # a run may go on with the other one


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"^compile_objective: got 'fast', must be one of .*inductor.*, or null$"):
        CompiledObjective(NStep(8), backend="fast")


def test_where_workers_learn_nothing_is_compiled():
    with pytest.raises(ValueError, match=r"^compile_objective: got inductor in mode hogwild, must be null there: "):
        fit(learning={"compile_objective": "inductor"}, mode="hogwild", max_env_steps=100)


def test_a_compiler_that_fails_is_told_in_one_line():
    def broken(graph, inputs):
        raise OSError("no compiler here")

    torch._dynamo.register_backend(broken, name="broken")
    with pytest.raises(CompilationError, match=r"^compile_objective: torch.compile failed: .*no compiler here"):
        fit(learning={"compile_objective": "broken"}, max_env_steps=100)


class Wrong(NStep):
    """An estimator of somebody's own that raises."""

    def __call__(self, batch, values, log_probs, discounts):
        raise ZeroDivisionError("the pole went through the floor")


def test_what_an_estimator_of_ones_own_raises_is_raised():
    with pytest.raises(ZeroDivisionError, match="the pole went through the floor"):
        fit(Wrong(8), learning={"compile_objective": "eager"}, max_env_steps=100)


def test_without_a_backend_nothing_is_compiled():
    model, *_ = fit(max_env_steps=100)
    assert type(model.objective) is Objective
    assert isinstance(model.network, MLPActorCritic)
