import pytest

from a3c.runs.curves import episode_length_curve, learning_curve, read_metric

METRICS = """env_steps,rollout/episodes,rollout/episode_return,rollout/episode_length,eval/episode_return
1000,40,20.0,21.0,
2000,70,30.0,31.0,
2000,70,,,33.0
3000,90,50.0,51.0,
"""


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS)
    return path


def test_a_metric_is_read_where_it_was_logged(metrics):
    assert read_metric(metrics, "eval/episode_return") == ([2000.0], [33.0])
    assert read_metric(metrics, "rollout/episode_length", "rollout/episodes") == ([40, 70, 90], [21, 31, 51])
    assert read_metric(metrics, "no/such") == ([], [])


@pytest.mark.parametrize(
    ("draw", "last", "lines"), [(learning_curve, 3000, 2), (episode_length_curve, 90, 1)], ids=["return", "length"]
)
def test_all_that_is_drawn_lies_within_the_picture(metrics, draw, last, lines):
    (axes,) = draw(metrics, "a run").axes
    assert len(axes.lines) == lines
    left, right = axes.get_xlim()
    assert left == 0
    assert last < right < 1.2 * last
    low, high = axes.get_ylim()
    for line in axes.lines:
        assert all(low < value < high for value in line.get_ydata())
