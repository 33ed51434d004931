"""Two `oscirc serve` processes on one PostgreSQL and one bucket: one is killed at any of its steps, the other goes on.

A step is a request to the bucket: a proxy before the one that is to die kills it (SIGKILL) before that request is heard,
or after it was. The servers' upkeep comes every 0.3 s instead of each minute; days pass in rows and files. Whatever died
where: every released version is whole, clients never see metadata go back, a publisher goes on at the other server,
one of the two re-signs, and in the end nothing is left that nothing leads to.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select as query
from support.breaking_proxy import UNANSWERED, UNHEARD, breaking_proxy, nothing
from support.commands import free_port, wait_for_line
from support.places import Shared

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from server_world import DAY_S, Api, block, make_world
from tuf_client import updater

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import block_path
from oscirc_blockstore.frame import decode_verified
from oscirc_server import pending_files, repository
from oscirc_server.clock import system_clock
from oscirc_server.collection.collecting import COLLECTED, collect
from oscirc_server.collection.scrubbing import scrub
from oscirc_server.models import BlockRow, Document, ImageRow, ManifestRow
from oscirc_server.tree_paths import TIMESTAMP_PATH

TIMEOUT_S = 60
TOLD_S = 38 * DAY_S
"""A snapshot's seven days and thirty more, and one."""
HOW = (UNHEARD, UNANSWERED)
PROGRAM = """
import functools, sys
from oscirc.__main__ import main
from oscirc_server import app
app.keep_up = functools.partial(app.keep_up, period_s=0.3)
app.keep_collected = functools.partial(app.keep_collected, period_s=0.3)
sys.exit(main())
"""
CHANGES = re.compile(r"(PUT|POST|DELETE) ")
UPLOADS = re.compile(r"PUT .*/blocks/")
METADATA = re.compile(r"PUT .*/metadata/")
ROUNDS = re.compile(r"GET .*/metadata/timestamp\.json")
"""One in every round of the upkeep."""
AGING = {
    "signed_roles": ("signed_s", "expires_s"),
    "documents": ("created_s",),
    "manifests": ("created_s",),
    "blocks": ("created_s", "condemned_s"),
    "drafts": ("created_s", "expires_s"),
}


def wait_until(true):
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


class Server:
    """One process, its data directory, its way to the bucket."""

    def __init__(self, world, data, proxy, *options):
        self.world, self.data, self.proxy, self.options = world, data, proxy, options
        self.port, self.log = free_port(), data.parent / f"{data.name}.log"
        self.process, self.http, self.dead = None, None, threading.Event()

    def start(self):
        place = self.world.place
        bucket = place.blocks_url.replace(place.server.endpoint, self.proxy.url)
        self.dead.clear()
        self.proxy.breaks = nothing
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", PROGRAM, "serve", "--data", self.data),
                    *("--listen", f"127.0.0.1:{self.port}", "--jobs", "off", "--log-level", "warning", *self.options),
                ],
                env={**os.environ, "OSCIRC_DATABASE": place.database_url, "OSCIRC_BLOCKS": bucket},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=TIMEOUT_S)

    def await_start(self):
        try:
            wait_for_line(self.process, "listening on")
        except AssertionError as error:
            raise AssertionError(self.log.read_text()) from error

    @property
    def api(self):
        return Api(self.http, self.world.made.admin_token)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.http.close()
            self.process = None
        self.dead.set()

    def dies_at(self, wanted, number, how):
        """At its request of that number (from 0) that matches, from now on."""
        lock, seen = threading.Lock(), []

        def breaks(request):
            with lock:
                if self.dead.is_set() or not wanted.match(request):
                    return None
                seen.append(request)
                if len(seen) != number + 1:
                    return None
                if how == UNHEARD:
                    self.kill()
                return how

        self.proxy.when_lost = self.kill
        self.proxy.breaks = breaks

    def rounds(self):
        return sum(1 for request in list(self.proxy.requests) if ROUNDS.match(request))

    def more_rounds(self, number=3):
        """Return after so many more rounds of its upkeep."""
        until = self.rounds() + number
        wait_until(lambda: self.rounds() >= until)


