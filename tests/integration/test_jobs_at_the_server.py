"""Jobs from end to end: a real server, real commands, a client that is better off for what nobody sent.

A worker that is killed in the middle, one of its own, a fleet that agrees, one that lies.
"""

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import time
import zlib
from pathlib import Path

import httpx
import pytest
from support.commands import Workstation, add_publisher, end, initialise, serving, wait_for_line

from oscirc_blockstore import accelerators
from oscirc_blockstore.digests import ZERO_DIGEST, parse_hex
from oscirc_blockstore.profile import Profile
from oscirc_server.services.job_plans import LEAST_NETWORKS

BLOCK = 65536
BLOCKS = 48
PATIENCE_S = 120


def content(version):
    """A disk of blocks that do not compress; one page of each of the first ten says which version it is."""
    disk = []
    for number in range(BLOCKS):
        pages = [hashlib.shake_256(f"{number} {page}".encode()).digest(4096) for page in range(16)]
        if number < 10:
            pages[3] = hashlib.shake_256(f"{version} {number}".encode()).digest(4096)
        disk += pages
    return b"".join(disk)


def until(fact):
    """What `fact` gives, once it is true; it is asked again and again."""
    limit = time.monotonic() + PATIENCE_S
    while not (found := fact()):
        assert time.monotonic() < limit, "it did not come about"
        time.sleep(0.1)
    return found


