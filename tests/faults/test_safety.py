"""What a file that somebody else wrote can do to a run: nothing but configure it."""

import ast
import os
import pickle
import re
import shutil
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import torch
import yaml
from helpers import fit

from a3c import NStep, load
from a3c.envs.source import EnvError
from a3c.envs.spec import EnvSpec
from a3c.runs.checkpoints import CheckpointError
from a3c.training.cli.command import main
from a3c.training.cli.run import shelf_of

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs" / "cartpole.yaml"
SMALL = ["--mode", "sync", "--data.max_env_steps", "600", "--data.envs_per_worker", "2"]
SMALL += ["--evaluation.every_env_steps", "100000", "--evaluation.final_episodes", "1"]
SHELL = "{class_path: os.system, init_args: {command: touch canary}}"
CANARY = "from pathlib import Path\nPath(__file__).with_name('canary').touch()\n"
MINE = CANARY + "from my_returns import OneStep\nclass Mine(OneStep): pass\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder, and beside it an installed module that leaves a canary there if anything imports it."""
    for name in ("here", "installed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "installed")])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # what is imported rightly leaves no folder behind
    Path("../installed/evil.py").write_text(MINE)
    yield tmp_path / "here"
    sys.modules.pop("evil", None)


def assert_refused(capsys, args, message):
    """Exit 2, one line, no canary, nothing started or written."""
    before = sorted(Path.cwd().parent.rglob("*"))
    assert main(CONFIG, args) == 2
    error = capsys.readouterr().err
    assert re.match(f"train.py: error: {message}", error), error
    assert error.count("\n") == 1
    assert sorted(Path.cwd().parent.rglob("*")) == before
    assert "evil" not in sys.modules


# ---------------------------------------------------------------- row 33: configs

IMPORTS = {
    "class path": ("model.returns", "os.system", f"model: {{returns: {SHELL}}}"),
    "string": ("model.returns", "evil.Mine", "model: {returns: evil.Mine}"),
    "dotted key": ("model.returns", "evil.Mine", "model.returns: evil.Mine"),
    "dotted class_path": ("model.returns", "evil.Mine", "model: {returns.class_path: evil.Mine}"),
    "network": ("model.network", "evil.Mine", "model: {network: {class_path: evil.Mine}}"),
    "optimizer": ("model.optimizer", "os.system", "model: {optimizer: os.system}"),
    "schedule": ("model.lr_schedule", "evil.Mine", "model: {lr_schedule: evil.Mine}"),
    "nested estimator": (
        "model.returns.estimator",
        "evil.Mine",
        "model: {returns: {class_path: L2Normalised, init_args: {estimator: evil.Mine}}}",
    ),
    "nested scheduler": (
        "model.entropy_schedule.scheduler",
        "evil.Mine",
        "model: {entropy_schedule: {class_path: TorchScheduler, init_args: {scheduler: {class_path: evil.Mine}}}}",
    ),
    "logger": ("trainer.logger", "evil.Mine", "trainer: {logger: evil.Mine}"),
    "a logger of Lightning": (
        "trainer.logger",
        "lightning.pytorch.loggers.WandbLogger",
        "trainer: {logger: lightning.pytorch.loggers.WandbLogger}",
    ),
    "callback": ("trainer.callbacks", "evil.Mine", "trainer: {callbacks: [{class_path: evil.Mine}]}"),
    "appended callback": ("trainer.callbacks", "evil.Mine", "trainer: {callbacks+: evil.Mine}"),
    "callable within an allowed callback": (
        "trainer.callbacks.on_fit_start",
        "os.system",
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback, "
        "init_args: {on_fit_start: os.system}}]}",
    ),
    "plugins": ("trainer.plugins", "evil.Mine", "trainer: {plugins: evil.Mine}"),
    "strategy": ("trainer.strategy", "evil.Mine", "trainer: {strategy: {class_path: evil.Mine}}"),
    "profiler": ("trainer.profiler", "evil.Mine", "trainer: {profiler: evil.Mine}"),
    "an environment's argument": ("data.env_kwargs.x", "os.system", f"data: {{env_kwargs: {{x: {SHELL}}}}}"),
    "YAML within text": ("model.returns", "os.system", f'model: {{returns: "{SHELL}"}}'),
    "text within text": ("model.returns", "os.system", f"""model: '{{"returns": "{SHELL}"}}'"""),
    "anchor": ("model.returns", "os.system", f"x: &a {SHELL}\nmodel: {{returns: *a}}"),
    "config within a config": ("model.returns", "os.system", f"config: '{{model: {{returns: {SHELL}}}}}'"),
    "beside the base, not below it": ("model.returns", "torch.hub.load", "model: {returns: torch.hub.load}"),
    "a name that begins alike": ("model.returns", "a3c_evil.Mine", "model: {returns: a3c_evil.Mine}"),
}


@pytest.mark.parametrize(("key", "given", "text"), IMPORTS.values(), ids=IMPORTS)
def test_row_33_what_a_config_may_not_import_is_refused_before_it_is(here, capsys, key, given, text):
    Path("some.yaml").write_text(text)
    module = given.partition(".")[0]
    allowed = (
        "must be a class of a3c, torch.optim, the Trainer's parts or a module below the current folder, or lie under a "
        "prefix that you trust: "
    )
    assert_refused(capsys, ["--config", "some.yaml"], f"some.yaml: {key}: got '{given}', {allowed}--allow {module}\n")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a3c.evaluation.agent.torch.load", "got 'torch.serialization.load', must be .*: --allow torch\n"),
        (
            "a3c.evaluation.agent.load",
            "got 'a3c.evaluation.agent.load', must be a class derived from ReturnEstimator\n",
        ),
        ("a3c.MLPActorCritic", "got 'a3c.MLPActorCritic', must be a class derived from ReturnEstimator\n"),
    ],
)
def test_row_33_an_allowed_module_leads_only_to_its_own_classes_of_the_right_base(here, capsys, path, message):
    Path("some.yaml").write_text(f"model: {{returns: {path}}}")
    assert_refused(capsys, ["--config", "some.yaml"], f"model.returns: {message}")


