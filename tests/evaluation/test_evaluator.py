import itertools
from contextlib import closing
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec as EnvironmentSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from helpers import COUNTDOWN, fit, make_network

from a3c import NStep
from a3c.batch import Episode
from a3c.envs.spec import EnvSpec
from a3c.evaluation.evaluator import MAX_ENVS, Evaluation, Evaluator
from a3c.training.callbacks import Checkpoints, GreedyEvaluation
from a3c.training.seams import data_of


def test_every_environment_plays_its_share_so_short_episodes_are_not_favoured():
    evaluator = Evaluator(EnvSpec(COUNTDOWN, {"lengths": (2, 9)}), MAX_ENVS + 10)
    result = evaluator(make_network(), seed=3)
    evaluator.close()
    # every environment plays an episode of 2 steps; the first ten a second one, of 9
    assert len(result.episodes) == MAX_ENVS + 10
    assert result.episodes.count(Episode(3.0, 2)) == MAX_ENVS
    assert result.episodes.count(Episode(45.0, 9)) == 10
    assert result.length_mean == (2 * MAX_ENVS + 9 * 10) / (MAX_ENVS + 10)


def test_an_evaluator_used_twice_starts_new_episodes():
    torch.manual_seed(0)
    evaluator = Evaluator(EnvSpec("CartPole-v1"), 5)
    network = make_network(4, 2)
    first, second = evaluator(network, seed=1), evaluator(network, seed=1)
    other = evaluator(network, seed=2)
    evaluator.close()
    assert first == second
    assert first != other


def test_greedy_takes_the_mode_and_sampling_does_not():
    network = make_network(4, 2)
    with torch.no_grad():
        network.actor_head.bias += torch.tensor([0.5, 0.0])
    greedy, sampled = (Evaluator(EnvSpec("CartPole-v1"), 20, greedy=flag) for flag in (True, False))
    assert greedy(network, 0).length_mean < 12  # always to the left: falls at once
    assert sampled(network, 0).length_mean > 12
    greedy.close()
    sampled.close()


def test_no_episodes_are_refused():
    with pytest.raises(ValueError, match="episodes: got 0"):
        Evaluator(EnvSpec("CartPole-v1"), 0)


def test_a_lucky_evaluation_does_not_solve_a_run(monkeypatch):
    means = iter([490.0, 480.0, 470.0, 100.0, 480.0, 490.0])
    monkeypatch.setattr(Evaluator, "__call__", lambda *args: Evaluation([Episode(next(means), 1)]))
    evaluation = GreedyEvaluation(every_env_steps=100, final_episodes=0)
    _, data, _ = fit(NStep(8), callbacks=[evaluation], max_env_steps=2000)
    # By the 490 before training nothing is decided; 480 is not confirmed by 470; 100 is nothing;
    # 480 is confirmed by 490
    assert 300 <= evaluation.solved_at_env_steps < 332
    assert data.progress.env_steps == evaluation.solved_at_env_steps
    assert list(means) == []


def test_a_confirmation_within_its_standard_error_does_not_solve_a_run(monkeypatch):
    # Each time 475 is reached, and then confirmed: by 470 and 490, whose error is 7.1, and at last by 489 and 491
    spread = itertools.chain([(0, 0)], itertools.cycle([(480, 480), (470, 490), (480, 480), (489, 491)]))
    monkeypatch.setattr(Evaluator, "__call__", lambda *args: Evaluation([Episode(r, 1) for r in next(spread)]))
    evaluation = GreedyEvaluation(every_env_steps=100, final_episodes=0)
    fit(NStep(8), callbacks=[evaluation], max_env_steps=2000)
    assert 200 <= evaluation.solved_at_env_steps < 232


def test_a_solved_run_goes_on_if_asked():
    evaluation = GreedyEvaluation(every_env_steps=100, episodes=3, final_episodes=0, stop_when_solved=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EnvSpec, "reward_threshold", 1.0)
        _, data, _ = fit(NStep(8), callbacks=[evaluation], max_env_steps=500)
    assert 100 <= evaluation.solved_at_env_steps < 132
    assert data.progress.env_steps >= 500


def test_an_evaluation_can_be_stopped():
    asked = []
    evaluator = Evaluator(EnvSpec("CartPole-v1"), 5)
    assert evaluator(make_network(4, 2), 0, lambda: len(asked) > 2 or asked.append(1)) is None
    assert len(asked) == 3
    evaluator.close()


def test_no_two_evaluations_of_a_run_play_the_same_episodes(monkeypatch):
    seeds = []
    monkeypatch.setattr(EnvSpec, "reward_threshold", 1e9)

    def played(self, network, seed, *args):
        seeds.append(seed)
        return Evaluation([Episode(2e9 if len(seeds) % 2 else 0.0, 1)])

    monkeypatch.setattr(Evaluator, "__call__", played)
    fit(NStep(8), callbacks=[GreedyEvaluation(every_env_steps=100)], max_env_steps=500)
    assert len(seeds) > 8  # evaluations, a confirmation each that fails, and the final one
    assert len(set(seeds)) == len(seeds)