class Two:
    """`first` dies, `second` goes on; `here` looks into their database. Publishes with what the publisher knows."""

    def __init__(self, tmp_path, cluster, s3, proxies):
        self.world = make_world(tmp_path / "world", system_clock, place=Shared.new(cluster, s3))
        self.alice = self.world.add_publisher("alice")
        shutil.copytree(self.world.data / "keys", tmp_path / "world" / "data2" / "keys")
        self.here = self.world.open()
        self.first = Server(self.world, self.world.data, proxies[0])
        self.second = Server(self.world, tmp_path / "world" / "data2", proxies[1], "--gc-every", "0")
        self.disks = {}
        self.state = tmp_path / "client"
        self.root = (self.world.tree / "metadata/1.root.json").read_bytes()

    def start(self):
        for server in (self.first, self.second):
            server.start()
        for server in (self.first, self.second):
            server.await_start()

    def close(self):
        for server in (self.first, self.second):
            server.kill()
        self.here.close()
        self.world.place.close()

    def row(self, statement):
        return self.world.place.cluster.execute(statement, self.world.place.database)

    def version_of(self, role):
        with self.here.database.read() as session:
            return repository.current_version(session, role)

    def days_pass(self, seconds):
        """In the rows and for the files, as they are now."""
        for path in Path(self.world.tree).rglob("*"):  # before the rows, by which servers then set to work
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    os.utime(path, (path.stat().st_mtime - seconds,) * 2)
        for table, names in AGING.items():
            older = ", ".join(f"{name} = {name} - {seconds}" for name in names)
            self.row(f"UPDATE {table} SET {older}")  # noqa: S608
        older = f"CAST(value AS bigint) - {seconds}"
        self.row(f"UPDATE facts SET value = {older} WHERE name = '{COLLECTED}'")  # noqa: S608
        self.world.place.server.notice()

    def build(self, label, count=6):
        self.disks[label] = self.alice.build(
            "debian", [block("shared"), *(block(f"{label}/{n}") for n in range(count))]
        )
        return self.disks[label]

    def learn(self):
        """What the publisher's client does after an error: it reads what is in force."""
        with self.here.database.read() as session:
            self.alice.role_version = repository.current_version(session, "alice")
            row = session.get(ImageRow, ("alice", "debian"))
            raw = None if row is None else session.get_one(Document, row.index_path).raw
            self.alice.indexes = {} if raw is None else {"debian": image_index.parse(raw, "alice", "debian")}

    def index(self):
        return self.alice.indexes.get("debian", image_index.ImageIndex("alice", "debian"))

    def release(self, server, label, draft):
        """At a server, by a publisher who begins again where it is told that it is behind."""
        for _ in range(2):
            if label in {version.label for version in self.index().versions}:
                return
            indexes = {"debian": self.alice.index_with("debian", label, self.disks[label].digest)}
            answer = server.api.call("POST", f"drafts/{draft}/release", json=self.alice.offer(indexes))
            if answer.status_code == 200:
                self.alice.took_force(indexes)
                return
            assert answer.status_code == 409, answer.text
            self.learn()
        assert label in {version.label for version in self.index().versions}, answer.text

    def publish(self, server, label):
        self.release(server, label, server.api.stage(self.alice, "debian", label, self.disks[label]))

    def delete(self, server, label):
        index = self.index().without_versions([label], date="2027-02-01T00:00:00Z")
        answer = server.api.call("PUT", "publishers/alice/role", json=self.alice.offer({"debian": index}))
        assert answer.status_code == 200, answer.text
        self.alice.took_force({"debian": index})

    def has_collected(self):
        """Whether the first server's daily collection has ended."""
        return int(self.row(f"SELECT value FROM facts WHERE name = '{COLLECTED}'")[0][0]) > time.time() - DAY_S  # noqa: S608

    def is_settled(self):
        """The tree shows what the database says."""
        with self.here.database.read() as session:
            newest = repository.in_force(session, "timestamp").raw
            return not pending_files.marked(session) and self.here.storage.get(TIMESTAMP_PATH, 1 << 20) == newest

    def all_is_well(self):
        """Seen by a client that has been there before, and by one that reads every block."""
        wait_until(self.is_settled)
        self.learn()
        updater(Path(self.world.tree), self.state, self.root).refresh()
        for version in self.index().versions:
            for record in self.disks[version.label].records:
                raw = (self.world.tree / block_path(record.digest)).read_bytes()
                decode_verified(raw, record.raw_size, record.digest)
        log = self.second.log.read_text()
        assert "Traceback" not in log, log

    def nothing_is_left_over(self):
        """Once all that anybody was told of is long past."""
        self.first.kill()
        for _ in range(3):
            self.days_pass(TOLD_S + DAY_S)
            wait_until(lambda: self.row("SELECT max(signed_s) FROM signed_roles")[0][0] > time.time() - DAY_S)
            assert collect(self.here).lost == []
        self.all_is_well()
        disks = [self.disks[version.label] for version in self.index().versions]
        needed = {record.digest for disk in disks for record in disk.records}
        files = {
            bytes.fromhex(path.name.removesuffix(".zst")) for path in self.world.tree.glob("blocks/sha256/*/*.zst")
        }
        assert files == needed
        with self.here.database.read() as session:
            assert set(session.scalars(query(BlockRow.digest))) == needed
            assert set(session.scalars(query(ManifestRow.digest))) == {disk.digest for disk in disks}
        scrubbed = scrub(self.here)
        assert (scrubbed.damaged, scrubbed.missing, scrubbed.complete) == (0, 0, True)


