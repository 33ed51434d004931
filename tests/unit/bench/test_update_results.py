"""The document of the comparison of updates, and the disks that it is about."""

import json

import update_results
from update_pairs import BLOCK, DiskPair, build, night_disks, pairs, write_used_content
from update_results import Growth

from .update_figures import results


def test_what_is_saved_is_read_again(tmp_path):
    path = tmp_path / "update.json"
    results().save(path)
    assert update_results.load(path) == results()


def test_growth_and_the_code_of_nights_are_kept_and_older_documents_have_none(tmp_path):
    path, found = tmp_path / "update.json", results()
    found.pairs["upgrade"].growth, found.nights_code = Growth("k", 1, 2, 3, 4), "r"
    found.save(path)
    assert update_results.load(path) == found
    document = json.loads(path.read_text())
    del document["pairs"]["upgrade"]["growth"], document["nights_code"]
    assert update_results.parse(json.dumps(document)) == results()


def test_a_document_of_another_form_counts_as_none():
    assert update_results.parse(json.dumps({"form": 99})) == update_results.Results()


def test_the_key_changes_with_disk_and_machine(tmp_path):
    disk = tmp_path / "v1.raw"
    disk.write_bytes(b"1")
    first = update_results.key_of([disk], {"cores": 2})
    assert update_results.key_of([disk], {"cores": 2}) == first
    assert update_results.key_of([disk], {"cores": 4}) != first
    disk.write_bytes(b"22")
    assert update_results.key_of([disk], {"cores": 2}) != first


def test_used_content_is_the_blocks_with_data_in_their_order(tmp_path):
    disk, used = tmp_path / "disk", tmp_path / "used"
    disk.write_bytes(b"a" * BLOCK + bytes(BLOCK) + b"b" * BLOCK + b"c" * 10)
    assert write_used_content(disk, used) == 2 * BLOCK + 10
    assert used.read_bytes() == b"a" * BLOCK + b"b" * BLOCK + b"c" * 10


def test_disks_that_are_there_are_not_built_again(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    for pair in pairs(tmp_path).values():
        for disk in (pair.old, pair.new):
            disk.touch()
    build(tmp_path, list(pairs(tmp_path)), nights=False)


def test_what_is_missing_is_asked_of_the_builders(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "subprocess.run",
        lambda command, check: asked.append(command[command.index("sudo") + 1 :] if "sudo" in command else command),
    )
    build(tmp_path, ["upgrade", "release"], nights=True)
    assert [command[1].rpartition("/")[2] for command in asked] == ["debian.py", "nights.py", "nights.py"]
    assert asked[0][2:] == [str(tmp_path), "--same-kernel"]
    assert asked[2][2:] == [str(tmp_path), "--nights", "10"]


def test_ten_nights_follow_the_first_disk(tmp_path):
    disks = night_disks(tmp_path)
    assert [disk.name for disk in disks[:2]] == ["v1.raw", "01.raw"]
    assert len(disks) == 11


def test_packages_are_not_known_where_the_folder_does_not_tell(tmp_path):
    pair = DiskPair("a", "A", tmp_path, tmp_path, tmp_path / "none")
    assert pair.package_lines() == []
