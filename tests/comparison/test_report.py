"""What the report says and shows, of made-up runs whose differences are known."""

import base64
import csv
import json
import math
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from made_up import make_run, make_runs

from a3c.comparison import pictures, settings
from a3c.comparison.analysis import Comparison, compare
from a3c.comparison.document import bullets, heading, plain, table, to_html
from a3c.comparison.records import find_runs, read_run
from a3c.comparison.report import write_report
from a3c.comparison.words import pair_rows, sentences

CLEAR = {"NStep": [300, 304, 308, 302, 306], "GAE:lambda_=0.9": [340, 344, 348, 342, 350]}


class Page(HTMLParser):
    """Collects an HTML file's pictures and text, and sees that every element is closed."""

    VOID = ("img", "meta")

    def __init__(self, text):
        super().__init__()
        self.pictures, self.words, self.links, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.pictures.append(attrs["src"])
        self.links += [
            value for key, value in attrs.items() if key in ("href", "src") and not value.startswith("data:")
        ]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    probes = [("NStep", "bias"), ("VTrace:n_steps=16", "bias"), ("NStep", "gradient_cosine")]
    make_runs(folder / "runs", CLEAR, probes=probes)
    make_runs(folder / "runs", {label: [value + 150 for value in values] for label, values in CLEAR.items()}, "sync")
    comparison = compare(find_runs([folder / "runs"]))
    write_report(comparison, folder, "a <b> & c", origin="Made by: some command.")
    return folder, comparison


def test_a_difference_that_is_there_holds_in_words(report):
    _, comparison = report
    told = list(sentences(comparison, comparison.final))
    assert len(told) == 4  # two estimators in two modes, and two modes of two estimators
    (line,) = [line for line in told if "in async" in line]
    assert line.startswith("GAE:lambda_=0.9 reaches more than NStep in async: +40.7 [")
    assert "probability of improvement 1.00 [1.00, 1.00]" in line
    assert line.endswith(": holds.")
    assert any(line.startswith("sync reaches more than async for NStep: +150.0 [") for line in told)


def test_the_report_tells_what_holds_and_has_a_row_for_every_pair(report):
    folder, comparison = report
    words = Page((folder / "report.html").read_text()).words
    rows = pair_rows(comparison.final)
    assert len(rows) == 4
    (row,) = [row for row in rows if row[0] == "GAE:lambda_=0.9 and NStep in async"]
    assert row[1].startswith("+40.7 [")
    assert row[2:] == ["1.00 [1.00, 1.00]", "< 0.001", "GAE:lambda_=0.9 reaches more"]
    assert set(row) <= set(words)
    assert "Made by: some command." in words


def test_of_pairs_that_cannot_be_told_the_report_has_rows_only(tmp_path):
    make_runs(tmp_path, {"NStep": [300, 9, 400, 350, 320], "GAE": [310, 380, 9, 340, 330]})
    comparison = compare(find_runs([tmp_path]))
    write_report(comparison, tmp_path, "equal")
    text = (tmp_path / "report.md").read_text()
    assert list(sentences(comparison, comparison.final, told_only=True)) == []
    assert "cannot be told |" in text
    assert "no difference can be told" not in text


def test_what_is_not_there_is_not_told(tmp_path):
    make_runs(tmp_path, {"NStep": [300, 9, 400, 350, 320], "GAE": [310, 380, 9, 340, 330]})
    comparison = compare(find_runs([tmp_path]))
    (line,) = sentences(comparison, comparison.final)
    assert "NStep in async: no difference can be told" in line or "GAE in async: no difference can be told" in line


def test_intervals_alone_make_no_difference_hold(tmp_path):
    """Of three runs they are too narrow: here both leave no difference out, and the test does not."""
    make_runs(tmp_path, {"NStep": [153.3, 103.7, 66.5], "GAE": [18.2, 9.4, 9.3]})
    (verdict,) = compare(find_runs([tmp_path])).final.verdicts
    assert verdict.difference.low > 0
    assert verdict.probability.low > 0.5
    assert verdict.p_value > 0.05
    assert not verdict.holds


