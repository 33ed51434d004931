"""What must survive: killed servers, killed drivers, damaged and full caches, interrupted and simultaneous publishing."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.commands import Workstation, add_publisher, end, initialise, serving
from support.fault_server import FaultServer, stall

from .conftest import BLOCK, content

IMAGE = "m:alice/tiny"


@pytest.fixture
def mirror(published, tmp_path):
    with FaultServer(published.repository.tree) as server:
        yield server


def mount(station, mirror, published, directory, *options):
    if not (station.home / "data" / "oscirc" / "remotes" / "m").exists():
        station.run("remote", "add", "m", f"{mirror.url}#{published.pin}")
    directory.mkdir(exist_ok=True)
    station.run("mount", IMAGE, directory, *options)
    return directory / "disk.raw"


def test_a_read_waits_for_a_server_that_is_killed_and_comes_back(published, mirror, reader, tmp_path):
    disk = mount(reader, mirror, published, tmp_path / "mnt", "--deadline", 60)
    mirror.close()
    answer = {}

    def read():
        with disk.open("rb") as file:
            file.seek(40 * BLOCK)
            answer["bytes"] = file.read(BLOCK)

    waiting = threading.Thread(target=read)
    waiting.start()
    waiting.join(1.0)
    assert waiting.is_alive()  # no error: the read waits
    mirror.start()
    waiting.join(60)
    assert answer["bytes"] == published.disk[40 * BLOCK : 41 * BLOCK]


def test_a_read_past_its_deadline_is_an_error_and_the_mount_lives(published, mirror, reader, tmp_path):
    disk = mount(reader, mirror, published, tmp_path / "mnt", "--deadline", 1)
    mirror.close()
    with disk.open("rb") as file, pytest.raises(OSError, match=r"Input/output error|timed out"):
        file.seek(40 * BLOCK)
        file.read(BLOCK)
    mirror.start()
    deadline = time.monotonic() + 20  # the mirror is asked again once its demotion is over
    while True:
        try:
            assert disk.read_bytes() == published.disk
        except OSError:
            assert time.monotonic() < deadline
        else:
            break


def test_a_driver_killed_in_mid_fill_leaves_nothing_corrupt(published, mirror, reader, tmp_path):
    disk = mount(reader, mirror, published, tmp_path / "mnt")
    pid = reader.json("status", tmp_path / "mnt")["pid"]
    mirror.inject("blocks/*", stall(after_bytes=20000))
    failed = []

    def read(offset):
        try:
            with disk.open("rb") as file:
                file.seek(offset)
                file.read(BLOCK)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=read, args=(i * BLOCK,)) for i in range(20, 28)]
    for thread in threads:
        thread.start()
    while mirror.count("blocks/*") < 5:
        assert any(thread.is_alive() for thread in threads)
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    assert len(failed) == len(threads)
    mirror.heal()
    disk = mount(reader, mirror, published, tmp_path / "mnt")  # over the stale mount
    assert disk.read_bytes() == published.disk


def cached_files(station):
    return [path for path in (station.home / "cache" / "oscirc" / "blocks").glob("??/*") if path.is_file()]


def test_a_corrupt_cached_block_is_fetched_again(published, mirror, reader, tmp_path):
    mount(reader, mirror, published, tmp_path / "mnt")
    reader.run("pull", IMAGE)
    reader.run("umount", tmp_path / "mnt")
    files = cached_files(reader)
    assert len(files) == 65  # 64 blocks and a node
    for file in files[::2]:
        damaged = bytearray(file.read_bytes())
        damaged[random.Random(file.name).randrange(len(damaged))] ^= 4
        file.write_bytes(damaged)
    before = mirror.count("blocks/*")
    disk = mount(reader, mirror, published, tmp_path / "mnt")
    assert disk.read_bytes() == published.disk
    assert mirror.count("blocks/*") - before == len(files[::2])
    assert reader.json("status", tmp_path / "mnt")["damaged"] == len(files[::2])


def test_offline_once_cached(published, mirror, reader, tmp_path):
    reader.run("remote", "add", "m", f"{mirror.url}#{published.pin}")
    reader.run("pull", IMAGE)
    mirror.close()
    (tmp_path / "mnt").mkdir()
    done = reader.attempt("mount", IMAGE, tmp_path / "mnt")
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr
    assert (tmp_path / "mnt" / "disk.raw").read_bytes() == published.disk


@pytest.mark.root
def test_a_full_cache_disk_serves_uncached(published, mirror, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs for the cache needs root")
    reader = Workstation(tmp_path / "reader")
    small = reader.home / "cache"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(small)], check=True)
    try:
        disk = mount(reader, mirror, published, tmp_path / "mnt")
        assert disk.read_bytes() == published.disk
        status = reader.json("status", tmp_path / "mnt")
        assert status["uncached_writes"] > 0
        reader.run("umount", tmp_path / "mnt")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_sixteen_readers_of_a_cold_block_through_two_mounts_cause_one_download(published, mirror, reader, tmp_path):
    disks = [mount(reader, mirror, published, tmp_path / name, "--no-prefetch") for name in ("one", "two")]
    block = 33
    before = mirror.count("blocks/*")

    def read(number):
        descriptor = os.open(disks[number % 2], os.O_RDONLY)
        try:
            offset = block * BLOCK + number * 4096
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            return os.pread(descriptor, 4096, offset) == published.disk[offset : offset + 4096]
        finally:
            os.close(descriptor)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(16)))
    assert mirror.count("blocks/*") - before == 1


def test_publishing_interrupted_anywhere_resumes_and_shows_no_half_version(tmp_path):
    station = Workstation(tmp_path / "publisher")
    repository = initialise(station, tmp_path / "repository")
    disk = tmp_path / "disk.raw"
    disk.write_bytes(content("big", 256))
    generator = random.Random(11)
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        command = ("publish", disk, "test:alice/big@1", "--key", "alice", "--block-size", BLOCK)
        sent = []
        for _ in range(6):
            process = station.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.4 + generator.random() * 0.8)
            if process.poll() is None:
                process.send_signal(generator.choice([signal.SIGINT, signal.SIGKILL]))
            process.wait(20)
            listed = station.attempt("show", "test:alice/big")
            assert listed.returncode in (0, 3), listed.stderr
            if listed.returncode == 0:
                break  # that run came through
        done = station.json(*command)
        sent.append(done["uploaded_bytes"])
        assert station.json("show", "test:alice/big")["version"] == "1"
        again = station.json(*command)
        assert again["uploaded_bytes"] == 0
        assert again["already_released"]
        station.run("pull", "test:alice/big")


def test_the_server_killed_in_mid_publishing_loses_nothing(tmp_path):
    station = Workstation(tmp_path / "publisher")
    repository = initialise(station, tmp_path / "repository")
    disk = tmp_path / "disk.raw"
    disk.write_bytes(content("again", 256))
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        command = ("publish", disk, "test:alice/big@1", "--key", "alice", "--block-size", BLOCK)
        process = station.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        blocks = repository.tree / "blocks" / "sha256"
        while process.poll() is None and sum(1 for _ in blocks.glob("??/*")) < 20:
            pass
        repository.process.kill()
        repository.process.wait(20)
        end(process)
    with serving(station, repository):
        assert station.attempt("show", "test:alice/big").returncode in (0, 3)
        station.run(*command)
        station.run("pull", "test:alice/big")


def test_two_publishers_and_two_versions_released_at_the_same_moment_all_stand(tmp_path):
    base = tmp_path / "admin"
    admin = Workstation(base)
    repository = initialise(admin, tmp_path / "repository")
    with serving(admin, repository):
        stations = {}
        for name in ("alice", "bob"):
            stations[name] = Workstation(tmp_path / name)
            add_publisher(stations[name], repository, name)
        twin = Workstation(tmp_path / "twin")
        shutil.copytree(stations["alice"].home, twin.home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run"))
        jobs = [
            (stations["alice"], "alice", "alice/one@1"),
            (twin, "alice", "alice/two@1"),
            (stations["bob"], "bob", "bob/one@1"),
            (stations["alice"], "alice", "alice/one@2"),
        ]
        for number, _ in enumerate(jobs):
            (tmp_path / f"disk{number}").write_bytes(content(f"disk{number}", 8))

        def publish(job):
            number, (station, key, reference) = job
            return station.attempt(
                "publish", tmp_path / f"disk{number}", f"test:{reference}", "--key", key, "--block-size", BLOCK
            )

        with ThreadPoolExecutor(4) as pool:
            for done in pool.map(publish, enumerate(jobs)):
                assert done.returncode == 0, done.stderr
        for _, _, reference in jobs:
            assert admin_shows(tmp_path, repository, reference)


def admin_shows(tmp_path, repository, reference):
    station = Workstation(tmp_path / "reader")
    if not (station.home / "data" / "oscirc" / "remotes").exists():
        station.run("remote", "add", "test", repository.url)
    return station.json("show", f"test:{reference}")["version"] == reference.partition("@")[2]