def test_row_33_files_that_a_config_names_are_checked_as_well(here, capsys):
    Path("deeper").mkdir()
    Path("deeper/one.yaml").write_text("model: two.yaml\n")
    Path("deeper/two.yaml").write_text("returns: GAE\n")
    Path("deeper/GAE").write_text("class_path: evil.Mine\n")  # the parser prefers a file to a name
    for args in (
        ["--config", "deeper/one.yaml"],
        ["--config=deeper/one.yaml"],
        ["-cdeeper/one.yaml"],
        ["-c", "file://" + str(here / "deeper/one.yaml")],
        ["--model", "deeper/two.yaml"],
        ["--config", '{"model": "deeper/two.yaml"}'],
        ["--model", '{"returns": "deeper/GAE"}'],
        ["--model.returns", "deeper/GAE"],
        ["--model.returns=deeper/GAE"],
    ):
        assert_refused(capsys, args, "deeper/GAE: model.returns: got 'evil.Mine', must be")


def test_row_33_files_that_name_each_other_without_end_are_refused(here, capsys):
    Path("one").mkdir()
    Path("self.yaml").write_text("config: one/../self.yaml\n")
    assert_refused(capsys, ["--config", "self.yaml"], "Config file loop detected: self.yaml -> one/../self.yaml")


