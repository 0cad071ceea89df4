"""What README.md, CONTRIBUTING.md and docs/ show works as it stands there.

Every command in a ``sh`` block is run, cut short; below ``<!-- long -->`` its own parser only takes it. Every
``python`` block is run (that of the notebook in tests/faults/test_main_module.py), every ``yaml`` block is taken as a
config, and every link leads to a file and a heading that are there.
"""

import argparse
import itertools
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import NamedTuple

import evaluate
import gymnasium
import numpy as np
import pytest
import torch
from builders import discounts_of, make_batch
from helpers import fit

from a3c import A3C, GAE, NStep, RolloutDataModule
from a3c.comparison import command as comparison
from a3c.comparison.grid import make_grid
from a3c.networks import distributions
from a3c.testing import check_estimator
from a3c.training import modes
from a3c.training.cli import command as cli

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs" / "cartpole.yaml"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}
FENCE = re.compile(r"^(?P<long> *<!-- long -->\n)?(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^ *```", re.M | re.S)
SHORT = ["--data.max_env_steps", "1000", "--data.envs_per_worker", "8", "--evaluation.episodes", "2"]
OWN = {
    "class OneStep": "my_returns",
    "class Hallway": "my_envs",
    'register("Hallway-v0"': "my_hallways",
    "class NormedActorCritic": "my_networks",
    "class LeakyMemory": "my_memories",
    "class BoundedFamily": "my_actions",
    "class ClippedReward": "my_wrappers",
}


class Command(NamedTuple):
    """A command of a document, without what a shell does to it."""

    page: str
    words: list[str]
    is_long: bool


def blocks(language, pages=PAGES):
    for page in pages:
        for match in FENCE.finditer(PAGES[page]):
            if match["language"] == language:
                yield page, textwrap.dedent(match["text"]), match["long"] is not None


def commands():
    for page, text, is_long in blocks("sh"):
        for line in text.splitlines():
            if words := shlex.split(line, comments=True):
                yield Command(page, words[1:] if words[0] == "srun" else words, is_long)


def of(program, is_long=None):
    """Commands of a program, each once, as the parameters of a test."""
    found = {}
    for command in commands():
        text = shlex.join(command.words)
        if text.startswith(program) and is_long in (None, command.is_long):
            found.setdefault(text, command.words[len(program.split()) :])
    assert found, program
    return [pytest.param(words, id=f"{text[:60]}") for text, words in found.items()]


def python_block(beginning):
    return next(text for _, text, _ in blocks("python") if beginning in text)


@pytest.fixture
def here(here, monkeypatch):
    """The folder in which the commands are typed: with the configs, and with the files that the documents show."""
    monkeypatch.syspath_prepend(str(here))
    for beginning, module in OWN.items():
        (here / f"{module}.py").write_text(python_block(beginning))
        monkeypatch.delitem(sys.modules, module, raising=False)
    (here / "configs").symlink_to(ROOT / "configs")
    return here


def test_every_program_that_the_documents_name_is_one_that_these_tests_know():
    known = ("make", "python scripts/", ".venv/bin/python -m pytest", ".venv/bin/pre-commit install")
    found = list(commands())
    assert len(found) > 40
    for command in found:
        assert shlex.join(command.words).startswith(known), command


@pytest.fixture
def built(monkeypatch):
    """Runs that were built, whole, and not trained."""
    runs = []
    monkeypatch.setattr(cli.TrainingRun, "execute", lambda run: runs.append(run.estimator) or 0)
    return runs


@pytest.mark.parametrize("words", of("python scripts/train.py", is_long=True))
def test_every_long_training_that_is_shown_is_built(here, built, words):
    assert cli.main(CONFIG, words) == 0
    assert built