def test_with_fewer_than_three_seeds_no_interval_is_given(tmp_path):
    make_runs(tmp_path, {"NStep": [300, 301, 302], "GAE": [400, 401]})
    comparison = compare(find_runs([tmp_path]))
    (line,) = sentences(comparison, comparison.final)
    assert line.startswith("Fewer than 3 runs of GAE · async: no interval can be given")
    assert not comparison.final.estimates[comparison.variants[0]].has_interval or not (
        comparison.final.estimates[comparison.variants[1]].has_interval
    )
    figure = pictures.learning_curves(comparison, "CartPole-v1", "env_steps")
    (panel,) = figure.axes
    assert len(panel.lines) == 1 + 2 + 1  # the mean of three runs, two single runs, the threshold
    assert len(panel.collections) == 1  # one band
    page = write_report(comparison, tmp_path, "few").read_text()
    assert "no interval" in page


def test_a_cell_with_few_runs_takes_nothing_from_the_others(tmp_path):
    make_runs(tmp_path, {**CLEAR, "VTrace": [400, 401]})
    comparison = compare(find_runs([tmp_path]))
    few, told = sentences(comparison, comparison.final)
    assert few.startswith("Fewer than 3 runs of VTrace · async")
    assert told.endswith(": holds.")


def test_the_html_is_whole_and_needs_no_other_file(report):
    folder, _ = report
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.links == []
    drawn = sorted((folder / "pictures").glob("*.png"))
    embedded = {base64.b64decode(picture.removeprefix("data:image/png;base64,")) for picture in page.pictures}
    assert embedded == {path.read_bytes() for path in drawn}
    assert len(page.pictures) == len(drawn) == 9
    assert "Comparison a <b> & c" in page.words  # escaped in the file, not in what is read
    assert "<b>" not in text