def test_the_clock_stands_still_while_the_policy_is_evaluated(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("a3c.rollouts.progress.time.perf_counter", lambda: now[0])

    def slow(self, network, seed, *args):
        now[0] += 1000.0
        return Evaluation([Episode(1.0, 1)])

    monkeypatch.setattr(Evaluator, "__call__", slow)
    _, data, _ = fit(NStep(8), callbacks=[GreedyEvaluation(every_env_steps=100)], max_env_steps=500)
    assert now[0] >= 5000
    assert data.progress.clock.seconds == 0


def test_the_best_checkpoint_is_that_of_the_best_evaluation(tmp_path, monkeypatch):
    means = iter([9.0, 3.0, 5.0] + [4.0] * 99)  # the first of them before training
    monkeypatch.setattr(Evaluator, "__call__", lambda *args: Evaluation([Episode(next(means), 1)]))
    evaluation = GreedyEvaluation(every_env_steps=100, final_episodes=0)
    fit(NStep(8), callbacks=[evaluation, Checkpoints(tmp_path, evaluation)], max_env_steps=500)
    best, last = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert 200 <= best["RolloutDataModule"]["progress"]["trained"] < 232
    assert 500 <= last["RolloutDataModule"]["progress"]["trained"] < 532


class Endless(VectorEnv):
    """B environments with a native version only, which takes no time limit and never ends an episode."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions):
        ends = np.zeros(self.num_envs, np.bool_)
        return np.zeros((self.num_envs, 2), np.float32), np.ones(self.num_envs), ends, ends, {}


def evaluate(spec, episodes, **options):
    with closing(Evaluator(spec, episodes, **options)) as evaluator:
        return evaluator.bound, evaluator(make_network(), seed=1)


def test_episodes_that_do_not_end_are_cut_and_counted_as_cut():
    bound, result = evaluate(EnvSpec(COUNTDOWN, {"lengths": (4, 10**9)}), MAX_ENVS + 2, max_episode_steps=7)
    assert bound == 7
    assert [result.cut.count(flag) for flag in (True, False)] == [2, MAX_ENVS]
    assert {episode.length for episode, cut in zip(result.episodes, result.cut, strict=True) if cut} == {7}


def test_the_environments_own_limit_rules_where_it_is_the_shorter_one():
    endless = {"lengths": (10**9,)}
    for spec, asked, bound, length in (
        (EnvSpec("scripted_envs:Limited-v0", endless), None, None, 50),
        (EnvSpec("scripted_envs:Limited-v0", endless), 50, None, 50),
        (EnvSpec("scripted_envs:Limited-v0", endless), 20, 20, 20),
        (EnvSpec(COUNTDOWN, endless, max_episode_steps=9), None, None, 9),
    ):
        found, result = evaluate(spec, 2, max_episode_steps=asked)
        assert found == bound
        assert [episode.length for episode in result.episodes] == [length] * 2
        assert result.cut == [bound is not None] * 2


def test_without_any_limit_ten_thousand_steps_are_the_most():
    assert EnvSpec(COUNTDOWN).bounded().time_limit == 10_000
    assert EnvSpec("CartPole-v1").bounded() == EnvSpec("CartPole-v1")


def test_a_native_environment_that_takes_no_limit_is_left_where_it_is_cut(monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Endless-v0", EnvironmentSpec("Endless-v0", vector_entry_point=Endless))
    bound, result = evaluate(EnvSpec("Endless-v0"), MAX_ENVS + 5, max_episode_steps=30)
    assert bound == 30
    assert result.episodes == [Episode(30.0, 30)] * MAX_ENVS  # those that were to come after them are not played
    assert all(result.cut)


def test_a_run_whose_evaluations_would_not_end_says_what_it_has_cut(caplog):
    evaluation = GreedyEvaluation(every_env_steps=100, episodes=3, final_episodes=4, max_episode_steps=5)
    fit(NStep(8), callbacks=[evaluation], env=COUNTDOWN, env_kwargs={"lengths": (10**9,)}, max_env_steps=200)
    assert evaluation.final.cut == [True] * 4
    (warning,) = (record.message for record in caplog.records if "cut" in record.message)
    assert warning == (
        f"{COUNTDOWN}: 3 of the 3 episodes of an evaluation were cut after 5 steps, and count with their returns "
        "so far (evaluation.max_episode_steps)"
    )


@pytest.mark.parametrize("bad", [0, -3])
def test_a_bound_below_one_step_is_refused(bad):
    with pytest.raises(ValueError, match=f"max_episode_steps: got {bad}, must be at least 1"):
        Evaluator(EnvSpec(COUNTDOWN), 1, max_episode_steps=bad)
    with pytest.raises(ValueError, match=f"max_episode_steps: got {bad}, must be at least 1"):
        GreedyEvaluation(max_episode_steps=bad)


def test_a_curve_begins_before_training_and_that_of_a_resumed_run_does_not_begin_again(tmp_path):
    def evaluated(**kwargs):
        steps = []

        def note(self, result, trainer):
            steps.append(data_of(trainer).progress.env_steps)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GreedyEvaluation, "_log", note)
            evaluation = GreedyEvaluation(every_env_steps=kwargs.pop("every", 100), episodes=2, final_episodes=0)
            fit(NStep(8), callbacks=[evaluation, Checkpoints(tmp_path, evaluation)], **kwargs)
        return steps

    first = evaluated(max_env_steps=200)
    assert first[0] == 0 < first[1]
    assert min(evaluated(max_env_steps=400, ckpt_path=tmp_path / "last.ckpt")) > 200
    assert evaluated(max_env_steps=200, every=None) == []
