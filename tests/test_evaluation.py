import pytest
import torch
from helpers import COUNTDOWN, fit, make_network

from a3c import NStep
from a3c.batch import Episode
from a3c.callbacks import GreedyEvaluation
from a3c.envs import EnvSpec
from a3c.evaluation import MAX_ENVS, Evaluation, Evaluator


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
    monkeypatch.setattr(Evaluator, "__call__", lambda self, network, seed: Evaluation([Episode(next(means), 1)]))
    evaluation = GreedyEvaluation(every_env_steps=100, final_episodes=0)
    _, data, _ = fit(NStep(8), callbacks=[evaluation], max_env_steps=2000)
    # 480 is not confirmed by 470; 100 is nothing; 480 is confirmed by 490
    assert 300 <= evaluation.solved_at_env_steps < 332
    assert data.progress.env_steps == evaluation.solved_at_env_steps
    assert list(means) == []


def test_a_solved_run_goes_on_if_asked():
    evaluation = GreedyEvaluation(every_env_steps=100, episodes=3, final_episodes=0, stop_when_solved=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EnvSpec, "reward_threshold", 1.0)
        _, data, _ = fit(NStep(8), callbacks=[evaluation], max_env_steps=500)
    assert 100 <= evaluation.solved_at_env_steps < 132
    assert data.progress.env_steps >= 500