def test_the_markdown_names_pictures_that_are_there(report):
    folder, _ = report
    text = (folder / "report.md").read_text()
    names = [line.rpartition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(names) == 9
    assert all((folder / name).is_file() for name in names)
    assert "Holm" in text
    assert "GAE:lambda\\_=0.9" in text  # or Markdown takes underscores for emphasis


def test_results_have_a_row_for_each_run(report):
    folder, comparison = report
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(comparison.runs) == 20
    (row,) = [row for row in rows if (row["label"], row["mode"], row["seed"]) == ("NStep", "sync", "1")]
    assert float(row["final_return"]) == 450
    assert (folder / row["path"] / "config.yaml").is_file()
    assert not Path(row["path"]).is_absolute()
    # The made-up curve rises evenly from a tenth to the whole.
    assert float(row["area"]) == pytest.approx(450 * 0.55)
    assert row["solved_at_env_steps"] == ""  # 475 was never reached
    (solved,) = [row for row in rows if (row["label"], row["mode"], row["seed"]) == ("GAE:lambda_=0.9", "sync", "5")]
    assert (solved["solved_at_env_steps"], solved["solved_at_seconds"]) == ("100000", "2.0")


def test_runs_that_never_solve_are_shown_as_such(report):
    folder, comparison = report
    words = Page((folder / "report.html").read_text()).words
    assert "0 of 5" in words
    assert "5 of 5" in words
    assert "1, 2, 3, 4, 5" in words
    figure = pictures.time_to_solve(comparison, "CartPole-v1")
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert markers.count("x") == 15
    assert markers.count("o") == 5


def test_where_nobody_solved_that_is_said_instead_of_drawn(tmp_path):
    make_runs(tmp_path, {"NStep": [300, 310, 320]})
    write_report(compare(find_runs([tmp_path])), tmp_path, "unsolved")
    text = (tmp_path / "report.md").read_text()
    assert "No evaluation of any run came to 475 within the budget." in text
    assert not list((tmp_path / "pictures").glob("solved-*"))


def test_the_report_tells_what_runs_share_and_what_is_each_estimators_own(tmp_path):
    make_runs(tmp_path, {"NStep:n_steps=5": [300] * 3, "GAE": [310] * 3, "FullEpisode": [320] * 3}, **{"model.x": 7})
    for number, file in enumerate(sorted(tmp_path.rglob("config.yaml"))):
        config = yaml.safe_load(file.read_text())
        config["model"]["apart"] = number  # which names each run in its label
        file.write_text(yaml.safe_dump(config, sort_keys=False))
    comparison = Comparison(tuple(read_run(file.parent) for file in sorted(tmp_path.rglob("config.yaml"))))
    shared = dict(settings.shared_rows(comparison))
    assert shared == {"optimizer": "lr 0.002", "objective": "x 7", "rollouts": "envs_per_worker 64"}
    own = {row[0]: row[2:] for row in settings.own_rows(comparison)}
    assert own["FullEpisode"] == ["–", "whole episodes", "49"]
    assert own["GAE"] == ["lambda_=0.95, n_steps=32", "32", "49"]
    assert own["NStep:n_steps=5"] == ["end_at_episode=false, n_steps=5", "5", "49"]
    (told,) = settings.differences(comparison)  # of lengths; their updates are equal
    assert "whole episodes (FullEpisode); 32 (GAE); 5 (NStep:n_steps=5)" in told


def test_unequal_numbers_of_updates_are_told(tmp_path):
    make_runs(tmp_path, {"NStep": [300] * 3, "GAE": [310] * 3})
    for file in tmp_path.rglob("GAE-*/*/metrics.csv"):
        rows = list(csv.DictReader(file.open()))
        for row in rows:
            row["updates"] = row["updates"] and float(row["updates"]) * 1.3
        with file.open("w", newline="") as rewritten:
            writer = csv.DictWriter(rewritten, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    (told,) = settings.differences(compare(find_runs([tmp_path])))
    assert "numbers of updates differ, from 49 (NStep · async) to 63 (GAE · async)" in told


def test_a_crowded_panel_has_lines_alone_and_each_variant_a_panel_with_its_band(tmp_path):
    make_runs(tmp_path, {"NStep": [300] * 3, "GAE": [310] * 3, "VTrace": [320] * 3})
    few = compare(find_runs([tmp_path]))
    assert pictures.small_multiples(few, "CartPole-v1") is None
    assert len(pictures.learning_curves(few, "CartPole-v1", "env_steps").axes[0].collections) == 3
    make_runs(tmp_path, {"FullEpisode": [200] * 3})
    many = compare(find_runs([tmp_path]))
    assert not pictures.learning_curves(many, "CartPole-v1", "env_steps").axes[0].collections
    panels = pictures.small_multiples(many, "CartPole-v1").axes
    assert {panel.get_title() for panel in panels} == {str(variant) for variant in many.variants}
    assert all(len(panel.collections) == 1 and len(panel.lines) == 4 for panel in panels)


def test_training_and_greedy_returns_are_told_apart(tmp_path):
    folder = make_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text()) | {"train_return_mean": 123.4}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_report(compare(find_runs([tmp_path])), tmp_path, "one")
    text = (tmp_path / "report.md").read_text()
    assert "| run | seed | final return, greedy | return in training |" in text
    assert "| run | 1 | 300.0 | 123.4 |" in text


def test_probes_have_a_picture_a_measure_and_a_table_of_means(report):
    folder, comparison = report
    assert {path.name for path in (folder / "pictures").glob("probe-*")} == {
        "probe-CartPole-v1-bias.png",
        "probe-CartPole-v1-gradient-cosine.png",
    }
    words = Page((folder / "report.html").read_text()).words
    assert "VTrace:n_steps=16" in words
    assert "304" in words  # the mean over NStep's five runs, whose probes are their final returns
    figure = pictures.probe(comparison, "CartPole-v1", "bias")
    assert [panel.get_title() for panel in figure.axes] == ["GAE:lambda_=0.9 · async", "NStep · async"]
    assert len(figure.axes[0].lines) == 10  # two probed estimators, five runs


def test_curves_lie_on_a_common_grid_between_evaluations(tmp_path):
    make_run(tmp_path / "a", seed=1, final=100.0)
    make_run(tmp_path / "b", seed=2, final=200.0)
    comparison = compare(find_runs([tmp_path]))
    grid, curves = comparison.curves("CartPole-v1", comparison.variants[0], "env_steps")
    assert (grid[0], grid[-1]) == (10_000, 100_000)
    assert curves[0] == pytest.approx(grid / 1000)
    assert curves[1] == pytest.approx(grid / 500)


def test_runs_that_ended_early_are_compared_as_far_as_all_went(tmp_path):
    make_runs(tmp_path, {"NStep": [300.0]}, stop_when_solved=True)
    folder = tmp_path / "CartPole-v1" / "NStep-async" / "seed2"
    lines = (make_run(folder, seed=2, final=500.0, stop_when_solved=True) / "metrics.csv").read_text().splitlines()
    (folder / "metrics.csv").write_text("\n".join(lines[:13]) + "\n")  # its last evaluation at 60,000
    (folder / "summary.json").write_text(
        json.dumps({"estimator_label": "NStep", "interrupted": False, "eval_return_mean": 500, "env_steps": 60_000})
    )
    comparison = compare(find_runs([tmp_path]))
    assert comparison.span("CartPole-v1") == (10_000, 60_000)
    assert "CartPole-v1: compared up to 60,000 env steps, where a run ended" in comparison.notes
    assert [comparison.final_of(run) for run in comparison.runs] == pytest.approx([180, 300])


def test_a_run_without_its_last_evaluation_has_not_ended_early(tmp_path):
    make_runs(tmp_path, {"NStep": [300.0, 400.0]})
    metrics = tmp_path / "CartPole-v1" / "NStep-async" / "seed2" / "metrics.csv"
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:-2]) + "\n")
    comparison = compare(find_runs([tmp_path]))
    assert comparison.notes == ()
    assert [comparison.final_of(run) for run in comparison.runs] == [300, 400]


