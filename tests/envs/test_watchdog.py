import signal
import threading
import time

import pytest
from helpers import fit
from lightning.pytorch import Callback

from a3c import GreedyEvaluation, NStep, RolloutDataModule
from a3c.envs.source import EnvError
from a3c.envs.watchdog import WAKE_UP, HangError, StepWatch

FAULTY = "a3c.envs.faulty:Faulty-v0"


def test_silence_is_broken_off():
    with pytest.raises(HangError, match=r"the task gave no sign of life for 0\.2 s"), StepWatch(0.2, "the task"):
        time.sleep(60)


def test_who_beats_is_left_alone():
    with StepWatch(0.5, "the task") as watch:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            watch.beat()
            time.sleep(0.01)


def test_afterwards_the_signal_is_as_before_and_nobody_looks_any_more():
    before = signal.getsignal(WAKE_UP)
    with StepWatch(0.1, "the task"):
        watching = [thread for thread in threading.enumerate() if thread.name == "a3c-step-watch"]
        assert len(watching) == 1
    watching[0].join(5)
    assert not watching[0].is_alive()
    assert signal.getsignal(WAKE_UP) == before
    time.sleep(0.3)


def test_an_evaluation_that_hangs_ends_the_run():
    evaluation = GreedyEvaluation(every_env_steps=100, episodes=2)
    with pytest.raises(HangError, match="environment of an evaluation"):
        fit(
            env=FAULTY,
            env_kwargs={"kind": "hang", "in_parent": True, "worker": 7},
            mode="async",
            max_env_steps=10_000,
            worker_timeout=1.5,
            callbacks=[evaluation],
        )


def test_a_constructor_that_hangs_is_refused():
    with pytest.raises(
        EnvError, match=r"env: a3c\.envs\.faulty:Faulty-v0 cannot be made: its constructor gave no sign"
    ):
        RolloutDataModule(FAULTY, {"kind": "hang_constructor", "in_parent": True}, worker_timeout=0.3)


def test_an_environment_that_hangs_in_sync_ends_the_run():
    with pytest.raises(HangError, match=r"a3c\.envs\.faulty:Faulty-v0 in this process gave no sign of life for 1 s"):
        fit(env=FAULTY, env_kwargs={"kind": "hang", "in_parent": True}, mode="sync", worker_timeout=1.0)
    for thread in threading.enumerate():
        if thread.name == "a3c-step-watch":
            thread.join(5)
            assert not thread.is_alive()


def test_a_learner_that_takes_its_time_in_sync_is_left_alone():
    class Slow(Callback):
        def on_train_batch_end(self, *args):
            time.sleep(1.5)

    model, *_ = fit(mode="sync", max_env_steps=64, worker_timeout=1.0, callbacks=[Slow()])
    assert model.updates >= 2


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_many_slow_environments_are_not_taken_to_hang(mode):
    # A call of all of them takes longer than a worker may be silent, of a single one it does not.
    evaluation = GreedyEvaluation(every_env_steps=1, episodes=12, final_episodes=0)
    _, data, _ = fit(
        NStep(2),
        env="scripted_envs:Sluggish-v0",
        env_kwargs={"seconds": 0.1},
        mode=mode,
        workers=1,
        envs_per_worker=12,
        max_env_steps=24,
        worker_timeout=1.0,
        callbacks=[evaluation],
    )
    assert data.progress.worker_deaths == 0
    assert data.progress.env_steps >= 24
    assert evaluation.best == 3.0
