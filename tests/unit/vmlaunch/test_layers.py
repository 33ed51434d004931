"""Moving between versions, back, and anew: files never move, and nothing that was written goes unasked."""

import asyncio
import json
import shutil
from datetime import UTC, datetime

import pytest

from oscirc_blockstore.errors import BusyError, DocumentRefusedError, NotFoundError, UsageError
from oscirc_vmlaunch import layers, overlays
from oscirc_vmlaunch.layers import Base
from oscirc_vmlaunch.records import decode_instance, encode

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)")

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REFERENCE = "home:alice/circuit#stable"


def base(number, **changes):
    facts = {"firmware": "bios", "architecture": "x86_64", "minimum_memory_mib": 32}
    return Base(manifest_digest=f"{number:02x}" * 32, version=str(number), **(facts | changes))


@pytest.fixture
def instance(instances, make_record):
    return instances.create(make_record(manifest_digest=base(1).manifest_digest, reference=REFERENCE))


def move(instance, to, **changes):
    return layers.move(instance, to, reference=REFERENCE, **({"may_set_aside": True, "now": NOW} | changes))


def write(instance, text="written"):
    """What no reader of ours understands counts as written."""
    instance.overlay.write_text(text)
    instance.variables.write_text(f"variables of {text}")
    return instance


def files(instance):
    return sorted(path.name for path in instance.directory.iterdir() if path.suffix in (".qcow2", ".fd"))


def test_a_move_sets_aside_what_was_written_and_begins_a_layer(instance, instances):
    moved = move(write(instance), base(2, firmware="uefi", minimum_memory_mib=2048))
    record = moved.record
    assert instances.load("one").record == record
    assert (record.version, record.firmware, record.memory_mib) == ("2", "uefi", 2048)
    assert not moved.overlay.exists()
    assert files(moved) == ["overlay.qcow2", "vars.fd"]
    (kept,) = record.kept
    assert (kept.version, kept.firmware, kept.was_written, kept.by_update) == ("1", "bios", True, True)
    assert layers.occupied_bytes(moved, kept.number) > 0


def test_going_back_uses_the_files_again_and_sets_aside_what_came_after(instance):
    moved = write(move(write(instance, "one"), base(2, firmware="uefi")), "two")
    back = layers.go_back(moved, layers.find(moved.record), now=NOW)
    assert (back.record.version, back.record.firmware, back.record.reference) == ("1", "bios", REFERENCE)
    assert (back.overlay.read_text(), back.variables.read_text()) == ("one", "variables of one")
    with pytest.raises(NotFoundError, match="before its last update") as refusal:
        layers.find(back.record)  # what a rollback left is not what an update set aside
    assert "kept are: 2" in refusal.value.hint
    forward = layers.go_back(back, layers.find(back.record, "2"), now=NOW)
    assert (forward.record.version, forward.overlay.read_text()) == ("2", "two")


def test_a_rollback_to_where_nothing_was_written_leaves_nothing_of_an_empty_layer(instance):
    moved = move(write(instance, "one"), base(2))
    back = layers.go_back(moved, layers.find(moved.record), now=NOW)
    assert back.record.kept == ()
    assert files(back) == ["overlay.qcow2", "vars.fd"]


def test_of_many_moves_the_last_two_written_layers_are_kept_and_what_goes_is_known_before(instance):
    for number in range(1, 5):
        write(instance, f"written on {number}")
        going = [layer.version for layer in layers.going(instance.record)]
        assert going == ([str(number - 2)] if number > 2 else [])
        instance = move(instance, base(number + 1))
    assert [layer.version for layer in instance.record.kept] == ["3", "4"]
    assert len([name for name in files(instance) if name.endswith(".qcow2")]) == 2
    instance = move(instance, base(6))  # version 5 was never written on: it goes before anything that was
    assert [layer.version for layer in instance.record.kept] == ["4", "5"]
    instance = move(write(instance), base(7))
    assert [layer.version for layer in instance.record.kept] == ["4", "6"]


def test_what_was_written_meanwhile_is_not_set_aside_unasked(instance):
    with pytest.raises(BusyError, match="has written"):
        move(write(instance), base(2), may_set_aside=False)
    assert instance.reloaded().record == instance.record


