"""What a user keeps: `pull`, pins, the cache's limit, and `status` before the network is unplugged."""

import json
import os
import signal
import ssl
import subprocess
import threading
import time

import pytest
from support.certificates import certificate
from support.commands import Workstation, serving
from support.fault_server import FaultServer, flip_bit, replace
from support.forward_proxy import ForwardProxy

from oscirc_blockstore import accelerators, canonical
from oscirc_blockstore.accelerators import PROFILE, Listing
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.profile import Profile

from .conftest import BLOCK

IMAGE = "m:alice/tiny"
BOOT = list(range(20, 40))


@pytest.fixture(scope="module")
def profiled(published):
    """The image with a boot profile of twenty blocks."""
    place = published.repository.directory / "boot.profile.json"
    place.write_bytes(Profile(digest_of(b"any"), "boot", 1, tuple(BOOT)).serialise())
    with serving(published.publisher, published.repository):
        published.publisher.run("profile", "add", "test:alice/tiny@1", place)
    yield published
    with serving(published.publisher, published.repository):
        published.publisher.run("profile", "remove", "test:alice/tiny@1", "boot")


@pytest.fixture
def mirror(published):
    with FaultServer(published.repository.tree) as server:
        yield server


def add(station, mirror, published):
    station.run("remote", "add", "m", f"{mirror.url}#{published.pin}")


def cached(station):
    directory = station.home / "cache" / "oscirc" / "blocks"
    return {file.name: file for file in directory.glob("??/*")}


def names(disk, positions=range(64)):
    return {digest_of(disk[at * BLOCK : (at + 1) * BLOCK]).hex() for at in positions}


def test_pull_brings_all_and_status_says_that_the_network_may_go(published, mirror, reader):
    add(reader, mirror, published)
    assert "never resolved on this machine" in reader.refused("status", "alice/tiny", code=3)
    pulled = reader.json("pull", IMAGE)
    assert (pulled["fetched_blocks"], pulled["data_bytes"]) == (64, 64 * BLOCK)
    facts = reader.json("status", IMAGE)
    assert (facts["mounted"], facts["safe_to_unplug"], facts["ready_to_boot"], facts["cached_percent"]) == (
        *(False, True, True),
        100,
    )
    mirror.close()
    assert "yes: all of the data is here" in reader.run("status", IMAGE)
    assert reader.json("status", IMAGE)["opens_offline"]


def test_what_was_withdrawn_is_not_safe_to_unplug_although_all_of_it_is_here(published, mirror, reader):
    add(reader, mirror, published)
    reader.json("pull", IMAGE)
    receipts = reader.home / "data" / "oscirc" / "remotes" / "m" / "receipts" / "alice" / "tiny"
    (file,) = receipts.glob("*.json")
    receipt = json.loads(file.read_bytes())
    receipt["yanked"] = {"why": "a hole", "date": "2026-01-01T00:00:00Z", "security": True}
    file.write_bytes(canonical.serialise(receipt))
    facts = reader.json("status", IMAGE)
    assert (facts["cached_percent"], facts["opens_offline"], facts["ready_to_boot"], facts["safe_to_unplug"]) == (
        *(100, False, False, False),
    )
    assert "would not be opened without network" in reader.run("status", IMAGE)


def test_an_interrupted_pull_fetches_only_what_is_missing(published, mirror, reader):
    add(reader, mirror, published)
    reader.json("show", IMAGE)
    for sign in (signal.SIGINT, signal.SIGKILL):
        before = mirror.count("blocks/*")
        process = reader.start("pull", IMAGE, "--limit-rate", "1M", stderr=subprocess.PIPE, text=True)
        with process:
            assert eventually(lambda: mirror.count("blocks/*") >= before + 12)  # noqa: B023  # asked at once
            process.send_signal(sign)
            assert process.wait(30) == (130 if sign == signal.SIGINT else -signal.SIGKILL)
            said = process.stderr.read()
            assert "Traceback" not in said
            assert ("run it again to go on" in said) == (sign == signal.SIGINT)
    here = set(cached(reader))
    assert 0 < len(here) < 65
    mirror.close()  # what the one that was killed had asked for stays unanswered, and is not counted
    mirror.start()
    before = mirror.count("blocks/*")
    reader.json("pull", IMAGE)
    assert mirror.count("blocks/*") - before == 65 - len(here)  # 64 blocks and a node
    assert reader.json("pull", IMAGE)["fetched_blocks"] == 0
    assert mirror.count("blocks/*") - before == 65 - len(here)


