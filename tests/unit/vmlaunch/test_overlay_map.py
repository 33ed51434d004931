"""The map of overlays that QEMU wrote, against what QEMU itself reads; and damage."""

import random
import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_vmlaunch.overlay_map import ZEROS, OverlayMap

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)")

KIB, MIB = 1 << 10, 1 << 20
SIZE = 24 * MIB + 4096
FORMS = {
    "ours": "cluster_size=128k,extended_l2=on",
    "small tables": "cluster_size=16k,extended_l2=on",
    "plain": "cluster_size=64k",
    "plain with many tables": "cluster_size=4k",
}


def make(folder, form, commands, *, size=SIZE):
    """A base of known bytes, and an overlay on it that QEMU wrote to."""
    base, overlay = folder / "base.raw", folder / "overlay.qcow2"
    base.write_bytes(b"\xbb" * size)
    overlay.unlink(missing_ok=True)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "-o", FORMS[form], overlay], check=True
    )
    arguments = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-d", "unmap", "-f", "qcow2", *arguments, overlay], check=True, capture_output=True)
    return base, overlay


def opened(overlay):
    data = overlay.read_bytes()
    return OverlayMap(lambda offset, size: data[offset : offset + size], len(data)), data


def as_qemu_reads(folder, overlay):
    flat = folder / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay, flat], check=True)
    return flat.read_bytes()


def applied(base, found, data):
    """The base with the overlay's runs on it."""
    disk = bytearray(base.read_bytes())
    for run in found.runs():
        held = bytes(run.size) if run.place == ZEROS else data[run.place : run.place + run.size].ljust(run.size, b"\0")
        disk[run.start : run.stop] = held
    return bytes(disk)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_the_runs_over_the_base_are_the_disk_that_qemu_reads(tmp_path, form, seed):
    dice = random.Random(f"{form}{seed}")
    commands = []
    for _ in range(60):
        start = dice.randrange(0, SIZE // 512) * 512
        size = min(dice.choice([512, 4 * KIB, 12 * KIB, 64 * KIB, 300 * KIB, MIB]), SIZE - start)
        kind = dice.choice(["write -P 1", "write -P 2", "write -P 3", "write -P 0", "write -z", "write -zu", "discard"])
        commands.append(f"{kind} {start} {size}")
    base, overlay = make(tmp_path, form, commands)
    found, data = opened(overlay)
    assert applied(base, found, data) == as_qemu_reads(tmp_path, overlay)


def test_a_small_write_is_a_small_run(tmp_path):
    _, overlay = make(tmp_path, "ours", ["write -P 1 1064960 4096"])
    found, _ = opened(overlay)
    assert [(run.start, run.size) for run in found.runs()] == [(1064960, 4096)]


def test_an_untouched_overlay_has_no_runs_and_its_tables_are_not_read(tmp_path):
    _, overlay = make(tmp_path, "ours", [])
    data, asked = overlay.read_bytes(), []

    def read(offset, size):
        asked.append(size)
        return data[offset : offset + size]

    assert list(OverlayMap(read, len(data)).runs()) == []
    assert sum(asked) < 1000


def test_discarded_ranges_are_zeros_not_the_base(tmp_path):
    _, overlay = make(tmp_path, "ours", ["write -P 1 0 1M", "discard 128k 256k"])
    found, _ = opened(overlay)
    zeros = [(run.start, run.stop) for run in found.runs() if run.place == ZEROS]
    assert zeros == [(128 * KIB, 384 * KIB)]


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, SIZE), size=st.integers(0, SIZE))
def test_a_part_of_the_runs_is_that_part_of_all_runs(shared_overlay, start, size):
    found, _ = shared_overlay
    stop = min(start + size, SIZE)
    whole = [
        (
            max(run.start, start),
            min(run.stop, stop),
            run.place if run.place < 0 else run.place + max(start - run.start, 0),
        )
        for run in found.runs()
        if max(run.start, start) < min(run.stop, stop)
    ]
    assert [(run.start, run.stop, run.place) for run in found.runs(start, start + size)] == whole


@pytest.fixture(scope="module")
def shared_overlay(tmp_path_factory):
    commands = [f"write -P 7 {at * 700 * KIB} 20k" for at in range(30)] + ["discard 1M 3M", "write -P 1 23M 1M"]
    _, overlay = make(tmp_path_factory.mktemp("overlay"), "ours", commands)
    return opened(overlay)


def first_entry(data):
    """Where the first cluster's entry stands."""
    (l1_offset,) = struct.unpack_from(">Q", data, 40)
    (l1_entry,) = struct.unpack_from(">Q", data, l1_offset)
    return l1_offset, l1_entry & 0x00FFFFFFFFFFFE00


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, l2, 1 << 50), "outside of the file"),
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, l2, 512), "outside of the file"),
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, l2, 1 << 62), "compressed"),
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, l2 + 8, 1 | 1 << 32), "contradicts itself"),
        (lambda raw, l1, l2: struct.pack_into(">QQ", raw, l2, 0, 1), "contradicts itself"),
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, l1, 1 << 50), "outside of the file"),
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, l1, 4096), "outside of the file"),
        (lambda raw, l1, l2: struct.pack_into(">I", raw, 36, 0), "impossible size or place"),
        (lambda raw, l1, l2: struct.pack_into(">I", raw, 36, 1 << 30), "impossible size or place"),
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, 40, 0), "impossible size or place"),
        (lambda raw, l1, l2: struct.pack_into(">Q", raw, 40, 1 << 40), "cut off"),
        (lambda raw, l1, l2: struct.pack_into(">I", raw, 20, 60), "impossible size"),
        (lambda raw, l1, l2: raw.__delitem__(slice(60, None)), "cut off"),
    ],
)
def test_a_map_that_cannot_be_is_refused(tmp_path, damage, said):
    _, overlay = make(tmp_path, "ours", ["write -P 1 0 128k"])
    raw = bytearray(overlay.read_bytes())
    damage(raw, *first_entry(raw))
    with pytest.raises(DocumentRefusedError, match=said):
        list(OverlayMap(lambda offset, size: bytes(raw[offset : offset + size]), len(raw)).runs())


def test_any_flipped_byte_of_the_map_is_refused_or_stays_within_the_file(tmp_path):
    _, overlay = make(tmp_path, "ours", ["write -P 1 0 3M", "discard 1M 1M"])
    clean = overlay.read_bytes()
    l1, l2 = first_entry(clean)
    dice = random.Random(4)
    for _ in range(120):
        raw = bytearray(clean)
        raw[dice.choice([dice.randrange(0, 112), l1 + dice.randrange(8), l2 + dice.randrange(25 * 16)])] ^= (
            dice.randrange(1, 256)
        )
        try:
            found = OverlayMap(lambda offset, size, raw=raw: bytes(raw[offset : offset + size]), len(raw))
            before = 0
            for run in found.runs(0, 64 * MIB):
                assert before <= run.start < run.stop <= found.disk_size
                assert run.place == ZEROS or 0 < run.place < len(raw)
                before = run.stop
        except DocumentRefusedError:
            pass