def test_pictures_of_the_users_own_stay(tmp_path):
    make_runs(tmp_path, {"NStep": [300.0]})
    (tmp_path / "pictures").mkdir()
    for name in ("mine.png", "curves-Old-v0-updates.png"):
        (tmp_path / "pictures" / name).touch()
    write_report(compare(find_runs([tmp_path])), tmp_path, "one")
    assert (tmp_path / "pictures" / "mine.png").exists()
    assert not (tmp_path / "pictures" / "curves-Old-v0-updates.png").exists()


def test_several_environments_are_normalised_and_count_the_same(tmp_path):
    for env, scale in (("CartPole-v1", 1.0), ("Acrobot-v1", -0.1)):
        finals = {label: [scale * value for value in values] for label, values in CLEAR.items()}
        make_runs(tmp_path, finals, env=env)
    comparison = compare(find_runs([tmp_path]))
    values = comparison.final.values
    assert all(array.min() >= 0 and array.max() <= 1 for envs in values.values() for array in envs.values())
    low = min(array.min() for array in values[comparison.variants[0]].values())
    assert math.isclose(low, 0, abs_tol=1.0)
    (line,) = sentences(comparison, comparison.final)
    assert "no difference can be told" in line  # what is better in one environment is worse in the other
    assert "normalised" in line
    assert (write_report(comparison, tmp_path, "two").parent / "pictures" / "curves-Acrobot-v1-seconds.png").is_file()


def test_a_probability_and_its_converse_add_up(report):
    _, comparison = report
    for (first, second), there in comparison.final.probabilities.items():
        back = comparison.final.probabilities[second, first]
        assert (there.value + back.value, there.low + back.high) == (1, 1)


@pytest.mark.parametrize("modes", [("async",), ("sync", "async", "hogwild")])
@pytest.mark.parametrize(
    "labels",
    [
        ["NStep:n_steps=16", "GAE:n_steps=16", "VTrace:n_steps=16"],
        ["FullEpisode", "NStep", "NStep:n_steps=20", "GAE:lambda_=0.9", "VTrace:n_steps=16,c_clip=0.5"],
    ],
)
def test_labels_lie_within_the_picture_and_apart(tmp_path, labels, modes):
    for mode in modes:
        make_runs(tmp_path, {label: [100.0 * number, 90.0, 80.0] for number, label in enumerate(labels)}, mode)
    comparison = compare(find_runs([tmp_path]))
    for name, figure in pictures.all_of(comparison):
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        for panel in figure.axes:
            labelled = [label.get_window_extent() for label in panel.get_yticklabels() if label.get_text()]
            low, high = panel.bbox.intervaly  # beyond which labels are not drawn
            boxes = [box for box in labelled if low <= (box.y0 + box.y1) / 2 <= high]
            assert boxes or not panel.get_ylabel(), name
            for box in boxes:
                assert box.x0 >= -1, name
            assert not any(one.overlaps(other) for one, other in pairwise(boxes)), name
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert box.x0 >= 0, name
            assert box.x1 <= width, name
            assert box.y0 >= 0, name
            assert box.y1 <= height, name
            assert not any(box.overlaps(panel.get_tightbbox()) for panel in figure.axes), name


def test_what_is_written_by_others_is_no_markup(tmp_path):
    parts = [
        heading("a *b*", 1),
        plain("<script>x</script>"),
        plain("# &amp;"),
        bullets(["c|d"]),
        table(("e|",), [["`f`"]]),
    ]
    text = "\n\n".join(parts)
    page = Page(to_html(text, "<title>", tmp_path))
    assert {"a *b*", "<script>x</script>", "# &amp;", "c|d", "e|", "`f`"} <= set(page.words)
    assert "\\<script\\>" in text
    assert "# a \\*b\\*" in text
    assert "| e\\| |" in text