def eventually(condition, seconds=30.0):
    """Whether it comes true in that time; looks a hundred times a second."""
    until, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > until:
            return False
        never.wait(0.01)
    return True


def test_a_profile_without_a_bundle_is_pulled_too(profiled, mirror, reader):
    """A mirror may carry profiles and no bundles: the blocks then come one by one."""
    add(reader, mirror, profiled)
    manifest = reader.json("show", IMAGE)["manifest"]
    listing = accelerators.parse_listing((profiled.repository.tree / "accel" / f"{manifest}.json").read_bytes())
    only = Listing(listing.manifest, tuple(each for each in listing.accelerators if each.kind == PROFILE))
    mirror.inject(f"accel/{manifest}.json", replace(only.serialise()))
    pulled = reader.json("pull", IMAGE, "--profile-only")
    assert (pulled["profile_blocks"], pulled["fetched_blocks"]) == (len(BOOT), len(BOOT))
    assert set(cached(reader)) >= names(profiled.disk, BOOT)
    facts = reader.json("status", IMAGE)
    assert (facts["ready_to_boot"], facts["safe_to_unplug"]) == (True, False)


def test_only_the_profile_is_pulled_and_then_it_is_ready_to_boot(profiled, mirror, reader):
    add(reader, mirror, profiled)
    pulled = reader.json("pull", IMAGE, "--profile-only")
    assert pulled["profile_blocks"] == len(BOOT) + 1  # a node
    assert set(cached(reader)) >= names(profiled.disk, BOOT)
    assert not set(cached(reader)) & names(profiled.disk, range(20))
    assert mirror.count("blocks/*") == 0
    facts = reader.json("status", IMAGE)
    assert (facts["ready_to_boot"], facts["safe_to_unplug"], facts["cached_percent"]) == (True, False, 31)
    shown = reader.run("status", IMAGE)
    assert "yes: 21 of 21 blocks" in shown
    assert "no: 31 % of the data is here" in shown
    again = reader.json("pull", IMAGE, "--profile-only")
    assert again["fetched_blocks"] == 0