def test_row_33_the_default_config_is_a_file_like_any_other(here, capsys):
    Path("default.yaml").write_text("model: {returns: evil.Mine}\n")
    assert main(here / "default.yaml", []) == 2
    assert capsys.readouterr().err.startswith("train.py: error: default.yaml: model.returns: got 'evil.Mine'")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config", "http://127.0.0.1:9/a.yaml"], "config: got 'http://127.0.0.1:9/a.yaml', must be a file that"),
        (["--config", "memory://a.yaml"], "config: got 'memory://a.yaml', must be a file that exists"),
        (["--config", "-"], "config: got '-', must be a file that exists"),
        (["--model", "http://127.0.0.1:9/a.yaml"], "model"),
        (["--config", "tag.yaml"], "tag.yaml: got no plain YAML: could not determine a constructor for the tag"),
        (["--config", "env.yaml"], "env.yaml: data.env: got 'evil:X-v0', which imports evil; must be an id alone, or"),
        (["--data", "{env: 'evil:X-v0', env_kwargs: nested.yaml}"], "data.env_kwargs: got nested.yaml, must be a map"),
        (["--config", "allow.yaml"], "allow.yaml: allow: got 'evil', must be typed on the command line"),
        (["--config", "itself.yaml"], "itself.yaml: model.returns: got 'evil.Mine', must be a class of"),
        (["--config", "env.yaml", "--allow", "evi"], "env.yaml: data.env: got 'evil:X-v0'"),
        (["--config", "env.yaml", "--allow", "evil.deeper"], "env.yaml: data.env: got 'evil:X-v0'"),
        (["--allow", "evil.yaml/x"], "allow: got 'evil.yaml/x', must be a module or package"),
        (["--config", "dir.yaml"], "dir.yaml: run_dir: got '/tmp/x', must be a relative path within the current"),
        (["--config", "up.yaml"], "up.yaml: run_dir: got 'a/../../x', must be a relative path within the current"),
        (["--config", "link.yaml"], "link.yaml: run_dir: got 'out/x', must be a relative path within the current"),
        (["--config", "place.yaml"], "place.yaml: trainer.callbacks.dirpath: got '/tmp/x', must be a relative path"),
        (["--config", "root.yaml"], "root.yaml: trainer.default_root_dir: got 's3://x/y', must be a relative path"),
        (["--config", "null.yaml"], "null.yaml: run_dir: got '.x00', must be a relative path within the current"),
        (["--config", "circle.yaml"], "config: got YAML that holds itself, must have an end"),
        (["--config", "laughs.yaml"], "config: got more than 100000 values"),
        (["--allow", "jsonargparse"], "allow: got 'jsonargparse', must be another"),
        (["--trainer.profiler", "evil"], "trainer: .*it can only be one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_row_33_other_ways_of_a_file_are_closed(here, capsys, args, message):
    Path("out").symlink_to("/tmp")
    for name, text in {
        "tag": "model: !!python/object/apply:os.system ['touch canary']\n",
        "env": "data: {env: 'evil:X-v0'}",
        "nested": f"x: {SHELL}",
        "allow": "allow: [evil]",
        "itself": "allow: [evil]\nmodel: {returns: evil.Mine}",
        "dir": "run_dir: /tmp/x",
        "up": "run_dir: a/../../x",
        "link": "run_dir: out/x",
        "place": "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
        "init_args: {dirpath: /tmp/x}}]}",
        "null": 'run_dir: "\\0"',
        "circle": "x: &a {b: *a}",
        "laughs": "x0: &x0 [lol]\n" + "".join(f"x{n + 1}: &x{n + 1} [{f'*x{n}, ' * 9}]\n" for n in range(9)),
        "root": "trainer: {default_root_dir: 's3://x/y'}",
    }.items():
        Path(f"{name}.yaml").write_text(text)
    assert_refused(capsys, args, message)


def test_row_33_a_config_elsewhere_is_not_fetched(here, capsys):
    fsspec.filesystem("memory").pipe("/a.yaml", b"returns: evil.Mine")  # Lightning would read it
    Path("some.yaml").write_text("model: memory://a.yaml\n")
    for args in (["--model", "memory://a.yaml"], ["--config", "some.yaml"]):
        assert_refused(capsys, args, r"model: (?!.*evil)")


def test_row_33_the_environment_gives_the_parser_no_config(here, monkeypatch):
    Path("some.yaml").write_text("model: {returns: evil.Mine}")
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("PL_CONFIG", "some.yaml")
    monkeypatch.setenv("PL_MODEL__RETURNS", "evil.Mine")
    assert main(CONFIG, [*SMALL, "--run_dir", "run"]) == 0
    assert not Path("canary").exists()
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"]["returns"]["class_path"] == "a3c.NStep"


def test_row_33_a_class_that_is_typed_is_the_users_own_and_its_saved_config_needs_their_trust(here, capsys):
    Path("../installed/elsewhere.py").write_text(MINE)
    assert main(CONFIG, [*SMALL, "--model.returns", "elsewhere.Mine", "--run_name", "a"]) == 0
    (saved,) = here.glob("runs/*/*/a/config.yaml")
    again = ["--config", str(saved)]
    capsys.readouterr()
    assert main(CONFIG, [*again, "--run_name", "b"]) == 2
    assert "model.returns: got 'elsewhere.Mine', must be a class of" in (error := capsys.readouterr().err)
    assert error.endswith("or lie under a prefix that you trust: --allow elsewhere\n")
    assert main(CONFIG, [*again, "--allow", "other", "--allow", "elsewhere", "--run_name", "c"]) == 0
    assert yaml.safe_load(next(here.glob("runs/*/*/c/config.yaml")).read_text())["allow"] is None


def test_row_33_a_config_may_name_what_belongs_to_the_project_torch_and_the_trainer(here):
    Path("some.yaml").write_text(
        "model: {returns: a3c.returns.GAE, optimizer: torch.optim.SGD, lr_schedule: {class_path: "
        "a3c.learner.schedules.TorchScheduler, init_args: {scheduler: {class_path: torch.optim.lr_scheduler.StepLR, "
        "init_args: {step_size: 3}}}}}\n"
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback}], profiler: simple}\n"
        "run_dir: made.here/run\n"
    )
    assert main(CONFIG, ["--config", "some.yaml", *SMALL, "--model.optimizer.lr", "0.1"]) == 0
    assert Path("made.here/run/summary.json").exists()


