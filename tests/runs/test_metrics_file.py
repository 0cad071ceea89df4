"""metrics.csv: lines are whole or absent, whatever happens to the process or the disk."""

import csv
import resource
import signal

import pytest

from a3c.runs.metrics_file import MetricsFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def file_limit():
    """Sets the size at which this process's files are full, as a disk would be; lifted at the end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_existing_file_is_gone_on_with_under_its_header(path):
    MetricsFile(path).log_metrics({"env_steps": 1, "loss/total": 0.5})
    file = MetricsFile(path)
    file.log_metrics({"loss/total": 0.25, "env_steps": 2})
    file.log_metrics({"env_steps": 3, "eval/episode_return": 9.0})
    assert rows_of(path) == [
        {"env_steps": "1", "loss/total": "0.5", "eval/episode_return": ""},
        {"env_steps": "2", "loss/total": "0.25", "eval/episode_return": ""},
        {"env_steps": "3", "loss/total": "", "eval/episode_return": "9.0"},
    ]


@pytest.mark.parametrize("torn", [b"2,0.", b"2,0.25", b"2,0.25\r"])
def test_an_unfinished_last_line_is_cut_off_with_a_warning(path, torn, caplog):
    path.write_bytes(b"env_steps,loss/total\r\n1,0.5\r\n" + torn)
    file = MetricsFile(path)
    assert "unfinished line" in caplog.text
    file.log_metrics({"env_steps": 3, "loss/total": 0.125})
    assert path.read_bytes() == b"env_steps,loss/total\r\n1,0.5\r\n3,0.125\r\n"


def test_a_file_without_a_whole_header_begins_anew(path):
    path.write_bytes(b"env_steps,loss/to")
    MetricsFile(path).log_metrics({"env_steps": 1})
    assert path.read_bytes() == b"env_steps\r\n1\r\n"


def test_a_full_disk_costs_whole_lines_and_one_warning(path, file_limit, caplog):
    file = MetricsFile(path)
    file.log_metrics({"env_steps": 1, "loss/total": 0.5})
    whole = path.read_bytes()
    file_limit(len(whole) + 4)  # room for a part of the next line
    file.log_metrics({"env_steps": 222222, "loss/total": 0.25})
    file.log_metrics({"env_steps": 333333, "a/new/key": 1.0})
    assert path.read_bytes() == whole
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert [each.name for each in path.parent.iterdir()] == ["metrics.csv"]
    file_limit(resource.RLIM_INFINITY)
    file.log_metrics({"env_steps": 4, "a/new/key": 2.0})
    assert rows_of(path) == [
        {"env_steps": "1", "loss/total": "0.5", "a/new/key": ""},
        {"env_steps": "4", "loss/total": "", "a/new/key": "2.0"},
    ]