def test_an_interrupted_pull_of_a_profile_fetches_only_what_is_missing(profiled, mirror, reader):
    add(reader, mirror, profiled)
    reader.json("show", IMAGE)
    wanted = names(profiled.disk, BOOT)
    with reader.start("pull", IMAGE, "--profile-only", "--limit-rate", "400K", stderr=subprocess.DEVNULL) as process:
        assert eventually(lambda: len(wanted & set(cached(reader))) >= len(BOOT) * 2 // 3)
        process.kill()
    missing = wanted - set(cached(reader))
    assert missing
    assert not reader.json("status", IMAGE)["ready_to_boot"]
    before = mirror.count("accel/*")
    reader.json("pull", IMAGE, "--profile-only")
    asked = {path.rpartition("/")[2].removesuffix(".zst") for path in mirror.counts() if path.startswith("blocks/")}
    assert asked == missing  # one by one: the stream would be mostly what is here
    assert mirror.count("accel/*") - before <= 3  # listings, and the index at most
    assert reader.json("status", IMAGE)["ready_to_boot"]


def test_a_profile_that_there_is_not_is_said_with_those_that_there_are(profiled, mirror, reader, tmp_path):
    add(reader, mirror, profiled)
    assert "there are: boot" in reader.refused("pull", IMAGE, "--profile-only", "--profile", "desktop", code=3)
    place = tmp_path / "mnt"
    place.mkdir()
    assert "there are: boot" in reader.refused("mount", IMAGE, place, "--profile", "desktop", code=3)
    reader.run("mount", IMAGE, place, "--profile", "none")
    assert reader.json("status", place)["prefetch"]["bundle_bytes"] == 0


def test_the_preferred_profile_is_what_is_pulled_and_what_status_goes_by(profiled, mirror, reader, tmp_path):
    wanted = range(44, 60)
    place = tmp_path / "desktop.json"
    place.write_bytes(Profile(digest_of(b"any"), "desktop", 1, tuple(wanted)).serialise())
    with serving(profiled.publisher, profiled.repository):
        profiled.publisher.run("profile", "add", "test:alice/tiny@1", place)
    try:
        add(reader, mirror, profiled)
        (reader.home / "config" / "oscirc").mkdir()
        (reader.home / "config" / "oscirc" / "config.toml").write_text('profile = "desktop"\n')
        assert reader.json("pull", IMAGE, "--profile-only")["profile"] == "desktop"
        assert set(cached(reader)) >= names(profiled.disk, wanted)
        assert not set(cached(reader)) & names(profiled.disk, BOOT)
        assert reader.json("status", IMAGE)["ready_to_boot"]
        assert reader.json("pull", IMAGE, "--profile-only", "--profile", "boot")["profile"] == "boot"
        (reader.home / "config" / "oscirc" / "config.toml").write_text('profile = "none"\n')
        assert "--profile boot" in reader.refused("pull", IMAGE, "--profile-only", code=2)
    finally:
        with serving(profiled.publisher, profiled.repository):
            profiled.publisher.run("profile", "remove", "test:alice/tiny@1", "desktop")


def test_without_a_profile_only_the_profile_cannot_be_pulled(published, mirror, reader):
    add(reader, mirror, published)
    mirror.inject("accel/*", lambda answer: setattr(answer, "status", 404))
    assert "has no profile" in reader.refused("pull", IMAGE, "--profile-only", code=3)


def test_what_is_pinned_stays_and_the_rest_goes_when_room_is_needed(published, mirror, reader, tmp_path):
    add(reader, mirror, published)
    reader.json("pull", IMAGE)
    assert reader.json("pin", IMAGE)["safe_to_unplug"]
    assert not reader.json("pin", IMAGE)["new"]
    (pin,) = reader.json("pins")["pins"]
    assert (pin["image"], pin["safe_to_unplug"]) == ("alice/tiny@1", True)
    junk = reader.home / "cache" / "oscirc" / "blocks" / "00" / ("00" * 32)
    junk.parent.mkdir(exist_ok=True)
    junk.write_bytes(bytes(BLOCK))
    os.utime(junk, (1, 1))
    would = reader.json("cache", "gc", "--limit", "1K", "--dry-run")
    assert (would["removed_blocks"], junk.exists()) == (1, True)
    done = reader.json("cache", "gc", "--limit", "1K")
    assert (done["removed_blocks"], done["left_bytes"], junk.exists()) == (1, done["needed_bytes"], False)
    assert set(cached(reader)) >= names(published.disk)
    reader.run("unpin", "alice/tiny")
    assert reader.json("pins")["pins"] == []
    assert reader.json("unpin", "alice/tiny") == {"unpinned": []}
    reader.refused("unpin", "tiny", code=2)
    reader.json("cache", "gc")
    assert set(cached(reader)) >= names(published.disk)  # a channel points at it
    reader.json("cache", "gc", "--limit", "1K")
    assert cached(reader) == {}


def test_what_is_mounted_stays(published, mirror, reader, tmp_path):
    add(reader, mirror, published)
    reader.json("pull", IMAGE)
    place = tmp_path / "mnt"
    place.mkdir()
    reader.run("mount", IMAGE, place)
    assert reader.json("cache", "info")["needed_bytes"] >= 64 * BLOCK
    reader.json("cache", "gc", "--limit", "1K")
    mirror.close()
    assert (place / "disk.raw").read_bytes() == published.disk
    reader.run("umount", place)
    assert reader.json("cache", "gc", "--limit", "1K")["left_bytes"] == 0


def driver_of(reader, place):
    (mount,) = [mount for mount in reader.json("status")["mounts"] if mount["mountpoint"] == str(place)]
    return mount["pid"]


def test_what_a_killed_driver_had_mounted_may_go(published, mirror, reader, tmp_path):
    add(reader, mirror, published)
    reader.json("pull", IMAGE)
    place = tmp_path / "mnt"
    place.mkdir()
    reader.run("mount", IMAGE, place)
    os.kill(driver_of(reader, place), signal.SIGKILL)
    assert eventually(lambda: reader.json("cache", "info")["needed_bytes"] == 0)
    assert reader.json("cache", "gc", "--limit", "1K")["left_bytes"] == 0
    reader.run("umount", place)


def test_blocks_that_go_under_the_feet_of_a_mount_are_fetched_again(published, mirror, reader, tmp_path):
    add(reader, mirror, published)
    reader.json("pull", IMAGE)
    place = tmp_path / "mnt"
    place.mkdir()
    reader.run("mount", IMAGE, place, "--direct-io", "--no-prefetch")
    with (place / "disk.raw").open("rb", buffering=0) as disk:
        assert disk.read(BLOCK) == published.disk[:BLOCK]
        before = mirror.count("blocks/*")
        reader.run("cache", "clear", "--yes")
        assert cached(reader) == {}
        assert disk.read() == published.disk[BLOCK:]
    assert 60 <= mirror.count("blocks/*") - before <= 63  # what the driver has read already, its memory still holds
    assert reader.json("status", place)["failed_reads"] == 0


@pytest.mark.root
def test_a_disk_that_has_not_the_room_is_said_before_the_download(published, mirror, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
    try:
        station = Workstation(small)
        add(station, mirror, published)
        error = station.refused("pull", IMAGE, code=6)
        assert "up to 4.0 MiB are missing" in error
        assert "no space left" in error
        assert "oscirc cache gc" in error
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_limit_is_kept_by_mounts_and_pulls_themselves(published, mirror, reader, tmp_path):
    config = reader.home / "config" / "oscirc"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('cache_limit = "2M"\n')
    add(reader, mirror, published)
    error = reader.refused("pull", IMAGE, code=6)
    assert "limit" in error
    assert "oscirc cache gc" in error
    size = sum(file.stat().st_size for file in cached(reader).values())
    assert size < 4 * 1024 * 1024  # a look every so often: a little over is allowed
    place = tmp_path / "mnt"
    place.mkdir()
    reader.run("mount", IMAGE, place)
    assert (place / "disk.raw").read_bytes() == published.disk  # the rest is read without being kept
    assert reader.json("status", place)["uncached_writes"] > 0


def test_filling_ends_where_the_cache_keeps_nothing_more(published, mirror, reader, tmp_path):
    prefer(reader, 'cache_limit = "1M"\n')
    add(reader, mirror, published)
    place = tmp_path / "mnt"
    place.mkdir()
    reader.run("mount", IMAGE, place, "--no-prefetch", "--fill-rate", "2M")
    assert eventually(lambda: reader.json("status", place)["prefetch"]["state"] == "idle")
    assert "keeps nothing more" in reader.json("status", place)["prefetch"]["last_problem"]
    assert "keeps nothing more" in reader.run("status", place)
    assert mirror.count("blocks/*") < 64
    assert (place / "disk.raw").read_bytes() == published.disk


def test_a_flipped_bit_in_the_cache_is_found_and_fetched_again(published, mirror, reader):
    add(reader, mirror, published)
    reader.json("pull", IMAGE)
    file = next(iter(cached(reader).values()))
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.write_bytes(raw)
    found = reader.attempt("cache", "verify")
    assert (found.returncode, f"damaged and removed: {file.name}" in found.stderr) == (0, True)
    again = reader.json("cache", "verify")
    assert (again["checked"], again["damaged"], again["removed"]) == (64, 0, [])
    pulled = reader.json("pull", IMAGE)
    assert pulled["fetched_blocks"] + pulled["fetched_nodes"] == 1


def test_a_proxy_is_used_where_the_environment_names_one(published, mirror, tmp_path):
    with ForwardProxy() as proxy:
        through = Workstation(tmp_path / "user", extra={"http_proxy": f"http://{proxy.address}"})
        add(through, mirror, published)
        assert through.json("pull", IMAGE)["fetched_blocks"] == 64
        assert sum("/blocks/" in target for target in proxy.seen) == 65
        assert len(proxy.seen) == mirror.count()
        past = Workstation(tmp_path / "past", extra={**through.extra, "NO_PROXY": "127.0.0.1"})
        proxy.seen.clear()
        add(past, mirror, published)
        past.json("pull", IMAGE)
        assert proxy.seen == []


def prefer(station, text):
    config = station.home / "config" / "oscirc" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(text)


def test_a_proxy_is_used_where_the_preferences_name_one_and_the_environment_goes_first(published, mirror, reader):
    with ForwardProxy(login="me:a secret") as proxy, ForwardProxy() as other:
        prefer(reader, f'proxy = "http://me:a%20secret@{proxy.address}"\n')
        add(reader, mirror, published)
        reader.json("show", IMAGE)
        assert len(proxy.seen) == mirror.count() > 0
        by_environment = Workstation(reader.home, extra={"HTTP_PROXY": f"http://{other.address}"})
        proxy.seen.clear()
        by_environment.json("show", IMAGE)
        assert (proxy.seen, len(other.seen) > 0) == ([], True)
        direct = Workstation(reader.home, extra={**by_environment.extra, "OSCIRC_PROXY": "none"})
        other.seen.clear()
        direct.json("show", IMAGE)
        assert proxy.seen == other.seen == []
    prefer(reader, f'proxy = "http://me:a%20secret@{proxy.address}"\n')  # it is gone: nothing goes past it
    asked = mirror.count()
    error = reader.refused("pull", IMAGE, code=5)
    assert "secret" not in error
    assert mirror.count() == asked
    prefer(reader, 'proxy = "socks5://me:a secret@host:1080"\n')
    error = reader.refused("pull", IMAGE, code=2)
    assert "config.toml: proxy" in error
    assert "secret" not in error
    reader.run("mount", "--help")
    reader.run("pins")


def test_what_is_https_goes_through_a_proxy_as_a_tunnel(published, tmp_path):
    """TLS is between the workstation and the mirror: the proxy learns a host and a port."""
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with ForwardProxy(login="me:secret") as proxy, FaultServer(published.repository.tree, tls=context) as server:
        settings = {"SSL_CERT_FILE": str(path), "OSCIRC_PROXY": f"http://me:secret@{proxy.address}"}
        through = Workstation(tmp_path / "user", extra=settings)
        add(through, server, published)
        assert through.json("pull", IMAGE)["fetched_blocks"] == 64
        host = server.url.removeprefix("https://").partition("/")[0]
        assert set(proxy.seen) == {host}
        assert server.count("blocks/*") == 65
        assert len(proxy.seen) < server.count()  # tunnels are kept
        proxy.expected = "another login"
        through.run("cache", "clear", "--yes")
        error = through.refused("pull", IMAGE, code=5)
        assert "407" in error
        assert "secret" not in error


def test_a_lying_mirror_gives_a_pull_nothing(published, mirror, reader):
    add(reader, mirror, published)
    reader.json("show", IMAGE)
    mirror.inject("blocks/*", flip_bit())
    reader.refused("pull", IMAGE, code=7, timeout=200)
    assert cached(reader) == {}