class Publisher:
    """alice at her workstation, one of her images, and what her repository lists of it."""

    def __init__(self, home, repository, image):
        self.work, self.repository, self.image = home, repository, f"test:alice/{image}"
        self.published = set()

    @contextlib.contextmanager
    def serving(self, jobs="1"):
        """The repository, version 1 in it."""
        with serving(self.work, self.repository, jobs=jobs):
            if "1" not in self.published:
                self.publish("1")
            yield

    def publish(self, version, *options):
        disk = self.work.home / "disk.raw"
        disk.write_bytes(content(version))
        options = ("--block-size", BLOCK, "--key", "alice", *(options or ("--deltas", 0)))
        done = self.work.attempt("publish", disk, f"{self.image}@{version}", *options)
        assert done.returncode == 0, done.stderr
        self.published.add(version)
        return done

    def jobs(self, *options):
        found = self.work.json("jobs", "list", *options)["jobs"]
        return [each for each in found if self.image.endswith(f"/{each['image']}")]

    def manifest(self, version):
        return parse_hex(self.work.json("show", f"{self.image}@{version}")["manifest"])

    def find(self, version, kind):
        path = self.repository.tree / accelerators.listing_path(self.manifest(version))
        listed = accelerators.parse_listing(path.read_bytes()).accelerators if path.exists() else ()
        return [each for each in listed if each.kind == kind]

    def share(self, positions, networks=LEAST_NETWORKS):
        """Boots of version 1 that so many networks send: a proxy on this machine says who."""
        run = Profile(self.manifest("1"), "boot", 1, tuple(positions)).serialise()
        base, image = self.repository.url.partition("#")[0], self.image.partition("/")[2]
        for number in range(networks):
            answer = httpx.post(
                f"{base}/api/v1/images/alice/{image}/versions/1/profiles/boot/runs",
                content=run,
                headers={"X-Forwarded-For": f"203.0.113.{number}"},
            )
            assert answer.status_code == 202, answer.text

    def change(self, statement):
        """Do to the database what only time would do."""
        path = self.repository.directory / "oscirc.db"
        with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
            database.execute(statement)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Where alice may publish."""
    base = tmp_path_factory.mktemp("jobs")
    home = Workstation(base / "alice")
    repository = initialise(home, base / "repository")
    with serving(home, repository):
        add_publisher(home, repository, "alice")
    return home, repository


@pytest.fixture
def alice(workshop, request):
    return Publisher(*workshop, f"tiny-{zlib.crc32(request.node.name.encode()):x}")


@pytest.fixture
def somebody(tmp_path, alice):
    """Makes workstations of others."""

    def make(name):
        home = Workstation(tmp_path / name)
        home.run("remote", "add", "test", alice.repository.url)
        return home

    return make


def test_a_client_updates_with_a_pack_that_only_the_server_made(alice, somebody):
    with alice.serving():
        reader = somebody("reader")
        reader.run("pull", f"{alice.image}@1")
        alice.publish("2")
        job = until(lambda: alice.jobs("--state", "done"))[0]
        assert (job["kind"], job["version"], job["of"], job["attempts"]) == ("delta", "2", "1", 1)
        assert f"delta {alice.image.removeprefix('test:')}@2 from 1" in alice.work.run("jobs", "list")
        assert "records" in alice.work.run("jobs", "show", job["id"])
        (pack,) = alice.find("2", accelerators.DELTA)
        assert pack.sha256.hex() == job["result"]["sha256"]
        assert reader.json("pull", f"{alice.image}@2")["fetched_bytes"] < 10 * BLOCK / 4
        made = (alice.repository.tree / pack.path).read_bytes()
        assert alice.work.json("delta", "make", f"{alice.image}@2", "--at-server")["asked"] == [
            {"base": "1", "job": None}
        ]
        back = alice.work.json("delta", "make", f"{alice.image}@1", "--from", "2", "--at-server")["asked"]
        until(lambda: alice.find("1", accelerators.DELTA))
        assert alice.work.json("jobs", "show", back[0]["job"])["version"] == "1"
        alice.work.run("delta", "remove", f"{alice.image}@2", "1")
        alice.work.run("delta", "make", f"{alice.image}@2", "--from", "1")
        (again,) = alice.find("2", accelerators.DELTA)
        assert (alice.repository.tree / again.path).read_bytes() == made


def child_of(process):
    """The process of a job that a server runs, or None."""
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended is not it
            for pid in path.read_text().split():
                if "job_process" in Path(f"/proc/{pid}/cmdline").read_text():
                    return int(pid)
    return None


def test_a_server_that_is_killed_in_the_middle_of_a_job_finishes_it_when_it_is_back(alice):
    with alice.serving():
        server = alice.repository.process
        alice.publish("2")
        child = until(lambda: child_of(server))
        os.kill(child, signal.SIGSTOP)
        assert alice.jobs("--state", "running")
        server.kill()
        server.wait()
        os.kill(child, signal.SIGCONT)
        until(lambda: not Path(f"/proc/{child}").exists())
    alice.change("UPDATE jobs SET lease_s = 0 WHERE state = 'running'")
    with alice.serving():
        (job,) = until(lambda: alice.jobs("--state", "done"))
        assert job["attempts"] == 2
        assert len(alice.find("2", accelerators.DELTA)) == 1


@pytest.mark.long
def test_a_worker_of_its_own_does_the_jobs_of_a_server_that_does_none(alice):
    with alice.serving(jobs="off"):
        alice.publish("2")
        assert not alice.find("2", accelerators.DELTA)
        command = ("serve", "work", "--data", alice.repository.directory, "--log-level", "warning")
        worker = alice.work.start(*command, stdout=subprocess.PIPE, text=True)
        try:
            wait_for_line(worker, "working on jobs")
            until(lambda: alice.find("2", accelerators.DELTA))
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        finally:
            end(worker)
    assert "--jobs N" in alice.work.refused(*command, "--jobs", "off", code=2)


@pytest.mark.fuse
def test_what_a_fleet_shares_becomes_a_bundle_that_cold_clients_fetch(alice, somebody, tmp_path):
    wanted = [7, 3, 40, 41, 9, 20]
    with alice.serving():
        alice.share(wanted)
        alice.change("UPDATE accelerators SET created_s = 0 WHERE name = 'fleet-boot'")
        alice.share(wanted, networks=1)
        (bundle,) = until(lambda: alice.find("1", accelerators.BUNDLE))
        assert bundle.name == "fleet-boot"
        cold = somebody("cold").json("pull", f"{alice.image}@1", "--profile-only")
        assert cold["profile_blocks"] == len(wanted) + 1  # and the table's one node
        assert bundle.length <= cold["fetched_bytes"] < bundle.length + BLOCK
        mounting, place = somebody("mounting"), tmp_path / "mountpoint"
        place.mkdir()
        mounting.run("mount", f"{alice.image}@1", place)
        try:
            until(lambda: mounting.json("status", place)["profile_blocks_cached"] == len(wanted) + 1)
            facts = mounting.json("status", place)
            assert (facts["profile_blocks"], facts["prefetched_blocks"] >= len(wanted)) == (len(wanted) + 1, True)
            with (place / "disk.raw").open("rb") as disk:
                disk.seek(40 * BLOCK)
                assert disk.read(BLOCK) == content("1")[40 * BLOCK : 41 * BLOCK]
        finally:
            mounting.run("umount", place)


@pytest.mark.long
def test_a_fleet_that_lies_costs_its_readers_no_more_than_the_publishers_word_allows(alice, somebody):
    recorded = Profile(ZERO_DIGEST, "boot", 1, (1, 2, 3, 4))
    with alice.serving():
        file = alice.work.home / "boot.profile.json"
        file.write_bytes(recorded.serialise())
        alice.work.run("profile", "add", f"{alice.image}@1", file)
        (own,) = alice.find("1", accelerators.BUNDLE)
        alice.share(range(BLOCKS))
        alice.change("UPDATE accelerators SET created_s = 0 WHERE name = 'fleet-boot'")
        alice.share(range(BLOCKS), networks=1)
        until(lambda: len(alice.find("1", accelerators.BUNDLE)) == 2)
        cold = somebody("cold").json("pull", f"{alice.image}@1", "--profile-only")
        assert (cold["profile_blocks"], cold["fetched_bytes"] < own.length * 1.25 + BLOCK) == (5, True)
        alice.work.run("profile", "remove", f"{alice.image}@1", "fleet-boot")
        assert [each.name for each in alice.find("1", accelerators.BUNDLE)] == ["boot"]


def test_publish_leaves_packs_to_a_server_that_makes_them_and_makes_them_itself_where_told_or_none_does(alice):
    with alice.serving():
        told = alice.publish("2", "--level", 2)
        assert "left to the server" in told.stderr
        made = until(lambda: alice.find("2", accelerators.DELTA))
        assert "delta" in [each["kind"] for each in alice.jobs()]
        told = alice.publish("3", "--deltas", 1)
        assert "left to the server" not in told.stderr
        assert "delta     from 2" in told.stdout
    with alice.serving(jobs="off"):
        told = alice.publish("4", "--level", 2)
        assert "left to the server" not in told.stderr
        assert alice.find("4", accelerators.DELTA)
    assert len(made) == 1
