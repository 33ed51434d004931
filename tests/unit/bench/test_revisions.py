"""The code that a result stands for."""

import pytest
import revisions
import run


def test_a_digest_changes_with_bytes_and_names(tmp_path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("1")
    second.write_text("1")
    before = revisions.digest_of([first], tmp_path)
    assert revisions.digest_of([first], tmp_path) == before
    assert revisions.digest_of([second], tmp_path) != before
    first.write_text("2")
    assert revisions.digest_of([first], tmp_path) != before


@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_every_benchmark_hangs_on_the_client_and_on_itself(name):
    places = [str(path.relative_to(revisions.ROOT)) for path in revisions.sources(name)]
    assert f"bench/{name}.py" in places
    assert "remote/oscirc_remote/foresight.py" in places
    assert "remote/oscirc_remote/boot_paths.txt" in places


def test_a_result_without_a_revision_is_older():
    assert revisions.is_older(None, "boot_cold")
    assert not revisions.is_older(revisions.revision("boot_cold"), "boot_cold")
