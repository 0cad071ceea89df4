import itertools

import pytest
import torch
from helpers import COUNTDOWN, fit, make_network

from a3c import NStep
from a3c.batch import Episode
from a3c.envs.spec import EnvSpec
from a3c.evaluation.evaluator import MAX_ENVS, Evaluation, Evaluator
from a3c.training.callbacks import Checkpoints, GreedyEvaluation


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
    means = iter([480.0, 470.0, 100.0, 480.0, 490.0])
    monkeypatch.setattr(Evaluator, "__call__", lambda *args: Evaluation([Episode(next(means), 1)]))
    evaluation = GreedyEvaluation(every_env_steps=100, final_episodes=0)
    _, data, _ = fit(NStep(8), callbacks=[evaluation], max_env_steps=2000)
    # 480 is not confirmed by 470; 100 is nothing; 480 is confirmed by 490
    assert 300 <= evaluation.solved_at_env_steps < 332
    assert data.progress.env_steps == evaluation.solved_at_env_steps
    assert list(means) == []


def test_a_confirmation_within_its_standard_error_does_not_solve_a_run(monkeypatch):
    # Each time 475 is reached, and then confirmed: by 470 and 490, whose error is 7.1, and at last by 489 and 491
    spread = itertools.cycle([(480, 480), (470, 490), (480, 480), (489, 491)])
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
    means = iter([3.0, 5.0] + [4.0] * 99)
    monkeypatch.setattr(Evaluator, "__call__", lambda *args: Evaluation([Episode(next(means), 1)]))
    evaluation = GreedyEvaluation(every_env_steps=100, final_episodes=0)
    fit(NStep(8), callbacks=[evaluation, Checkpoints(tmp_path, evaluation)], max_env_steps=500)
    best, last = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert 200 <= best["RolloutDataModule"]["progress"]["trained"] < 232
    assert 500 <= last["RolloutDataModule"]["progress"]["trained"] < 532
