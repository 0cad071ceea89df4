"""Environments that are careless with dtypes and shapes: cast and said once, or refused in one line."""

import numpy as np
import pytest
from helpers import fit

from a3c import GreedyEvaluation, NStep, RolloutDataModule
from a3c.envs.single import Attendant, EnvironmentFaultError, check_cast
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec

CARELESS = "scripted_envs:Careless-v0"
CAST = {
    "float64 of float32": ({"dtype": "float64"}, "observations of environment 0: float64 (2,), cast to float32"),
    "int64 of float32": ({"dtype": "int64"}, "observations of environment 0: int64 (2,), cast to float32"),
    "bool of uint8": (
        {"dtype": "bool", "space": ("uint8", (2,))},
        "observations of environment 0: bool (2,), cast to uint8",
    ),
    "a list": ({"as_list": True}, "observations of environment 0: float64 (2,), cast to float32"),
    "rewards of shape (1,)": ({"reward": "array"}, None),
}
FITTING = {
    "bool": {"dtype": "bool", "space": ("bool", (2,))},
    "a bool of no axis": {"dtype": "bool", "shape": (), "space": ("bool", ())},
    "float64": {"dtype": "float64", "space": ("float64", (2,))},
    "int8": {"dtype": "int8", "space": ("int8", (2,))},
    "a matrix": {"shape": (2, 3), "space": ("float32", (2, 3))},
    "float32 rewards": {"reward": "numpy"},
}
REFUSED = {
    "float for whole numbers": (
        {"dtype": "float32", "space": ("uint8", (2,))},
        "reset: observations of environment 0: got float32 (2,), must be uint8 (2,)",
    ),
    "signed for unsigned": (
        {"dtype": "int64", "space": ("uint8", (2,))},
        "reset: observations of environment 0: got int64 (2,), must be uint8 (2,)",
    ),
    "an axis more": (
        {"shape": (1, 2)},
        "reset: observations of environment 0: got float32 (1, 2), must be float32 (2,)",
    ),
    "one number fewer": ({"shape": (1,)}, "reset: observations of environment 0: got float32 (1,), must be float32"),
    "two rewards": ({"reward": "pair"}, "step: rewards of environment 0: got float64 (2,), must be float64 (1,)"),
}


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
@pytest.mark.parametrize("case", [*CAST, *FITTING])
def test_what_loses_no_meaning_is_trained_on_and_evaluated(case, mode):
    kwargs = FITTING[case] if case in FITTING else CAST[case][0]
    evaluation = GreedyEvaluation(every_env_steps=20, episodes=3, final_episodes=0)
    model, data, _ = fit(
        NStep(5),
        env=CARELESS,
        env_kwargs=kwargs,
        mode=mode,
        workers=1,
        envs_per_worker=2,
        max_env_steps=40,
        callbacks=[evaluation],
    )
    assert data.progress.env_steps >= 40
    assert data.progress.worker_deaths == 0
    assert evaluation.best == 10.0  # 1 + 2 + 3 + 4
    assert model.updates > 0


@pytest.mark.parametrize("case", CAST)
def test_what_is_cast_is_said_once_before_anything_starts(case, caplog):
    kwargs, words = CAST[case]
    RolloutDataModule(CARELESS, kwargs, envs_per_worker=3)
    told = [record.message for record in caplog.records]
    if words is None:
        assert told == []  # a number in an array of one is that number
    else:
        assert told == [f"env: {CARELESS} gives {words}"]


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_its_meaning_is_refused_in_one_line(case):
    kwargs, words = REFUSED[case]
    with pytest.raises(EnvError) as error:
        RolloutDataModule(CARELESS, kwargs)
    assert str(error.value).startswith(f"env: {CARELESS} gave in its first {words}")
    assert "\n" not in str(error.value)


def test_each_environment_of_a_vector_has_a_number_of_its_own():
    attendant = Attendant()
    env = EnvSpec(CARELESS, {"dtype": "float64"}).make(3, attendant=attendant)
    env.reset(seed=0)
    env.close()
    assert {words.split(":")[0] for words in attendant.casts} == {f"observations of environment {n}" for n in range(3)}


def test_a_change_of_dtype_in_the_middle_of_a_run_is_named():
    env = EnvSpec(CARELESS).make(2)
    env.reset(seed=0)
    env.envs[1].unwrapped.given = (np.dtype(np.complex64), (2,))
    with pytest.raises(EnvironmentFaultError, match=r"observations of environment 1: got complex64 \(2,\)"):
        env.step(np.zeros(2, np.int64))
    env.close()


def test_only_what_needs_it_is_cast():
    assert check_cast("x", np.zeros(2), (2,), np.dtype(np.float64)) is None
    assert check_cast("x", np.zeros(2), (2,), np.dtype(np.float32)) == "x: float64 (2,), cast to float32"
