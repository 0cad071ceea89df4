"""What W&B's record of a run holds, read back from an offline one."""

import csv
import json
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import wandb
from helpers import COUNTDOWN, fit
from wandb_reader import records_of

from a3c import A3C, NStep
from a3c.runs import wandb_service
from a3c.runs.wandb_logger import MOST_ALERTS, TEXT, WandbOptions, make_wandb_logger
from a3c.training.callbacks import DivergenceAlert, Histograms
from a3c.training.cli.command import main

CONFIG = Path(__file__).parent.parent.parent / "configs" / "cartpole.yaml"
SMALL = ["--mode", "sync", "--data.max_env_steps", "4000", "--data.envs_per_worker", "8"]
SMALL += ["--evaluation.every_env_steps", "2000", "--evaluation.final_episodes", "2", "--stop_when_solved", "false"]
RUN = {"env": "E", "estimator": "GAE", "mode": "sync", "seed": 1, "config": {}}


def records_by_kind(record):
    """What W&B's own reader finds in a run's folder, by kind."""
    records = {}
    for entry in records_of(record):
        records.setdefault(entry["type"], []).append(entry[entry["type"]])
    return records


def history_of(records):
    return [entry["item"] for entry in records["history"]]


def offline_runs(folder):
    return sorted(folder.glob("wandb/offline-run-*"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))  # where W&B itself keeps tables
    return tmp_path


@pytest.fixture
def tracker(here):
    tracker = make_wandb_logger(here, **RUN)
    yield tracker
    tracker.finish(0, {})


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One run with everything on, and what W&B's record of it holds."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py"])
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("WANDB_DATA_DIR", str(folder / "data"))
        extras = ["--probe.every_updates", "4", "--wandb.histograms_every", "5", "--wandb.artifacts", "true"]
        assert main(CONFIG, [*SMALL, *extras, "--run_dir", "run"]) == 0
    (record,) = offline_runs(folder / "run")
    return folder / "run", record, records_by_kind(record)


def test_the_record_has_group_name_config_and_env_steps_as_its_axis(recorded):
    _, _, records = recorded
    (run,) = records["run"]
    assert run["run_group"] == "CartPole-v1/NStep"
    assert run["display_name"] == "NStep-sync-s1"
    config = run["config"]["update"]
    assert config["probe"] == {"every_updates": 4, "estimators": None}
    assert config["wandb"] == {"histograms_every": 5, "artifacts": True}
    assert {"glob_name": "*", "step_metric": "env_steps"}.items() <= records["metric"][1].items()
    assert all("env_steps" in row for row in history_of(records))


def test_the_probe_is_in_the_history_and_in_metrics_csv_and_its_means_in_a_table(recorded):
    folder, record, records = recorded
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = ["NStep", "NStep:n_steps=1", "GAE", "VTrace"]
    measures = ["target_variance", "bias", "advantage_correlation", "sign_agreement", "gradient_cosine"]
    (table,) = (record / "files" / "media" / "table").glob("probe_*.table.json")
    table = json.loads(table.read_text())
    assert table["columns"] == ["estimator", "trains", *measures, "resolved"]
    assert [row[:2] for row in table["data"]] == [[label, label == "NStep"] for label in labels]
    for label, means in zip(labels, table["data"], strict=True):
        keys = [*(f"probe/{label}/{measure}" for measure in measures), "probe/resolved"]
        for key, mean in zip(keys, means[2:], strict=True):
            written = [float(row[key]) for row in rows if row[key]]
            assert written == [float(row[key]) for row in history_of(records) if key in row]
            assert len(written) >= 4
            shares = [float(row["probe/resolved"]) for row in rows if row[key]] if key.endswith("/bias") else None
            assert mean == pytest.approx(np.average(written, weights=shares))
    assert [row["probe._type"] for row in history_of(records) if "probe._type" in row] == ["table-file"]


