"""Places for what is written after minutes: looked at first, and nothing lost where they turn out bad."""

from pathlib import Path

import pytest

from oscirc import output_places
from oscirc_blockstore.errors import LocalError


def test_a_place_that_is_good_is_left_as_it_is(tmp_path):
    (tmp_path / "there").write_text("mine")
    output_places.check_file(tmp_path / "new")
    output_places.check_file(tmp_path / "there")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"there": "mine"}


@pytest.mark.parametrize("place", ["missing/dir/x", "file/x", "directory"])
def test_a_place_where_no_file_can_be_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    with pytest.raises(LocalError):
        output_places.check_file(tmp_path / place)


def test_a_directory_is_made_with_its_parents_or_refused(tmp_path):
    output_places.check_directory(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="cannot make the directory"):
        output_places.check_directory(tmp_path / "file" / "b")


def test_what_cannot_be_written_in_the_end_is_kept_and_it_is_said_where(tmp_path):
    with pytest.raises(LocalError, match=r"gone/boot\.json") as failed:
        output_places.write(tmp_path / "gone" / "boot.json", b"minutes of work")
    kept = Path(failed.value.hint.removeprefix("it was kept as "))
    assert kept.read_bytes() == b"minutes of work"
    kept.unlink()
