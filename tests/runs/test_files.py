"""Files that are written whole or not at all."""

import pytest

from a3c.runs.files import UNFINISHED, replacing


def test_a_file_takes_its_name_once_it_is_written(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.suffix == ".csv"  # what some writers go by
        assert list(tmp_path.glob(UNFINISHED)) == [temporary]
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_write_that_fails_or_is_interrupted_leaves_the_old_file_and_no_other(tmp_path, error):
    target = tmp_path / "table.csv"
    target.write_text("old")

    def write():
        with replacing(target) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