@pytest.mark.parametrize("words", of("python scripts/compare.py"))
def test_every_comparison_that_is_shown_is_a_grid(here, words):
    options = comparison.make_parser().parse_args(list(itertools.takewhile(lambda word: word != "--", words)))
    assert len(make_grid(comparison.axes_of(options)).runs) > 1


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py"])
        patch.setenv("WANDB_MODE", "disabled")
        assert cli.main(CONFIG, [*SHORT, "--mode", "sync", "--run_dir", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("words", of("python scripts/train.py", is_long=False))
def test_every_training_that_is_not_long_trains(here, first_run, monkeypatch, words):
    shutil.copytree(first_run, "runs/first")  # which one of them goes on with
    monkeypatch.setenv("WANDB_MODE", "disabled")
    needs_workers = {"--mode", "--data.worker_timeout"} & set(words)
    assert cli.main(CONFIG, [*words, *SHORT, *([] if needs_workers else ["--mode", "sync"])]) == 0


@pytest.mark.parametrize("words", of("python scripts/evaluate.py", is_long=False))
def test_every_evaluation_that_is_shown_evaluates(here, first_run, words):
    shutil.copytree(first_run, "runs/first")
    assert evaluate.main([*words, "--episodes", "3"]) == 0


class TakenError(Exception):
    """The parser has taken the command line."""


OTHERS = {command.words[1] for command in commands() if command.words[0] == "python"} - {
    f"scripts/{name}.py" for name in ("train", "compare", "evaluate")
}


@pytest.mark.parametrize("script", sorted(OTHERS))
def test_every_other_script_takes_the_flags_that_are_shown(monkeypatch, script):
    for words in (command.words[2:] for command in commands() if command.words[:2] == ["python", script]):
        take(monkeypatch, script, words)


def take(monkeypatch, script, words):
    """Have a script's own parser read its flags, and nothing more."""
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser, *args):
        parse(parser, *args)
        raise TakenError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(TakenError):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    monkeypatch.undo()


@pytest.mark.parametrize("words", of("make"))
def test_every_target_that_is_shown_can_be_made(monkeypatch, words):
    dry = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert dry.returncode == 0, dry.stderr
    if words[0] == "bench":
        flags = [word.removeprefix("ARGS=") for word in words[1:]]
        take(monkeypatch, "scripts/benchmark.py", shlex.split(" ".join(flags)))


@pytest.mark.parametrize("words", of(".venv/bin/python -m pytest"))
def test_the_tests_that_are_named_are_there(words):
    folder, _, name = words
    assert any(f"def test_{name}" in path.read_text() for path in (ROOT / folder).glob("test_*.py"))


def test_the_estimator_that_is_shown_twice_is_one():
    shown = [text for _, text, _ in blocks("python") if "class OneStep" in text]
    plain = {re.sub(r"\s*#.*", "", text) for text in shown}
    assert len(shown) == 2
    assert len(plain) == 1


def test_the_estimator_that_is_shown_passes_the_check_that_is_shown(here):
    exec(python_block("check_estimator("), {})


def test_what_a_run_left_behind_can_be_used(here, first_run, capsys):
    shutil.copytree(first_run, "runs/first")
    exec(python_block("agent.plot()"), {})
    action, mean, _, env_steps = capsys.readouterr().out.split()
    assert action in ("0", "1")
    assert 8 < float(mean) <= 500
    assert int(env_steps) >= 1000
    assert (here / "curve.png").stat().st_size > 10_000


def test_an_environment_in_a_notebook_trains_and_each_way_takes_few_lines(here, capsys):
    names = {"__name__": "__main__"}
    for _, text, _ in blocks("python", ["docs/environments.md"]):
        assert len(text.splitlines()) <= 20
        exec(text.replace("50_000", "2_000"), names)
    assert names["data"].progress.env_steps >= 2000
    hallway, reach, cards = (float(line) for line in capsys.readouterr().out.splitlines()[-3:])
    assert -100 <= hallway <= -6
    assert -60 <= reach < 0
    assert 4 <= cards <= 14


@pytest.fixture(scope="module")
def networks():
    """What the page of networks shows, all in one notebook."""
    names = {"__name__": "__main__"}
    for _, text, _ in blocks("python", ["docs/networks.md"]):
        assert len(text.splitlines()) <= 20
        exec(text, names)
    return names


@pytest.mark.parametrize(
    "name",
    ["NormedActorCritic", "LeakyActorCritic", "RecurrentActorCritic", "BoundedActorCritic", "TwoPartActorCritic"],
)
def test_each_network_that_is_shown_trains_as_it_acts(here, networks, name):
    env = "CartPole-v1"
    if name == "TwoPartActorCritic":  # which is for the example of Dict observations
        shown = {"__name__": "__main__", "gymnasium": gymnasium, "np": np}
        exec(python_block("class Reach"), shown)
        env = shown["Reach"]
    data = RolloutDataModule(env, mode="sync", max_episode_steps=20)
    model = A3C(networks[name](data.observation_space, data.action_space), NStep(8))
    _, data, _ = fit(env=env, model=model, max_env_steps=600, max_episode_steps=20)
    assert data.progress.env_steps >= 600
    assert model.latest["importance/clip_fraction"] == 0
    assert model.latest["guard/skipped_updates"] == 0


def test_every_network_of_the_page_is_one_of_those_that_train(networks):
    own = {name for name, value in networks.items() if isinstance(value, type) and value.__module__ == "__main__"}
    assert own == {
        "NormedActorCritic",
        "TwoPartActorCritic",
        "LeakyMemory",
        "LeakyActorCritic",
        "RecurrentActorCritic",
        "BoundedFamily",
        "BoundedActorCritic",
    }


def test_an_agent_acts_in_environments_side_by_side_as_is_shown(here, first_run):
    shutil.copytree(first_run, "runs/first")
    shown = {}
    exec(python_block("agent.reset"), shown)
    assert shown["agent"].act(shown["observations"]).shape == (4,)


def test_a_policy_is_exported_as_is_shown(here, first_run, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    shutil.copytree(first_run, "runs/first")
    exec(python_block("agent.export"), {})
    assert capsys.readouterr().out == "True\n"


@pytest.mark.parametrize("text", [text for _, text, _ in blocks("yaml")])
def test_every_config_that_is_shown_is_built(here, built, text):
    Path("shown.yaml").write_text(text)
    assert cli.main(CONFIG, ["--config", "shown.yaml"]) == 0
    assert built


@pytest.fixture
def examples(monkeypatch):
    """CONTRIBUTING.md's worked examples, all in one module as its parts are one package's."""
    module = types.ModuleType("examples")
    monkeypatch.setitem(sys.modules, "examples", module)
    for _, text, _ in blocks("python", ["CONTRIBUTING.md"]):
        exec(text, vars(module))
    return module


def test_the_estimator_of_the_worked_example_is_gae_without_lambda(examples):
    flags = {"terminated": [False, True, False, False, False], "truncated": [False, False, False, True, False]}
    batch = make_batch([1.0, 2.0, 3.0, 4.0, 5.0], **flags)
    values = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    arguments = batch, values, batch.behaviour_log_probs, discounts_of(batch, 0.9)
    ours, gae = examples.TD(5)(*arguments), GAE(5, lambda_=0.0)(*arguments)
    torch.testing.assert_close(ours.advantages, gae.advantages)
    assert ours.value_targets[1].item() == 2  # terminated: the reward alone
    check_estimator(examples.TD(5))
    with pytest.raises(ValueError, match="n_steps: got 0"):
        examples.TD(0)


class Gears(gymnasium.Env):
    """Find the right gear: the further from it, the less reward."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(5, start=1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), -float(abs(action - 4)), False, False, {}


gymnasium.register("Gears-v0", Gears, max_episode_steps=10)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def test_the_distribution_of_the_worked_example_learns(examples, monkeypatch):
    monkeypatch.setattr(distributions, "FAMILIES", [examples.OrdinalFamily, *distributions.FAMILIES])
    family = distributions.family_for(Gears.action_space)
    assert type(family) is examples.OrdinalFamily
    parameters = torch.tensor([0.5, 1.0, -2.0, 0.3, 0.1])
    reached = parameters.sigmoid()
    odds = torch.stack([torch.cat([reached[: i + 1], 1 - reached[i + 1 :]]).prod() for i in range(5)])
    torch.testing.assert_close(family(parameters).log_probabilities.exp(), odds / odds.sum())
    module, _, _ = fit(env="Gears-v0", max_env_steps=12_000, learning={"optimizer": adam})
    assert module.network.actions(module.network.actor(torch.zeros(2))).mode().item() == 4 - 1


def test_the_mode_and_the_pool_of_the_worked_example_train(examples, monkeypatch):
    monkeypatch.setitem(modes.MODES, "threaded", examples.Threaded)
    module, data, _ = fit(env="CartPole-v1", max_env_steps=4000, mode="threaded")
    progress = data.progress
    assert module.updates > 100
    assert progress.env_steps >= 4000
    assert progress.collected == progress.env_steps + progress.in_flight


def test_every_file_that_the_documents_name_exists():
    for page, text in PAGES.items():
        for name in re.findall(r"`((?:a3c|configs|scripts|tests|docs)/[\w/.]*)`", text):
            assert (ROOT / name).exists(), f"{page}: {name}"


def anchors(text):
    """Anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", FENCE.sub("", PAGES[page])))
    for link in links:
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.is_file(), link
        if anchor:
            assert anchor in anchors(path.read_text()), link


def test_every_page_is_reached_from_the_readme():
    for page in PAGES:
        assert page == "README.md" or f"]({page}" in PAGES["README.md"], page