def test_what_runs_is_left_alone(instance):
    with instance.lock():
        for change in (
            lambda: move(instance, base(2)),
            lambda: layers.reset(instance),
            lambda: layers.follow(instance, "home:alice/circuit@1"),
            lambda: asyncio.run(layers.add_data_disk(instance, 1 << 20)),
        ):
            with pytest.raises(BusyError):
                change()


def test_a_layer_whose_file_is_gone_is_not_gone_back_to(instance):
    moved = move(write(instance), base(2))
    moved.overlay_of(0).unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        layers.go_back(moved, layers.find(moved.record))
    assert moved.reloaded().record == moved.record


def test_a_reset_forgets_the_layer_in_use_and_nothing_else(instance):
    moved = asyncio.run(layers.add_data_disk(move(write(instance, "one"), base(2)), 1 << 20))
    write(moved, "two")
    fresh = layers.reset(moved)
    assert (fresh.record.version, fresh.record.kept) == ("2", moved.record.kept)
    assert files(fresh) == ["data.qcow2", "overlay.qcow2", "vars.fd"]
    assert fresh.overlay_of(0).read_text() == "one"


def test_an_interrupted_move_leaves_the_instance_as_it_was_and_its_files_go_with_the_next(instance):
    write(instance, "one")
    (instance.directory / "overlay-7.qcow2").write_text("of a layer that no record came to name")
    (instance.directory / "overlay-x.qcow2").write_text("not ours")
    moved = move(instance, base(2))
    assert files(moved) == ["overlay-x.qcow2", "overlay.qcow2", "vars.fd"]


def test_the_same_version_only_changes_what_is_followed(instance):
    write(instance)
    same = layers.move(instance, base(1), reference="home:alice/circuit@1", may_set_aside=False)
    assert (same.record.reference, same.record.layer, same.record.kept) == ("home:alice/circuit@1", 0, ())


def test_a_data_disk_is_made_once_and_keeps_its_size(instance):
    with pytest.raises(UsageError, match="512"):
        asyncio.run(layers.add_data_disk(instance, 1000))
    with_disk = asyncio.run(layers.add_data_disk(instance, 1 << 20))
    overlays.check_data_disk(with_disk.data_disk, size_bytes=1 << 20)
    before = with_disk.data_disk.stat()
    again = asyncio.run(layers.add_data_disk(with_disk, 1 << 20))
    assert again.data_disk.stat().st_ino == before.st_ino
    with pytest.raises(UsageError, match="already"):
        asyncio.run(layers.add_data_disk(with_disk, 2 << 20))


def test_a_record_of_the_first_format_is_read_and_written_anew_in_the_second(instance, tmp_path):
    old = json.loads(encode(instance.record))
    for name in ("format", "layer", "kept", "data_disk_bytes"):
        del old[name]
    path = instance.directory / "instance.json"
    path.write_text(json.dumps(old))
    assert instance.reloaded().record == instance.record
    layers.follow(instance, "home:alice/circuit#testing")
    assert json.loads(path.read_text())["format"] == "oscirc-instance-2"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "oscirc-instance-3"},
        {"layer": -1},
        {"layer": True},
        {"data_disk_bytes": -1},
        {"kept": [{}]},
        {"kept": [{"colour": "red"}]},
        {"kept": "none"},
    ],
)
def test_a_record_with_impossible_layers_is_refused(instance, change):
    document = json.loads(encode(instance.record)) | change
    with pytest.raises(DocumentRefusedError):
        decode_instance(json.dumps(document).encode(), source=instance.directory / "instance.json")


@pytest.mark.parametrize(
    "change", [{"number": 1}, {"manifest_digest": "ab"}, {"firmware": "coreboot"}, {"number": 10**12}, {"more": 1}]
)
def test_a_kept_layer_that_is_impossible_is_refused(instance, change):
    moved = write(move(write(instance), base(2)))
    document = json.loads(encode(moved.record))
    document["kept"][0] |= change
    with pytest.raises(DocumentRefusedError):
        decode_instance(json.dumps(document).encode(), source=instance.directory / "instance.json")