def test_histograms_are_named_by_parameter_and_stand_in_w_and_b_only(recorded):
    folder, _, records = recorded
    updates = json.loads((folder / "summary.json").read_text())["updates"]
    rows = [row for row in history_of(records) if "weights/actor_head.bias._type" in row]
    assert len(rows) == -(-updates // 5)
    for kind in ("weights", "gradients"):
        heights = rows[-1][f"{kind}/critic_trunk.0.weight.values"]
        assert sum(heights) == 64 * 4
    assert "weights/" not in (folder / "metrics.csv").read_text()


def test_the_checkpoints_are_one_artifact_whose_files_the_record_keeps(recorded):
    folder, record, records = recorded
    (artifact,) = (entry for entry in records["artifact"] if entry["type"] == "model")
    assert {"last", "best"} <= set(artifact["aliases"])
    summary = json.loads((folder / "summary.json").read_text())
    metadata = json.loads(artifact["metadata"])
    for key in ("env_steps", "eval_return_mean", "best_eval_return_mean"):
        assert metadata[key] == summary[key]
    assert metadata["last_env_steps"] == summary["env_steps"] >= metadata["best_env_steps"] > 0
    contents = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert contents.keys() == {"last.ckpt", "best.ckpt"}
    for name, kept in contents.items():
        assert record in kept.parents
        assert kept.read_bytes() == (folder / "checkpoints" / name).read_bytes()


def test_a_run_that_goes_on_keeps_its_id_and_its_history_goes_on(here):
    assert main(CONFIG, [*SMALL, "--run_dir", "run"]) == 0
    more = [*SMALL, "--data.max_env_steps", "6000", "--run_dir", "run", "--ckpt_path", "last"]
    assert main(CONFIG, more) == 0
    first, second = (records_by_kind(record) for record in offline_runs(here / "run"))
    assert first["run"][0]["run_id"] == second["run"][0]["run_id"]
    assert second["run"][0]["resume"]
    steps = [float(row["env_steps"]) for records in (first, second) for row in history_of(records)]
    assert steps == sorted(steps)
    assert float(history_of(second)[0]["env_steps"]) > 4000 > 0
    assert not any("probe" in key or "weights" in key for row in history_of(first) for key in row)
    assert "artifact" not in first


def test_a_run_that_fails_raises_an_alert(here, capsys):
    arguments = ["--data.env", "scripted_envs:Broken-v0", "--data.env_kwargs", '{"at_step": 300}', *SMALL]
    assert main(CONFIG, [*arguments, "--data.envs_per_worker", "1", "--run_dir", "run"]) == 1
    (alert,) = records_by_kind(*offline_runs(here / "run"))["alert"]
    assert (alert["title"], alert["level"]) == ("the run failed", "ERROR")
    assert alert["text"].startswith("failed after ")
    assert alert["text"].endswith("ZeroDivisionError: the pole went through the floor")


# ---------------------------------------------------------------- the tracker


def test_media_stand_at_their_env_steps(here, tracker):
    image = here / "image.png"
    imageio.imwrite(image, np.zeros((8, 8, 3), np.uint8))
    tracker.log_media({"eval/picture": wandb.Image(str(image))}, 700)
    tracker.finish(0, {})
    (row,) = history_of(records_by_kind(*offline_runs(here)))
    assert float(row["env_steps"]) == 700
    assert row["eval/picture._type"] == "image-file"
    assert list(here.glob("wandb/offline-run-*/files/media/images/eval/picture_*.png"))


def test_media_that_fail_cost_one_warning_and_rows_go_on(here, tracker, caplog):
    class Gone(wandb.Histogram):
        def bind_to_run(self, *args, **kwargs):
            raise FileNotFoundError("video.mp4 is gone")

        to_json = bind_to_run

    tracker.log_media({"eval/video": Gone(np_histogram=([1], [0, 1]))}, 5)
    tracker.log_checkpoints({"last": here / "nowhere.ckpt"}, {})
    tracker.log_metrics({"env_steps": 6})
    tracker.finish(0, {})
    assert [record.message for record in caplog.records if "W&B" in record.message] == [
        "W&B does not get eval/video: FileNotFoundError: video.mp4 is gone",
        f"W&B does not get the checkpoints: FileNotFoundError: [Errno 2] No such file or directory: "
        f"'{here / 'nowhere.ckpt'}'",
    ]
    assert [row["env_steps"] for row in history_of(records_by_kind(*offline_runs(here)))] == [6]


def test_media_that_find_half_the_queue_full_are_left_out_with_one_warning_and_rows_go_on(here, monkeypatch, caplog):
    monkeypatch.setattr("a3c.runs.wandb_logger.BACKLOG", 8)
    tracker = make_wandb_logger(here, **RUN)
    begun, go_on = threading.Event(), threading.Event()
    log = tracker.experiment.log

    def slow(row):
        begun.set()
        assert go_on.wait(30)
        log(row)

    monkeypatch.setattr(tracker.experiment, "log", slow)
    try:
        tracker.log_metrics({"env_steps": 0})
        assert begun.wait(30)
        for number in range(6):
            tracker.log_media({f"histogram{number}": wandb.Histogram(np_histogram=([1], [0, 1]))}, 1)
        tracker.alert("title", "text")
        for number in range(1, 5):
            tracker.log_metrics({"env_steps": number})
    finally:
        go_on.set()
        tracker.finish(0, {})
    assert [record.message for record in caplog.records if "W&B" in record.message] == [
        "W&B does not get histogram4: 4 jobs wait"
    ]
    rows = history_of(records_by_kind(*offline_runs(here)))
    assert [row["env_steps"] for row in rows] == [0, 1, 1, 1, 1, 1, 2, 3, 4]


def test_alerts_are_few_and_short_and_name_no_key(here, tracker, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    for number in range(MOST_ALERTS + 3):
        tracker.alert(f"title {number} " + "x" * 100, "key 0123456789 at //me:word@host " + "y" * 2000)
    tracker.finish(0, {})
    alerts = records_by_kind(*offline_runs(here))["alert"]
    assert len(alerts) == MOST_ALERTS
    assert all(len(alert["title"]) == 63 for alert in alerts)
    assert alerts[0]["text"].startswith("key (key) at //host yyy")
    assert len(alerts[0]["text"]) == TEXT


def test_a_run_without_wandb_takes_all_of_it_and_says_nothing(here, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (here / "last.ckpt").touch()
    tracker = make_wandb_logger(here, **RUN)
    tracker.log_media({"probe": wandb.Table(["a"], [[1]])}, 5)
    tracker.log_checkpoints({"last": here / "last.ckpt"}, {})
    tracker.alert("title", "text")
    tracker.finish(0, {})
    assert not [record for record in caplog.records if "W&B" in record.message]
    assert not list(here.glob("wandb/*run-*"))


@pytest.mark.parametrize("every", [0, -3])
def test_histograms_every_no_updates_are_refused(every):
    with pytest.raises(ValueError, match=rf"^histograms_every: got {every}, must be at least 1"):
        WandbOptions(histograms_every=every)


# ---------------------------------------------------------------- callbacks


class Media:
    """Takes media as a tracker does, beside a fit without loggers."""

    def __init__(self):
        self.rows = []

    def log_media(self, rows, env_steps):
        self.rows.append((env_steps, rows))


def histograms_of(network, every=1, updates=0, steps=2):
    media = Media()
    mode = SimpleNamespace(progress=SimpleNamespace(env_steps=9))
    module = SimpleNamespace(network=network, updates=updates, mode=mode)
    module.trainer = SimpleNamespace(loggers=[media, object()], lightning_module=module)
    module.log_media = partial(A3C.log_media, module)
    callback = Histograms(every)
    for _ in range(steps):  # of which the first alone is looked at
        callback.on_after_backward(module.trainer, module)
    return media.rows


def test_a_histogram_counts_what_is_finite_and_passes_over_what_is_not_there():
    network = torch.nn.Linear(3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0, torch.nan, 1.0]]))
        network.bias.fill_(torch.inf)
    network.weight.grad = torch.tensor([[2.0, 2.0, 4.0]])
    ((env_steps, rows),) = histograms_of(network)
    assert env_steps == 9
    assert set(rows) == {"weights/weight", "gradients/weight"}
    assert (rows["weights/weight"].histogram[0], rows["weights/weight"].histogram[-1]) == (1, 1)
    assert (rows["gradients/weight"].histogram[0], sum(rows["gradients/weight"].histogram)) == (2, 3)
    assert histograms_of(network, every=2, updates=3) == []