# ---------------------------------------------------------------- row 33: a user's own modules

OWN_ENV = """
import gymnasium
from scripted_envs import Countdown
gymnasium.register("Own-v0", Countdown, max_episode_steps=9)
"""


def test_row_33_classes_and_environments_below_the_current_folder_need_no_leave(here):
    shutil.copy(ROOT / "tests" / "my_returns.py", "own_parts.py")
    Path("own_nets/inner").mkdir(parents=True)
    Path("own_nets/__init__.py").write_text("from .inner.narrow import Narrow as Slim\n")
    Path("own_nets/inner/narrow.py").write_text("from own_parts import Narrow as Base\nclass Narrow(Base): pass\n")
    Path("own_nets/env.py").write_text(OWN_ENV)
    Path("configs").mkdir()
    Path("configs/some.yaml").write_text(
        "model:\n  returns: {class_path: L2Normalised, init_args: {estimator: {class_path: own_parts.OneStep}}}\n"
        "  network: {class_path: own_nets.Slim, init_args: {width: 5}}\n"
        "data: {env: 'own_nets.env:Own-v0'}\nprobe: {estimators: ['own_parts.OneStep:bonus=0.25']}\n"
    )
    assert main(CONFIG, ["--config", "configs/some.yaml", *SMALL, "--run_dir", "run"]) == 0
    assert load("run").network.width == 5
    assert load("run").env.id == "own_nets.env:Own-v0"
    assert main(CONFIG, ["--config", "run/config.yaml", "--run_dir", "again"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {returns: own.Mime}", "some.yaml: model.returns: got 'own.Mime', must be a class, and own.py defines "
         "none of that name; nearest: Mine; or lie under a prefix that you trust: --allow own\n"),
        ("model: {returns: own.touch}", "some.yaml: model.returns: got 'own.touch', must be a class, and own.py defi"),
        ("model: {returns: own.Path}", "some.yaml: model.returns: got 'own.Path', must be a class, and own.py defines"),
        ("model: {returns: own.pathlib.Path}", "some.yaml: model.returns: got 'own.pathlib.Path', must be a class of"),
        ("model: {returns: nets.own.Mime}", "some.yaml: model.returns: got 'nets.own.Mime', must be a class, and nets"),
        ("model: {returns: linked.Mine}", "some.yaml: model.returns: got 'linked.Mine', must be a class of a3c"),
        ("model: {returns: under_link.own.Mine}", "some.yaml: model.returns: got 'under_link.own.Mine', must be a cla"),
        ("model: {returns: evil.Mine}", "some.yaml: model.returns: got 'evil.Mine', must be a class of a3c"),
        ("model: {returns: antigravity.Mine}", "some.yaml: model.returns: got 'antigravity.Mine', must be a class of"),
        ("model: {returns: packaged.Mine}", "some.yaml: model.returns: got 'packaged.Mine', must be a class of a3c"),
        ("data: {env: 'linked:X-v0'}", "some.yaml: data.env: got 'linked:X-v0', which imports linked; .*--allow li"),
        ("data: {env: own.touch}", "some.yaml: data.env: got 'own.touch', must be a class, and own.py defines none"),
        ("data: {env: linked.Mine}", "some.yaml: data.env: got 'linked.Mine', must be a class of a3c"),
        ("data: {env: packaged.Mine}", "some.yaml: data.env: got 'packaged.Mine', must be a class of a3c"),
        ("data: {env: 'packaged:X-v0'}", "some.yaml: data.env: got 'packaged:X-v0', which imports packaged"),
        (
            "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback, "
            "init_args: {on_fit_start: own.touch}}]}",
            "some.yaml: trainer.callbacks.on_fit_start: got 'own.touch', must be a class, and own.py defines none",
        ),
    ],
)  # fmt: skip
def test_row_33_what_is_not_a_users_own_class_is_refused_before_it_is_imported(here, capsys, text, message):
    own = CANARY + "import pathlib\nclass Mine: pass\ndef touch(*_): pass\n"
    for folder in ("nets", "evil", "../away", "site-packages"):  # evil: an installed module comes first
        Path(folder).mkdir()
    for file in (
        "own",
        "antigravity",
        "nets/__init__",
        "nets/own",
        "evil/own",
        "../away/own",
        "site-packages/packaged",
    ):
        Path(f"{file}.py").write_text(own)
    Path("evil/own.py").unlink()
    Path("linked.py").symlink_to("../away/own.py")
    Path("under_link").symlink_to("../away")
    sys.path.append(str(here / "site-packages"))
    Path("some.yaml").write_text(text)
    assert_refused(capsys, ["--config", "some.yaml"], message)
    assert not any(here.parent.rglob("canary"))


