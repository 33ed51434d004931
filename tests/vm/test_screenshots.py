"""A picture of the small guest's display: taken through QEMU's monitor, sent, and seen on the page of a real server."""

import re
import subprocess

import httpx
import pytest
from support import pictures
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_blockstore import png

pytestmark = [pytest.mark.guest, pytest.mark.fuse, pytest.mark.vm, pytest.mark.timeout(800)]
SERIAL_ONLY = bytes.fromhex(
    "31c0 8ed8"  # ds = 0
    "b80300 cd10"  # text mode, which clears the screen
    "be267c"  # the words at 0x7c26; for each of their bytes:
    "ac 84c0 7412 88c4"  # until a zero comes
    "bafd03 ec a820 74fb"  # when the first serial port is free
    "88e0 baf803 ee ebe9"  # write it there
    "f4 ebfd"  # rest
)
RECORDING = ("--accel", "tcg", "--until", "circuit login:", "--settle", "1", "--runs", "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("world")
    station = Workstation(directory / "user")
    repository = initialise(station, directory / "repository")
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        url = station.json("remote", "list")["remotes"][0]["url"].partition("#")[0].rstrip("/")
        yield station, url


def publish(station, disk, image, *options, **how):
    return station.json("publish", disk, f"test:alice/{image}@1", "--key", "alice", "--memory", "256", *options, **how)


def page_of(url, image):
    with httpx.Client(trust_env=False, timeout=60) as browser:
        text = browser.get(f"{url}/images/alice/{image}").text
        found = re.findall(r'<img src="\.\./\.\./(screenshots/[0-9a-f]{64}\.png)" alt="([^"]*)"', text)
        return [(browser.get(f"{url}/{path}"), words) for path, words in found]


def test_a_published_disk_comes_with_a_picture_of_its_prompt(world, small_disk):
    station, url = world
    said = publish(
        *(station, small_disk(), "shown", "--profile", "auto", "--screenshot", "--record-accel", "tcg"),
        *("--record-until", "circuit login:", "--record-settle", "1", "--record-runs", "1"),
        timeout=300,
    )
    assert said["screenshot"]["uploaded"], said
    ((answer, words),) = page_of(url, "shown")
    assert words == said["screenshot"]["alt"] == "Console of alice/shown 1 at its login prompt"
    assert answer.headers["content-type"] == "image/png"
    size = png.check(answer.content)
    assert size.width >= 640
    assert size.height >= 400
    assert len(answer.content) == said["screenshot"]["png_bytes"] < 100_000


def test_a_released_version_gets_one_later_and_a_file_of_it(world, small_disk, tmp_path):
    station, url = world
    publish(station, small_disk(), "later")
    file = tmp_path / "screen.png"
    said = station.json(
        *("record", "test:alice/later", "-o", tmp_path / "boot.json", *RECORDING),
        *("--screenshot", "--alt", "A <prompt>", "--screenshot-file", file),
        timeout=300,
    )
    assert said["screenshot"]["alt"] == "A <prompt>"
    ((answer, words),) = page_of(url, "later")
    assert (answer.content, words) == (file.read_bytes(), "A &lt;prompt&gt;")


def test_pictures_are_added_listed_and_removed_by_name(world, small_disk, tmp_path):
    station, url = world
    publish(station, small_disk(), "named")
    file, reference = tmp_path / "desktop.png", "test:alice/named@1"
    file.write_bytes(pictures.picture(between=pictures.chunk(b"tEXt", b"Author\0me")))
    added = station.json("screenshot", "add", reference, file, "--name", "desktop", "--alt", "A desktop")["screenshot"]
    assert (added["name"], added["uploaded"]) == ("desktop", True)
    (listed,) = station.json("screenshot", "list", reference)["screenshots"]
    assert (listed["name"], listed["alt"], listed["width"]) == ("desktop", "A desktop", pictures.WIDTH)
    assert "desktop" in station.run("screenshot", "list", reference)
    ((answer, words),) = page_of(url, "named")
    assert (answer.content, words) == (pictures.picture(), "A desktop")
    station.run("screenshot", "remove", reference, "desktop")
    assert page_of(url, "named") == []
    station.refused("screenshot", "remove", reference, "desktop", code=3)
    file.write_bytes(b"GIF89a")
    station.refused("screenshot", "add", reference, file, "--alt", "x", code=2)


def test_a_display_that_shows_nothing_is_told_of_and_not_sent(world, tmp_path):
    station, url = world
    silent = tmp_path / "silent.raw"
    sector = (SERIAL_ONLY + b"circuit login: \0").ljust(510, b"\0") + b"\x55\xaa"
    silent.write_bytes(sector.ljust(1 << 20, b"\0"))
    publish(station, silent, "silent")
    for number, insisting in enumerate(((), ("--blank-screenshot",))):
        profile = tmp_path / f"{number}.json"
        command = ("record", "test:alice/silent", "-o", profile, *RECORDING, "--screenshot", *insisting)
        process = station.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        assert profile.exists()
        assert ("showed nothing but one colour" in said) is not bool(insisting)
        assert ("console=tty0" in said) is not bool(insisting)
        assert len(page_of(url, "silent")) == len(insisting)
