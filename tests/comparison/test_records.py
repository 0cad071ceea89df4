"""Runs read back: whole and torn, finished or not, from folders and from W&B's records."""

import shutil
import time

import numpy as np
import pytest
import yaml
from made_up import make_run, make_runs

from a3c.comparison.analysis import compare
from a3c.comparison.records import find_runs, read_run
from a3c.comparison.variants import Variant
from a3c.training.cli.usage import UsageError


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = read_run(make_run(tmp_path / "run", "GAE:lambda_=0.9", "sync", seed=7, final=200.0))
    assert (run.env, run.variant, run.seed, run.budget) == (
        "CartPole-v1",
        Variant("GAE:lambda_=0.9", "sync"),
        7,
        100_000,
    )
    assert run.finished
    assert run.final_return == 200
    assert run.notes == ()
    assert run.evaluations.env_steps == pytest.approx(np.linspace(10_000, 100_000, 10))
    assert run.evaluations.returns == pytest.approx(np.linspace(20, 200, 10))
    assert run.evaluations.seconds[-1] == 2.0


@pytest.mark.parametrize("cut", [1, 9, 200], ids=["newline", "field", "rows"])
def test_a_torn_file_is_read_up_to_the_tear_which_is_said(tmp_path, cut):
    path = make_run(tmp_path / "run") / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    run = read_run(tmp_path / "run")
    assert len(run.evaluations.returns) == (10 if cut < 200 else 6)
    assert any("is torn" in note for note in run.notes)


def test_nothing_is_believed_after_a_damaged_line(tmp_path):
    path = make_run(tmp_path / "run") / "metrics.csv"
    lines = path.read_text().splitlines()
    lines[8] = lines[8][:5]
    path.write_text("\n".join(lines) + "\n")
    run = read_run(tmp_path / "run")
    assert len(run.evaluations.returns) == 4
    assert "was read up to there (7 lines)" in run.notes[0]


def test_a_run_without_summary_is_unfinished_and_left_out_which_is_said(tmp_path):
    make_runs(tmp_path, {"NStep": [300, 310, 320], "GAE": [400, 410, 420]})
    (tmp_path / "CartPole-v1" / "GAE-async" / "seed2" / "summary.json").unlink()
    comparison = compare(find_runs([tmp_path]))
    assert len(comparison.runs) == 5
    said = "\n".join(comparison.notes)
    assert "seed2: has no summary.json, so it is taken as unfinished" in said
    assert "seed2: left out, ended after 100,000 env steps" in said
    assert "different numbers of runs, from 2 to 3" in said


