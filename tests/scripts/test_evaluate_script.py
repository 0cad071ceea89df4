import json
import re
import shutil
import sys

import evaluate
import imageio.v3 as iio
import pytest
import torch
from helpers import fit
from PIL import Image

from a3c import NStep, load
from a3c.batch import Episode
from a3c.evaluation.evaluator import Evaluation

KEYS = [
    *("schema", "checkpoint", "env", "policy", "seed", "episodes"),
    *("return_mean", "return_std", "return_iqm", "return_min", "return_max", "return_mean_interval"),
    *("length_mean", "reward_threshold", "solved", "episode_returns", "episode_lengths", "episodes_cut"),
    *("videos", "beliefs"),
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "last.ckpt"
    _, _, trainer = fit(NStep(8), max_env_steps=300, max_episode_steps=30)
    path.parent.mkdir()
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the script in this process; gives exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("os.environ", dict(evaluate.os.environ))

    def run(*arguments):
        capsys.readouterr()
        try:
            status = evaluate.main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return run


def test_json_holds_every_episode_and_the_keys_that_the_docstring_names(checkpoint, run, tmp_path):
    status, out, err = run(
        checkpoint, "--episodes", 20, "--seed", 3, "--json", "--output", tmp_path / "new" / "it.json"
    )
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert json.loads((tmp_path / "new" / "it.json").read_text()) == result
    assert list(result) == KEYS
    assert all(re.search(rf"\b{key}\b", evaluate.__doc__) for key in KEYS)
    episodes = load(checkpoint).evaluate(20, seed=3).episodes
    assert result["episode_returns"] == [episode.episode_return for episode in episodes]
    assert result["episode_lengths"] == [episode.length for episode in episodes]
    assert result["return_mean"] == sum(result["episode_returns"]) / 20
    assert result["return_min"] <= result["return_mean_interval"][0] <= result["return_mean"]
    assert result["return_mean"] <= result["return_mean_interval"][1] <= result["return_max"] <= 30
    assert (result["env"], result["policy"], result["seed"], result["episodes"]) == ("CartPole-v1", "greedy", 3, 20)
    assert (result["reward_threshold"], result["solved"]) == (475, False)
    assert (result["videos"], result["beliefs"], result["checkpoint"]) == ([], None, str(checkpoint))


@pytest.mark.parametrize("flags", [["--json"], []])
def test_figures_that_cannot_be_written_to_the_file_are_printed_all_the_same(checkpoint, run, monkeypatch, flags):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    status, out, err = run(checkpoint, "--episodes", 2, "--output", "it.json", *flags)
    assert status == 2
    assert err == "evaluate.py: error: [Errno 28] No space left on device\n"
    assert "return_mean" in out or "return, mean" in out


def test_sampled_actions_are_drawn_from_the_policy(checkpoint, run):
    greedy, sampled, again = (
        json.loads(run(checkpoint, "--episodes", 20, "--json", *flags)[1])
        for flags in ([], ["--sampled"], ["--sampled"])
    )
    assert sampled["policy"] == "sampled"
    assert sampled == again
    assert sampled["episode_returns"] != greedy["episode_returns"]


def test_a_run_folder_is_evaluated_by_its_last_or_best_checkpoint(checkpoint, run, tmp_path):
    shutil.copytree(checkpoint.parent.parent, tmp_path / "run")
    shutil.copy(checkpoint, tmp_path / "run" / "checkpoints" / "best.ckpt")
    for which in ("last", "best"):
        status, out, _ = run("run", "--which", which, "--episodes", 1, "--json")
        assert status == 0
        assert json.loads(out)["checkpoint"] == f"run/checkpoints/{which}.ckpt"


def test_the_table_says_the_figures_and_where_the_files_are(checkpoint, run):
    status, out, err = run(checkpoint, "--episodes", 5, "--beliefs", "some/beliefs.png")
    assert (status, err) == (0, "")
    for words in ("return, mean", "95 % interval of the mean", "interquartile", "no, from a mean of 475"):
        assert words in out
    assert "some/beliefs.png" in out
    with Image.open("some/beliefs.png") as image:
        assert image.size == (1320, 840)


def test_a_single_episode_without_a_threshold_has_no_interval_and_no_verdict(checkpoint, run, monkeypatch):
    monkeypatch.setattr("a3c.envs.spec.EnvSpec.reward_threshold", None)
    status, out, _ = run(checkpoint, "--episodes", 1, "--json")
    result = json.loads(out)
    assert status == 0
    assert result["return_mean_interval"] is result["solved"] is result["reward_threshold"] is None
    status, out, _ = run(checkpoint, "--episodes", 1)
    assert status == 0
    assert "interval" not in out
    assert "solved" not in out


def test_videos_are_named_after_seed_and_return(checkpoint, run, tmp_path):
    arguments = ["--episodes", 1, "--seed", 7, "--video", "videos", "--video_episodes", 2, "--json"]
    status, out, err = run(checkpoint, *arguments)
    assert (status, err) == (0, "")
    videos = json.loads(out)["videos"]
    assert [video["seed"] for video in videos] == [7, 8]
    names = set()
    for video in videos:
        stem = f"videos/seed{video['seed']}-return{video['episode_return']:g}"
        assert (video["mp4"], video["gif"]) == (f"{stem}.mp4", f"{stem}.gif")
        assert video["whole"] is True
        assert len(iio.imread(video["mp4"], plugin="FFMPEG")) == video["length"] + 1
        names |= {video["mp4"], video["gif"]}
    assert {str(path.relative_to(tmp_path)) for path in (tmp_path / "videos").iterdir()} == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such checkpoint"),
        (["empty"], "empty/checkpoints/last.ckpt: no such checkpoint"),
        (["wandb_only"], "wandb_only/checkpoints/last.ckpt: no such checkpoint"),
        (["RUN", "--which", "best"], "best.ckpt: no such checkpoint"),
        (["torn.ckpt"], "torn.ckpt: damaged, or not a checkpoint of a3c in format 6: its digest does not match"),
        (["https://example.org/last.ckpt"], "is an address, must be a run folder or a checkpoint on this machine"),
        (["RUN", "--episodes", "0"], "episodes: got '0', must be a whole number of at least 1"),
        (["RUN", "--episodes", "1e3"], "episodes: got '1e3', must be a whole number of at least 1"),
        (["RUN", "--seed", "-1"], "seed: got '-1', must be a whole number from 0 to 4294967295"),
        (["RUN", "--episode", "3"], "--episode: no such flag; nearest: --episodes"),
        (["RUN", "--vidoe=x"], "--vidoe: no such flag; nearest: --video"),
        (["RUN", "--which", "first"], "which: invalid choice: 'first' (choose from "),
        (["RUN", "--greedy", "--sampled"], "sampled: not allowed with argument --greedy"),
        (["RUN", "--beliefs", "it.txt"], "beliefs: got 'it.txt', must end in one of .pdf, .png, .svg"),
        (["RUN", "--beliefs", "empty.png"], "beliefs: got 'empty.png', must be a file, and is a folder"),
        (["RUN", "--allow", "my-module"], "allow: got 'my-module', must be a module or package"),
        (["RUN", "--output", "torn.ckpt/it.json"], "torn.ckpt"),
        (["RUN", "--output", "empty"], "output: got 'empty', must be a file, and is a folder"),
        ([], "the following arguments are required: PATH"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_bad_input_costs_one_line_and_status_2(checkpoint, run, tmp_path, arguments, message):
    for name in ("empty", "empty.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "wandb_only" / "wandb" / "offline-run-1").mkdir(parents=True)
    (tmp_path / "torn.ckpt").write_bytes(checkpoint.read_bytes()[:2000])
    run_folder = str(checkpoint.parent.parent)
    status, out, err = run(*[run_folder if argument == "RUN" else argument for argument in arguments])
    assert (status, out) == (2, "")
    assert err.startswith("evaluate.py: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("env", "flags", "message"),
    [
        ("No-Such-v9", [], "env: got 'No-Such-v9', must be an id that Gymnasium knows"),
        ("scripted_envs:Countdown-v0", [], "imports scripted_envs; must be an id alone, "),
        (
            "scripted_envs:Countdown-v0",
            ["--allow", "scripted_envs", "--video", "videos"],
            "env: scripted_envs:Countdown-v0 cannot be drawn: its render modes are none, must have rgb_array",
        ),
    ],
    ids=["unknown", "not-trusted", "cannot-draw"],
)
def test_an_environment_that_cannot_be_had_costs_one_line(checkpoint, run, tmp_path, env, flags, message):
    saved = torch.load(checkpoint, weights_only=True)
    saved["a3c"]["env"]["init_args"].update(id=env, max_episode_steps=None)
    torch.save(saved, tmp_path / "other.ckpt")
    status, out, err = run("other.ckpt", *flags)
    assert (status, out) == (2, "")
    assert message in err
    assert err.splitlines()[-1].startswith("evaluate.py: error: ")


def test_a_return_that_is_not_finite_is_no_figure(checkpoint, run, monkeypatch):
    monkeypatch.setattr("a3c.Agent.evaluate", lambda *args: Evaluation([Episode(float("nan"), 1)]))
    status, out, err = run(checkpoint, "--json")
    assert (status, out) == (2, "")
    assert err == "evaluate.py: error: env: CartPole-v1: episode 1 of 1 has a return of nan, must be finite\n"


def test_a_window_without_a_display_costs_one_line(checkpoint, run, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    status, out, err = run(checkpoint, "--render", "--episodes", 1)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].endswith("cannot be drawn: there is no display for a window")
