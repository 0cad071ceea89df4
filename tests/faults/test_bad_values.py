"""Rows 26 and 28: what an environment must not give never reaches an update."""

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from helpers import fit, make_network, make_spec

import a3c
from a3c.batch import BatchShape, Lost, Rollout, empty_batch
from a3c.envs.single import EnvironmentFaultError
from a3c.rollouts.collector import LINEAGE, Life
from a3c.rollouts.workers.failures import RestartPolicy, WorkerError
from a3c.rollouts.workers.pool import WorkerPool
from a3c.rollouts.workers.process import CollectTask

FAULTY = "a3c.envs.faulty:Faulty-v0"
MODES = ["sync", "async", "hogwild"]


def spec_of(kind, at_step, in_parent=False, **rules):
    env_kwargs = {"kind": kind, "at_step": at_step, "in_parent": in_parent}
    return make_spec(FAULTY, network=make_network(actions=2), env_kwargs=env_kwargs, **rules)


def fit_faulty(kind, mode, once=None, **kwargs):
    env_kwargs = {"kind": kind, "at_step": 30, "in_parent": mode == "sync", "once": once}
    data = {"max_env_steps": 2000, "envs_per_worker": 2, "worker_timeout": 30.0, **kwargs}
    return fit(env=FAULTY, env_kwargs=env_kwargs, mode=mode, **data)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan_observation", r"observations: environment \d gave nan in step \d+"),
        ("inf_observation", r"observations: environment \d gave inf "),
        ("nan_reward", r"rewards: environment \d gave nan in step \d+"),
        ("out_of_space", r"observations: environment \d gave .* must be at most 1"),
        ("wrong_dtype", r"observations of environment \d: got complex64 \(2,\), must be float32"),
    ],
)
def test_rows_26_and_28_a_bad_value_ends_the_run_by_default(mode, kind, words):
    with pytest.raises((EnvironmentFaultError, WorkerError), match=rf"(?s){words}.*environment seed \d+|{words}"):
        fit_faulty(kind, mode)


def test_row_28_a_wrong_shape_ends_the_run():
    with pytest.raises(WorkerError, match="shape"):
        fit_faulty("wrong_shape", "async", max_restarts=1)


@pytest.mark.parametrize("returns", [a3c.NStep(8), a3c.FullEpisode()])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["nan_observation", "inf_observation", "nan_reward"])
def test_row_26_discarded_rollouts_are_counted_and_leave_no_trace(mode, kind, returns, tmp_path):
    once = str(tmp_path / "done")
    model, data, _ = fit_faulty(kind, mode, once, returns=returns, on_bad_values="discard")
    progress = data.progress
    assert progress.dropped["bad_values"] > 0
    assert progress.worker_deaths == 0
    assert progress.collected == progress.trained + progress.dropped.total() + progress.in_flight
    assert progress.in_flight >= 0
    assert progress.trained > 0
    assert all(torch.isfinite(parameter).all() for parameter in model.network.parameters())


class Wide(gymnasium.vector.VectorEnv):
    """Native: gives rewards that would be broadcast from one environment to all."""

    metadata: ClassVar = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions):
        flags = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 2), np.float32), np.zeros(1), flags, flags, {}


def test_row_28_what_would_be_broadcast_never_reaches_the_buffer():
    from helpers import make_network

    from a3c.batch import BatchShape, empty_batch
    from a3c.rollouts.collector import Collector
    from a3c.rollouts.weights import SharedWeights

    network = make_network()
    collector = Collector(Wide(3), network, SharedWeights(network), seed=0)
    out = empty_batch(BatchShape(4, 3, (2,), torch.float32))
    out.rewards.fill_(7)
    with pytest.raises(EnvironmentFaultError, match=r"rewards: got shape \(1,\), must be \(3,\)") as caught:
        collector.collect(out)
    assert (out.rewards == 7).all()
    assert "environment seed" in caught.value.__notes__[0]


def test_row_28_to_replace_a_worker_would_not_help():
    deaths = []
    spec = spec_of("out_of_space", 30)
    policy = RestartPolicy(restart=True)
    pool = WorkerPool(CollectTask(spec), 2, 2, BatchShape(5, 2, (2,), torch.float32), policy, deaths.append)

    def collect_for_ever():
        while True:
            rollout = pool.get(5.0)
            if isinstance(rollout, Rollout):
                rollout.release()

    pool.start()
    try:
        with pytest.raises(WorkerError, match="must be at most 1"):
            collect_for_ever()
    finally:
        pool.close()
    assert [death.restarted for death in deaths] == [False]


def test_row_26_after_a_discarded_rollout_new_episodes_of_other_environments_begin():
    spec = make_spec(
        FAULTY,
        network=make_network(actions=2),
        env_kwargs={"kind": "nan_reward", "at_step": 6, "in_parent": True},
        discard_bad_values=True,
    )
    collector = spec.build(Life())
    out = empty_batch(BatchShape(8, 2, (2,), torch.float32))
    while not collector.collect(out).discarded:
        assert out.env_ids.tolist() == [0, 1]
    lineages = 1
    while collector.collect(out).discarded:  # the other environment may be spoilt later
        lineages += 1
    assert out.observations[0, :, 1].eq(0).all()  # 1 after a right action, 0 in an episode's first state
    assert out.mask[0].all()
    assert out.env_ids.tolist() == [lineages * LINEAGE, lineages * LINEAGE + 1]
    assert out.segment_ids.eq(0).all()
    collector.close()


def test_row_26_the_slot_of_a_discarded_rollout_is_used_again():
    spec = make_spec(
        FAULTY,
        network=make_network(actions=2),
        env_kwargs={"kind": "nan_reward", "at_step": 6},
        discard_bad_values=True,
    )
    pool = WorkerPool(CollectTask(spec), 1, 1, BatchShape(8, 2, (2,), torch.float32))
    lost, rollouts = [], []  # those after a loss
    pool.start()
    try:
        while len(rollouts) < 3:
            item = pool.get(10.0)
            assert item is not None, "the only slot was lost"
            if isinstance(item, Lost):
                lost.append(item.env_steps)
            else:
                rollouts += [item] if lost else []
                item.release()
    finally:
        pool.close()
    assert min(lost) > 0