def test_row_33_a_users_own_class_of_the_wrong_base_is_refused_in_one_line(here, capsys):
    Path("wrong.py").write_text("class Wrong: pass\n")
    for key, base in {"returns": "ReturnEstimator", "network": "ActorCritic", "lr_schedule": "Schedule"}.items():
        Path("some.yaml").write_text(f"model: {{{key}: wrong.Wrong}}")
        message = f"model.{key}: got 'wrong.Wrong', must be a class derived from {base}\n"
        assert_refused(capsys, ["--config", "some.yaml"], message)


def test_row_33_a_users_own_module_that_is_no_python_is_shown(here):
    Path("own.py").write_text("class Mine(:\n")
    Path("some.yaml").write_text("model: {returns: own.Mine}")
    with pytest.raises(SyntaxError, match=r"own\.py, line 1"):
        main(CONFIG, ["--config", "some.yaml"])


# ---------------------------------------------------------------- row 21: checkpoints


class Shell:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    _, _, trainer = fit(NStep(32), max_env_steps=100)
    path = tmp_path_factory.mktemp("trained") / "some.ckpt"
    trainer.save_checkpoint(path)
    return path


def spoilt(trained, name, change):
    checkpoint = torch.load(trained, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, name)


def a_pickle(trained):
    Path("bad.ckpt").write_bytes(pickle.dumps({"state_dict": Shell(), "a3c": {}}))


def a_pickle_within(trained):
    spoilt(trained, "bad.ckpt", lambda checkpoint: checkpoint.update(extra=Shell()))


def hyper_parameters(trained):
    payload = {"_class_path": "evil.Mine", "_instantiator": "evil.Mine", "_instantiator_kwargs": {}, "x": Shell()}
    spoilt(trained, "bad.ckpt", lambda checkpoint: checkpoint.update(hyper_parameters=payload))