@pytest.mark.parametrize(
    ("numbers", "dtype", "found"),
    [
        ([1.0, 1.0 + 2**-23], torch.float32, True),  # neighbours
        ([-3e38, 3e38], torch.float32, True),
        ([1.0, 1.0 + 2**-52], torch.float64, False),
        ([-1.7e308, 1.7e308], torch.float64, False),
    ],
)
def test_numbers_too_close_or_too_far_apart_for_bins_do_not_end_the_run(numbers, dtype, found):
    network = torch.nn.Linear(2, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([numbers], dtype=dtype))
    ((_, rows),) = histograms_of(network)
    assert ("weights/weight" in rows) is found
    assert all(sum(histogram.histogram) == 2 for histogram in rows.values())


def test_a_skipped_update_raises_one_alert(monkeypatch):
    alerts = []
    calls = iter([False, True, True] + [False] * 1000)
    measured = A3C.manual_backward

    def bad(module, loss):
        measured(module, loss * torch.nan if next(calls) else loss)

    monkeypatch.setattr(A3C, "manual_backward", bad)
    callback = DivergenceAlert(lambda title, text: alerts.append((title, text)))
    module, _, _ = fit(NStep(8), env=COUNTDOWN, max_env_steps=400, callbacks=[callback])
    assert module.skipped_updates == 2
    ((title, text),) = alerts
    assert title == "the run may be diverging"
    assert "was skipped, after " in text
    assert "more than 10 in a row" in text


def test_threads_that_end_while_they_are_looked_at_have_no_children(monkeypatch):
    glob, before = Path.glob, wandb_service._services()
    gone = Path("/proc/self/task/1/children")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*glob(self, pattern), gone])
    assert wandb_service._services() == before
