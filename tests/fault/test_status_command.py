"""`oscirc status` as a user types it: beside a network that goes away, a mirror that lies, and a map of the disk."""

import subprocess
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.commands import end
from support.fault_server import FaultServer, flip_bit

from .conftest import BLOCK
from .test_survival import mount


@pytest.fixture
def mirror(published):
    with FaultServer(published.repository.tree) as server:
        yield server


def readable(disk, block):
    with disk.open("rb", buffering=0) as file:
        file.seek(block * BLOCK)
        try:
            return file.read(4096)
        except OSError:
            return None


def test_the_map_of_a_mount_is_drawn_and_told(published, mirror, reader, tmp_path):
    disk = mount(reader, mirror, published, tmp_path / "mnt")
    with disk.open("rb", buffering=0) as file:
        file.seek(40 * BLOCK)
        file.read(4096)
    told = reader.json("status", tmp_path / "mnt", "--map")
    assert told["whole"]
    assert told["block_count"] * told["block_size"] == len(published.disk)
    assert sum(count for _, count in told["runs"]) == told["block_count"] == sum(told["blocks"].values())
    states = [name for name, count in told["runs"] for _ in range(count)]
    assert states[40] == "demanded"
    assert told["blocks"]["absent"] > 0
    drawn = reader.run("status", "--map")  # the only mount there is
    assert "D" in drawn.splitlines()[0]
    assert "\x1b" not in drawn
    assert f"{told['blocks']['absent']} blocks" in drawn


def test_a_reference_whose_image_is_mounted_means_that_mount(published, mirror, reader, tmp_path):
    place = tmp_path / "mnt"
    mount(reader, mirror, published, place)
    facts = reader.json("status", "m:alice/tiny")
    assert (facts["mountpoint"], facts["mirrors"][0]["name"]) == (str(place), mirror.url)
    shown = reader.run("status", "m:alice/tiny@1")
    assert f"alice/tiny@1 on {place}" in shown
    assert "not mounted" not in shown
    reader.run("umount", place)
    assert reader.json("status", "m:alice/tiny")["mounted"] is False
    assert "not mounted" in reader.run("status", "m:alice/tiny")


def test_what_is_mounted_and_unmounted_is_told_to_programs(published, mirror, reader, tmp_path):
    reader.run("remote", "add", "m", f"{mirror.url}#{published.pin}")
    place = tmp_path / "mnt"
    place.mkdir()
    facts = reader.json("mount", "m:alice/tiny", place)
    assert (facts["image"], facts["disk"]) == ("alice/tiny@1", f"{place}/disk.raw")
    assert facts["pid"] == reader.json("status", place)["pid"]
    told = reader.json("umount", place, tmp_path)["mounts"]
    assert [each["outcome"] for each in told] == ["unmounted", "not_mounted"]
    assert reader.json("remote", "remove", "m") == {"removed": "m"}


def test_without_a_mount_there_is_no_map(reader):
    assert "none" in reader.refused("status", "--map", code=2)
    reader.refused("status", "nothing-of-this-name", "--map", code=3)


def test_an_outage_stands_in_the_status(published, mirror, reader, tmp_path):
    disk = mount(reader, mirror, published, tmp_path / "mnt", "--deadline", "2")
    mirror.close()
    assert readable(disk, 50) is None
    facts = reader.json("status", tmp_path / "mnt")
    assert facts["network_problem"]
    assert facts["network_gone_s"] > 0
    assert "NETWORK" in reader.run("status", tmp_path / "mnt")
    assert "NETWORK" in reader.run("status")
    mirror.start()
    until = time.monotonic() + 20
    while readable(disk, 50) is None:  # for a moment, what just failed fails at once
        assert time.monotonic() < until
    assert reader.json("status", tmp_path / "mnt")["network_problem"] == ""


def test_a_mirror_that_lied_is_named_in_the_status_and_among_the_mirrors(published, mirror, reader, tmp_path):
    with FaultServer(published.repository.tree) as honest:
        reader.run("remote", "add", "m", f"{mirror.url}#{published.pin}")
        reader.run("remote", "mirrors", "m", "--add", honest.url)
        mirror.inject("blocks/*", flip_bit())
        disk = mount(reader, mirror, published, tmp_path / "mnt")
        assert disk.read_bytes() == published.disk
        facts = reader.json("status", tmp_path / "mnt")
        assert [(m["name"], m["lied"]) for m in facts["mirrors"]] == [(mirror.url, True), (honest.url, False)]
        shown = reader.run("status", tmp_path / "mnt")
        assert f"WRONG BYTES were served by {mirror.url}; none of them was used" in shown
        listed = reader.run("remote", "mirrors", "m").splitlines()
        assert [line.split()[:2] for line in listed[1:]] == [[mirror.url, "remote"], [honest.url, "you"]]
        assert "LIED" in listed[1]
        assert "LIED" not in listed[2]


def test_metrics_are_printed_and_served_for_all_mounts_on_one_page(published, mirror, reader, tmp_path):
    for place in ("one", "two"):
        disk = mount(reader, mirror, published, tmp_path / place)
        assert disk.read_bytes() == published.disk

    def received(text):
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "oscirc_received_bytes_total" and sample.labels["mirror"] == mirror.url:
                    found[sample.labels["mountpoint"]] = sample.value
        return found

    printed = received(reader.run("metrics"))
    assert set(printed) == {str(tmp_path / "one"), str(tmp_path / "two")}
    assert printed[str(tmp_path / "one")] > len(published.disk)
    serving = reader.start("metrics", "--listen", "127.0.0.1:0", stderr=subprocess.PIPE, text=True)
    try:
        address = serving.stderr.readline().split()[-1]
        with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310  # what our own process printed
            assert received(answer.read().decode()) == printed
    finally:
        end(serving)
        serving.stderr.close()