def a_class(trained):
    network = {"class_path": "evil.Mine", "init_args": {}}
    spoilt(trained, "bad.ckpt", lambda checkpoint: checkpoint["a3c"].update(network=network))


def a_class_within(trained):
    sizes = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "canary"]}}
    spoilt(trained, "bad.ckpt", lambda checkpoint: checkpoint["a3c"]["network"]["init_args"].update(hidden_sizes=sizes))


def an_environment(trained):
    spoilt(trained, "bad.ckpt", lambda checkpoint: checkpoint["a3c"]["env"]["init_args"].update(id="evil:X-v0"))


BAD = [a_pickle, a_pickle_within, hyper_parameters, a_class, a_class_within, an_environment]


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_row_21_a_malicious_checkpoint_is_refused_by_load(here, trained, make):
    make(trained)
    with pytest.raises(CheckpointError, match=r"^bad\.ckpt: [^\n]*$"):
        load("bad.ckpt")
    assert not Path("canary").exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_row_21_a_malicious_checkpoint_is_refused_by_the_command_line(here, capsys, trained, make):
    make(trained)
    args = [*SMALL, "--model.network.hidden_sizes", "[16]", "--ckpt_path", "bad.ckpt"]
    assert_refused(capsys, args, "ckpt_path: bad.ckpt")


def test_row_21_what_no_checkpoint_of_ours_has_is_never_followed(here, trained):
    payload = {"_class_path": "evil.Mine", "_instantiator": "evil.Mine"}
    spoilt(trained, "odd.ckpt", lambda checkpoint: checkpoint.update(hyper_parameters=payload))
    load("odd.ckpt")
    args = ["--model.network.hidden_sizes", "[16]", "--ckpt_path", "odd.ckpt", "--run_dir", "run"]
    assert main(CONFIG, [*SMALL, *args]) == 0
    assert "evil" not in sys.modules
    assert not Path("canary").exists()


def test_row_21_every_load_is_of_weights_only():
    files = [path for folder in ("a3c", "scripts") for path in (ROOT / folder).rglob("*.py")]
    loads = [
        node
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "self.trainer.fit")
    ]
    assert len(loads) >= 2
    for load_call in loads:
        assert "weights_only=True" in map(ast.unparse, load_call.keywords), ast.unparse(load_call)


def test_row_21_an_address_is_no_checkpoint(here, capsys):
    for address in ("http://127.0.0.1:9/last.ckpt", "s3://bucket/last.ckpt", "file:///tmp/last.ckpt"):
        with pytest.raises(CheckpointError, match=f"{address}: is an address, must be a run folder or a checkpoint"):
            load(address)
        assert_refused(capsys, [*SMALL, "--ckpt_path", address], "ckpt_path: got '")


def test_row_21_a_checkpoint_that_lies_about_is_not_unpickled_on_slurm(here, monkeypatch):
    """Where Lightning finds itself on SLURM it goes on from hpc_ckpt_*.ckpt by itself."""
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        monkeypatch.setenv(name, "0")
    Path("hpc_ckpt_1.ckpt").write_bytes(pickle.dumps(Shell()))
    with suppress(pickle.UnpicklingError):  # refused, or not looked at in the first place
        main(CONFIG, [*SMALL, "--run_dir", "run"])
    assert not Path("canary").exists()


def test_row_21_what_the_reader_trusts_is_loaded(here, trained):
    shutil.copy(ROOT / "tests" / "my_returns.py", "../installed/trusted.py")
    network = {"class_path": "trusted.Narrow", "init_args": {"width": 16}}

    def change(checkpoint):
        spaces = {key: checkpoint["a3c"]["network"]["init_args"][key] for key in ("observation_space", "action_space")}
        checkpoint["a3c"]["network"] = {**network, "init_args": {**network["init_args"], **spaces}}
        checkpoint["a3c"]["env"]["init_args"]["id"] = "envs_of_mine:X-v0"

    spoilt(trained, "own.ckpt", change)
    for allow in ((), "trusted", ["trusted_too", "envs_of_mine"]):
        with pytest.raises(CheckpointError, match=r"of a module that you trust: allow=.* on a command line --allow "):
            load("own.ckpt", allow=allow)
    assert load("own.ckpt", allow=["trusted", "envs_of_mine"]).network.width == 16
    with pytest.raises(ValueError, match="allow: got 'a-b', must be a module or package"):
        load("own.ckpt", allow=["a-b"])