def test_an_estimators_label_comes_from_the_config_where_no_summary_has_it(tmp_path):
    folder = make_run(tmp_path / "run", "L2Normalised:estimator=(NStep:n_steps=5)")
    (folder / "summary.json").write_text('{"interrupted": false}')
    assert read_run(folder).variant.label == "L2Normalised:estimator=(NStep:n_steps=5)"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["returns"] = {"class_path": "a3c.VTrace", "init_args": {"n_steps": 16}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(folder).variant.label == "VTrace:n_steps=16"
    config["model"]["returns"] = {"class_path": "no_such_module.Mine", "init_args": {"bonus": 0.5}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(folder).variant.label == "no_such_module.Mine:bonus=0.5"  # nothing is imported for it


def test_settings_that_differ_name_the_variants(tmp_path):
    for lr in (0.001, 0.01):
        for seed in (1, 2):
            make_run(tmp_path / f"{lr}-{seed}", seed=seed, **{"model.optimizer.init_args.lr": lr})
    runs = find_runs([tmp_path])
    assert {run.variant.label for run in runs} == {"NStep, lr=0.001", "NStep, lr=0.01"}


def test_what_is_there_in_some_runs_and_null_in_others_names_them_too(tmp_path):
    schedule = {"class_path": "a3c.Linear", "init_args": {"final": 0.0}}
    for seed, given in ((1, None), (2, schedule)):
        make_run(tmp_path / str(seed), seed=seed, **{"model.lr_schedule": given, "video_every": given and 5})
    labels = {run.variant.label for run in find_runs([tmp_path])}
    assert len(labels) == 2
    assert any("a3c.Linear" in label for label in labels)
    assert not any("video" in label for label in labels)


def test_metrics_that_cannot_be_read_are_said(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "metrics.csv").unlink()
    (folder / "metrics.csv").mkdir()
    assert read_run(folder).notes == ("its metrics.csv cannot be read: Is a directory",)


def test_a_run_that_is_found_twice_counts_once(tmp_path):
    make_run(tmp_path / "a" / "run")
    assert len(find_runs([tmp_path, tmp_path / "a", tmp_path / "a" / "run"])) == 1


# ---------------------------------------------------------------- what cannot be compared


def refused(places):
    with pytest.raises(UsageError) as caught:
        compare(find_runs(places))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_places_without_runs_are_refused(tmp_path):
    assert "must be a folder or a .wandb file that exists" in refused([tmp_path / "none"])
    assert "holds no run" in refused([tmp_path])


def test_different_budgets_are_refused_with_the_runs(tmp_path):
    make_run(tmp_path / "short", seed=1, budget=5000)
    make_run(tmp_path / "long", seed=2, budget=9000)
    message = refused([tmp_path])
    assert f"5,000 env steps in {tmp_path / 'short'}; 9,000 env steps in {tmp_path / 'long'}" in message


def test_a_run_without_a_budget_in_env_steps_is_refused(tmp_path):
    make_run(tmp_path / "run", **{"data.max_env_steps": None})
    assert "run: has no budget in env steps" in refused([tmp_path])


def test_a_seed_that_is_there_twice_is_refused(tmp_path):
    make_run(tmp_path / "one")
    make_run(tmp_path / "two")
    assert "seed 1 of NStep · async on CartPole-v1 is there twice" in refused([tmp_path])


def test_a_variant_that_is_missing_in_an_environment_is_refused_by_name(tmp_path):
    make_runs(tmp_path, {"NStep": [1.0], "GAE": [1.0]})
    make_runs(tmp_path, {"NStep": [1.0]}, env="Acrobot-v1")
    assert refused([tmp_path]).endswith("missing: GAE · async on Acrobot-v1")


def test_runs_of_which_none_is_finished_are_refused(tmp_path):
    (make_run(tmp_path / "run") / "summary.json").unlink()
    assert "of which none is finished" in refused([tmp_path])


def test_a_folder_that_is_no_run_of_ours_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("something: else\n")
    assert "is no run of a3c" in refused([tmp_path])
    (tmp_path / "config.yaml").write_text("a: [\n")
    assert "its config.yaml cannot be read" in refused([tmp_path])


# ---------------------------------------------------------------- W&B's records


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Offline records of one run, which was gone on with from a checkpoint at 200 env steps."""
    from a3c.runs.wandb_logger import make_wandb_logger

    folder = tmp_path_factory.mktemp("tracked")
    config = yaml.safe_load((make_run(folder / "made", "GAE", "sync", seed=3, budget=400) / "config.yaml").read_text())
    arguments = {"env": "CartPole-v1", "estimator": "GAE", "mode": "sync", "seed": 3, "config": config}
    run_id = None
    for part, last in (([100, 200, 300], 143), ([300, 400], 0)):
        tracker = make_wandb_logger(folder, **arguments, run_id=run_id)
        for step in part:
            tracker.log_metrics(
                {
                    "env_steps": step,
                    "updates": step / 100,
                    "time/train_seconds": 0.1,
                    "eval/episode_return": step + last,
                }
            )
        tracker.finish(last, {"interrupted": last != 0, "eval_return_mean": 55.0, "estimator_label": "GAE:lambda_=0.5"})
        run_id = tracker.run_id
        second = time.strftime("%S")
        while time.strftime("%S") == second:  # W&B names folders by the second
            time.sleep(0.05)
    return folder / "wandb"


def test_a_run_is_read_from_wandbs_offline_folders_alone(record, tmp_path):
    for folder in record.glob("offline-run-*"):
        shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    (run,) = find_runs([tmp_path])
    assert (run.env, run.variant, run.seed, run.budget) == ("CartPole-v1", Variant("GAE:lambda_=0.5", "sync"), 3, 400)
    assert run.finished
    assert run.final_return == 55
    # What was logged after the checkpoint is replaced by what came when the run went on.
    assert run.evaluations.env_steps.tolist() == [100, 200, 300, 400]
    assert run.evaluations.returns.tolist() == [243, 343, 300, 400]


def test_a_torn_wandb_file_is_read_up_to_the_tear_which_is_said(record, tmp_path):
    first = min(record.glob("offline-run-*/*.wandb"))
    torn = tmp_path / first.name
    torn.write_bytes(first.read_bytes()[: int(first.stat().st_size * 0.8)])
    (run,) = find_runs([torn])
    assert not run.finished
    assert any("is torn" in note for note in run.notes)
    assert run.env == "CartPole-v1"
    torn.write_bytes(b"no record")
    with pytest.raises(UsageError, match="W&B cannot read it"):
        find_runs([torn])


def test_group_job_type_and_tags_of_the_environment_are_respected(tmp_path, monkeypatch):
    from a3c.comparison.wandb_records import _records
    from a3c.runs.wandb_logger import make_wandb_logger

    def run_of(folder, estimator="GAE:lambda_=0.9"):
        folder.mkdir()
        tracker = make_wandb_logger(folder, env="E", estimator=estimator, mode="sync", seed=1, config={})
        tracker.finish(0, {})
        (file,) = folder.glob("wandb/offline-run-*/*.wandb")
        (run,) = (record["run"] for record in _records(file, []) if record["type"] == "run")
        return run

    run = run_of(tmp_path / "plain")
    assert (run["run_group"], run["job_type"]) == ("E/GAE:lambda_=0.9", "GAE:lambda_=0.9 · sync")
    assert run["tags"] == ["E", "GAE:lambda_=0.9", "sync"]
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    monkeypatch.setenv("WANDB_JOB_TYPE", "NStep · sync")
    monkeypatch.setenv("WANDB_TAGS", "compare,sync")
    run = run_of(tmp_path / "set")
    assert (run["run_group"], run["job_type"]) == ("mine", "NStep · sync")
    assert run["tags"] == ["E", "GAE:lambda_=0.9", "sync", "compare"]
    long = run_of(tmp_path / "long", "L2Normalised:estimator=(VTrace:n_steps=16,rho_clip=0.9,c_clip=0.5)")
    assert all(len(tag) <= 64 for tag in long["tags"])  # W&B refuses the whole run for a longer one
    monkeypatch.setenv("WANDB_TAGS", f",,{'x' * 80}, ")
    assert run_of(tmp_path / "odd")["tags"] == ["E", "GAE:lambda_=0.9", "sync", "x" * 64]