@pytest.fixture
def two(tmp_path, postgresql, s3):
    with breaking_proxy(s3.port) as mine, breaking_proxy(s3.port) as other:
        servers = Two(tmp_path, postgresql, s3, (mine, other))
        try:
            servers.start()
            yield servers
        finally:
            servers.close()


def upload(two, label, number, how):
    """Killed while it stores a publisher's blocks; whether it was."""
    disk = two.build(label)
    draft = two.first.api.draft("alice", "debian", label)
    two.first.dies_at(UPLOADS, number, how)
    try:
        two.first.api.upload(draft, disk.records)
    except httpx.TransportError:
        assert two.second.api.draft("alice", "debian", label) == draft
    two.publish(two.second, label)
    return two.first.dead.is_set()


def release(two, label, number, how):
    """Killed while it signs and shows a new version."""
    two.build(label)
    draft = two.second.api.stage(two.alice, "debian", label, two.disks[label])
    two.first.dies_at(CHANGES, number, how)
    try:
        two.release(two.first, label, draft)
    except httpx.TransportError:
        wait_until(two.is_settled)  # before the other is asked for anything
        two.release(two.second, label, draft)
    return two.first.dead.is_set()


def resign(two, _label, number, how):
    """Killed while it re-signs; the other is held up until then, at the beginning of a round, where it holds no lock."""
    before = two.version_of("snapshot")
    held, go_on = threading.Event(), threading.Event()

    def hold(request):
        if ROUNDS.match(request):
            held.set()
            go_on.wait(TIMEOUT_S)

    two.second.proxy.breaks = hold
    try:
        assert held.wait(TIMEOUT_S)
        two.first.dies_at(METADATA, number, how)
        two.days_pass(2 * DAY_S)
        wait_until(lambda: two.first.dead.is_set() or (two.version_of("snapshot") > before and two.is_settled()))
    finally:
        two.second.proxy.breaks = nothing
        go_on.set()
    wait_until(lambda: two.version_of("snapshot") > before and two.is_settled())
    two.second.more_rounds()
    assert two.version_of("snapshot") == before + 1
    return two.first.dead.is_set()


def collecting(two, label, number, how):
    """Killed while it collects what a deleted version alone had, and then while it deletes it."""
    for version in (f"{label}.old", label):
        two.build(version)
        two.publish(two.second, version)
    for version in two.index().versions:
        if version.label not in (label, "kept"):
            two.delete(two.second, version.label)
    wait_until(two.has_collected)
    two.days_pass(TOLD_S)
    wait_until(two.has_collected)
    assert two.row("SELECT 1 FROM blocks WHERE state = 'condemned'")
    two.first.dies_at(CHANGES, number, how)
    two.days_pass(2 * DAY_S)
    wait_until(lambda: two.first.dead.is_set() or not two.row("SELECT 1 FROM blocks WHERE state = 'condemned'"))
    two.row("UPDATE blocks SET condemned_s = condemned_s - 130 WHERE state = 'deleting'")  # two minutes later
    wait_until(lambda: not two.row("SELECT 1 FROM blocks WHERE state = 'deleting'"))
    return two.first.dead.is_set()


def killed(two, act, label, number, how):
    """Whether it was; what must hold then, holds, and both run again."""
    was = act(two, label, number, how)
    two.all_is_well()
    if was:
        two.first.start()
        two.first.await_start()
    return was


def test_one_that_dies_while_it_releases_is_completed_by_the_other_and_of_both_one_re_signs(two):
    two.build("kept")
    two.publish(two.first, "kept")
    assert killed(two, release, "2", 3, UNANSWERED)
    before = two.version_of("snapshot")
    two.days_pass(2 * DAY_S)
    for server in (two.first, two.second):
        server.more_rounds()
    assert two.version_of("snapshot") == before + 1
    two.all_is_well()


@pytest.mark.long
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("act", "least"), [(upload, 7), (release, 5), (resign, 2), (collecting, 5)])
def test_whichever_step_it_is_killed_at_the_other_one_goes_on_with_it(two, act, least, how):
    two.build("kept")
    two.publish(two.second, "kept")
    number = 0
    while killed(two, act, f"{number}.{how}", number, how):
        number += 1
    assert number >= least
    two.nothing_is_left_over()