# ---------------------------------------------------------------- row 36: names and folders


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a\n", "é", "x" * 101]
)
def test_row_36_a_run_name_that_is_no_plain_name_is_refused(here, capsys, name):
    assert_refused(capsys, [*SMALL, f"--run_name={name}"], "run_name: got .*, must be 1 to 100 letters, digits, '.'")


def test_row_36_a_name_is_that_of_the_folder_and_of_the_wandb_run_and_used_once(here, capsys, monkeypatch):
    given = {}

    def make_logger(folder, **settings):
        given.update(settings)
        return SimpleNamespace(run_id=None, alert=print)

    def execute(run):
        run._attach({})
        run._lock.release()
        return 0

    monkeypatch.setattr("a3c.training.cli.run.make_wandb_logger", make_logger)
    monkeypatch.setattr("a3c.training.cli.run.TrainingRun.execute", execute)
    for name in ("first-run_1.0", "7", "x" * 100):
        assert main(CONFIG, [*SMALL, "--run_name", name]) == 0
        assert given["name"] == name
        assert Path("runs/CartPole-v1/NStep-sync", name).is_dir()
    capsys.readouterr()
    assert_refused(capsys, [*SMALL, "--run_name", "7"], "run_name: got '7', must be new: runs/.*/7 exists")
    both = ["--run_name", "8", "--run_dir", "there"]
    assert_refused(capsys, [*SMALL, *both], "run_name: got '8' and run_dir 'there', must be one of them")


@pytest.mark.parametrize("link", ["runs/CartPole-v1", "runs/CartPole-v1/NStep-sync", "runs/CartPole-v1/NStep-sync/x"])
def test_row_36_a_link_leads_no_run_elsewhere(here, capsys, tmp_path_factory, link):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Path(link).parent.mkdir(parents=True)
    Path(link).symlink_to(elsewhere)
    assert_refused(capsys, [*SMALL, "--run_name", "x"], "run_(dir|name): got .*, must (lead through no link|be new)")
    assert list(elsewhere.iterdir()) == []


def test_row_36_a_link_to_nothing_is_not_filled(here, capsys):
    Path("runs/CartPole-v1/NStep-sync").mkdir(parents=True)
    Path("runs/CartPole-v1/NStep-sync/x").symlink_to("nowhere")
    assert_refused(capsys, [*SMALL, "--run_name", "x"], "run_name: got 'x', must be new")


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ("ALE/Pong-v5", "runs/ALE/Pong-v5"),
        ("my.envs:Own/Name-v0", "runs/my.envs-Own/Name-v0"),
        ("../../x-v0", "runs/-/-/x-v0"),
        (".hidden-v0", "runs/-hidden-v0"),
        ("/tmp/x-v0", "runs/-/tmp/x-v0"),
    ],
)
def test_row_36_an_environments_id_leads_no_run_elsewhere(here, env, folder):
    data = SimpleNamespace(env=EnvSpec(env), mode=SimpleNamespace(name="sync"))
    assert str(shelf_of(data, SimpleNamespace(returns=NStep()))) == f"{folder}/NStep-sync"


# ---------------------------------------------------------------- rows 29 and 32: what is not supported

OLD_API = """
import gymnasium, numpy
from scripted_envs import Countdown

class Step(Countdown):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, info

class Reset(Countdown):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]

class Unseeded(Countdown):
    def reset(self):
        return super().reset()

class Buggy(Countdown):
    def step(self, action):
        one, two = (1, 2, 3)

for cls in (Step, Reset, Unseeded, Buggy):
    gymnasium.register(f"{cls.__name__}-v0", cls)
"""
SUPPORTED = r"reset\(seed=…, options=…\) → observation, info; step\(action\) → observation, reward, terminated, trunc"


@pytest.fixture
def old_envs(here, monkeypatch):
    Path("old_envs.py").write_text(OLD_API)
    sys.path.insert(0, str(here))
    yield
    sys.modules.pop("old_envs", None)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize(("name", "method"), [("Step", "step"), ("Reset", "reset"), ("Unseeded", "reset")])
def test_row_29_an_environment_of_the_old_api_is_refused_with_what_is_supported(old_envs, name, method, num_envs):
    with pytest.raises(EnvError, match=rf"env: old_envs:{name}-v0 has the old API .*\(first {method}: .*{SUPPORTED}"):
        EnvSpec(f"old_envs:{name}-v0").look(num_envs)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_row_29_an_environments_own_mistake_is_not_taken_for_an_old_api(old_envs):
    with pytest.raises(RuntimeError, match="old_envs:Buggy-v0 raised in its first step: too many values") as caught:
        EnvSpec("old_envs:Buggy-v0").look(2)
    assert "one, two = (1, 2, 3)" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("mode", ["sync", "async", "hogwild"])
def test_row_29_a_run_in_an_environment_of_the_old_api_says_what_is_supported(old_envs, capfd, mode):
    args = ["--data.env", "old_envs:Step-v0", "--run_dir", "run", *SMALL, "--mode", mode]
    assert main(CONFIG, args) == 2
    error = capfd.readouterr().err
    assert re.search(f"data.env: old_envs:Step-v0 has the old API of Gym .*{SUPPORTED}", error), error
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "spaces",
    ["Box(-1, 1, (2,)), Box(0, 9, (2,), int)", "Dict(x=Text(3)), Discrete(2)", "Box(-1, 1), Sequence(Discrete(2))"],
)
def test_row_29_unsupported_spaces_are_refused_before_anything_starts(here, capsys, spaces):
    Path("odd_spaces.py").write_text(
        "import gymnasium\nfrom gymnasium.spaces import *\nfrom scripted_envs import Countdown\n"
        f"class Odd(Countdown):\n    observation_space, action_space = {spaces}\n"
        "gymnasium.register('Odd-v0', Odd)\n"
    )
    message = "data.env: odd_spaces:Odd-v0 has observations .*; supported: observations: Box .*; actions: Discrete, "
    assert_refused(capsys, ["--data.env", "odd_spaces:Odd-v0"], message)
    sys.modules.pop("odd_spaces")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {discount: -0.1}", "model.discount: got -0.1, must be between 0 and 1"),
        ("model: {discount: 1.5}", "model.discount: got 1.5, must be between 0 and 1"),
        ("model: {discount: .nan}", "model.discount: got nan, must be between 0 and 1"),
        ("model: {optimizer: {init_args: {lr: .nan}}}", "model.optimizer: .*(lr|learning rate:) nan"),
        ("model: {optimizer: {init_args: {lr: .inf}}}", "model.optimizer: got lr inf, must be finite"),
        ("model: {returns: {init_args: {n_steps: 0}}}", "model.returns.n_steps: got 0, must be at least 1"),
        ("data: {workers: -1}", "data.workers: got -1, must be at least 1"),
        ("data: {workers: 0}", "data.workers: got 0, must be at least 1"),
        ("data: {env: CartPol-v1}", "data.env: got 'CartPol-v1', must be .*; nearest: CartPole-v1"),
        ("model: {returns: NStpe}", "model.returns: got 'NStpe', must be one of .*; nearest: NStep"),
        ("model: {returns: a3c.NStpe}", "model.returns: got 'a3c.NStpe'"),
        ("model: {retruns: NStep}", "model.retruns: no such key; nearest: model.returns"),
        ("modle: {returns: NStep}", "modle.returns: no such key; nearest: model.returns"),
    ],
)
def test_row_32_what_a_file_gets_wrong_is_refused_as_if_it_were_typed(here, capsys, text, message):
    Path("some.yaml").write_text(text)
    assert_refused(capsys, ["--config", "some.yaml"], message)


def test_row_32_a_negative_discount_is_refused(here, capsys):
    assert_refused(capsys, ["--model.discount", "-0.1"], "model.discount: got -0.1, must be between 0 and 1")
