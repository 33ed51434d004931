"""Whatever publishers, the clock and crashes do: nothing that a version needs is lost, nothing unneeded stays for ever.

A machine of publishing, yanking, deleting, leasing, waiting and collecting on a real database and directory. Each step
may be ended by a crash (or by a power cut, which takes what was not synced) at any crossing of the storage's or the
database's seam, and a collection may be overtaken there by a whole publication. After each step every version that
clients can know of is whole; at the end, after quiet collections, store and database hold just what is needed.
`OSCIRC_LIFECYCLE_RUNS` sets how many runs the long test makes (a sixteenth of them on PostgreSQL and a bucket).
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import func, select

from oscirc_blockstore.image_index import Yank
from oscirc_server import reconciling, repository
from oscirc_server.collection.collecting import collect
from oscirc_server.errors import BlocksBeingDeletedError, ConflictError, MissingBlocksError
from oscirc_server.models import DRAFT_OPEN, Draft, Lease, ManifestRow
from oscirc_server.services import drafts, lengths

from .lifecycle_world import POOL, Crash, Faults, Server
from .server_world import DAY_S

TOLD_AFTER_S = 30 * DAY_S
TOLD_S = 7 * DAY_S + TOLD_AFTER_S
RUNS = int(os.environ.get("OSCIRC_LIFECYCLE_RUNS", "400"))
CONTENTS = st.lists(st.integers(0, POOL - 1), min_size=1, max_size=3).map(tuple)
CRASHES = st.one_of(st.none(), st.integers(0, 40))
DATE = "2027-02-01T00:00:00Z"


class Machine(RuleBasedStateMachine):
    """`template` is set by the test that runs it."""

    template = None

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="oscirc-lifecycle-"))
        self.boot_id = self.directory / "boot_id"
        self.boot_id.write_text("boot 0")
        self.before = reconciling._BOOT_ID_PATH
        reconciling._BOOT_ID_PATH = self.boot_id
        self.server = Server(self.template, self.directory / "world")
        self.labels = 0
        self.open = {}  # draft -> (label, contents)
        self.offered = {}  # label -> contents, of whatever was tried
        self.released = {}  # label -> contents
        self.named_until = {}  # label -> when the newest snapshot that led to it expires, or expired
        self.gone = set()  # labels whose deletion is in force
        self.power_cut = None

    def teardown(self):
        try:
            self.end_quietly()
        finally:
            self.server.faults.dead = False
            self.server.stop()
            self.server.world.place.close()
            reconciling._BOOT_ID_PATH = self.before
            shutil.rmtree(self.directory, ignore_errors=True)

    def attempt(self, crash, act):
        """Do it, unless the process ends in between; then start again and see what took force."""
        self.server.faults = Faults(crash_after=crash)
        try:
            act()
        except Crash:
            if self.power_cut is None:
                self.server.kill()
            else:
                self.server.cut_power(self.power_cut, self.boot_id)
        except (ConflictError, MissingBlocksError):
            self.server.learn()  # refused, in words that a publisher acts on: it begins again
        finally:
            self.server.faults = Faults()
        self.look()

    def look(self):
        """What is in force now."""
        index = self.server.index()
        expires_s = self.server.snapshot_expires_s()
        for version in index.versions:
            self.released.setdefault(version.label, self.offered[version.label])
            self.named_until[version.label] = expires_s
        self.gone.update(gone.label for gone in index.deleted)

    def new_label(self):
        self.labels += 1
        return str(self.labels)

    @rule(contents=CONTENTS, crash=CRASHES)
    def publish(self, contents, crash):
        label = self.new_label()
        self.offered[label] = contents
        self.attempt(crash, lambda: self.server.publish(label, contents))

    @rule(contents=CONTENTS, share=st.integers(0, 4), crash=CRASHES)
    def begin(self, contents, share, crash):
        """A draft that asks about all its blocks and sends some."""
        label = self.new_label()
        self.offered[label] = contents

        def act():
            disk = self.server.disk(contents)
            draft = self.server.open(label)
            self.open[draft] = (label, contents)
            self.server.upload(draft, self.server.negotiate(draft, disk)[:share])

        self.attempt(crash, act)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), asks=st.booleans(), crash=CRASHES)
    def finish(self, data, asks, crash):
        """A draft is taken up again, perhaps long after; `asks`: or sends everything without asking."""
        draft = data.draw(st.sampled_from(sorted(self.open)))
        label, contents = self.open.pop(draft)

        def act():
            disk = self.server.disk(contents)
            again = self.server.open(label)  # another one, where the first has expired
            records = self.server.negotiate(again, disk) if asks else list(disk.records)
            self.server.upload(again, records)
            self.server.release(again, label, disk)

        self.attempt(crash, act)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), crash=CRASHES)
    def discard(self, data, crash):
        draft = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[draft]

        def act():
            if any(draft == known for known in self.drafts()):
                drafts.discard(self.server.installation, draft, actor="local")

        self.attempt(crash, act)

    def drafts(self):
        with self.server.installation.database.read() as session:
            return list(session.scalars(select(Draft.id).where(Draft.state == DRAFT_OPEN)))

    @precondition(lambda self: self.server.index().versions)
    @rule(data=st.data(), crash=CRASHES)
    def yank_or_restore(self, data, crash):
        index = self.server.index()
        version = data.draw(st.sampled_from(index.versions))
        yank = Yank("bad", DATE) if version.yanked is None else None
        self.attempt(crash, lambda: self.server.sign(index.with_yank(version.label, yank)))

    @precondition(lambda self: len(self.server.index().versions) > 1)
    @rule(data=st.data(), crash=CRASHES)
    def delete(self, data, crash):
        index = self.server.index()
        free = [version.label for version in index.versions if version.label not in index.channels.values()]
        labels = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=2, unique=True))
        self.attempt(crash, lambda: self.server.sign(index.without_versions(labels, date=DATE)))

    @rule(seconds=st.sampled_from([1, 60, DAY_S // 2, DAY_S, 3 * DAY_S, 8 * DAY_S, 31 * DAY_S]))
    def wait(self, seconds):
        self.server.clock.advance(seconds)

    @rule(crash=CRASHES)
    def renew(self, crash):
        self.attempt(crash, lambda: repository.renew_online(self.server.installation))

    @rule(crash=st.one_of(st.none(), st.integers(0, 400)))
    def collect(self, crash):
        self.attempt(crash, lambda: collect(self.server.installation))

    @rule(contents=CONTENTS, at=st.integers(0, 60), seconds=st.sampled_from([60, DAY_S, 8 * DAY_S]))
    def collect_overtaken(self, contents, at, seconds):
        """A publication happens, as a whole, between two steps of a collection."""
        label = self.new_label()
        self.offered[label] = contents
        self.server.clock.advance(seconds)

        def overtake():
            try:
                self.server.publish(label, contents)
            except (BlocksBeingDeletedError, ConflictError, MissingBlocksError):
                self.server.learn()

        self.server.faults = Faults(overtake_at=at, overtaker=overtake)
        try:
            collect(self.server.installation)
        finally:
            self.server.faults = Faults()
        self.look()

    @rule(crash=st.integers(0, 30), contents=CONTENTS, keep=st.randoms(use_true_random=False))
    def lose_power(self, crash, contents, keep):
        self.power_cut = lambda paths: [path for path in paths if keep.random() < 0.5]
        try:
            self.publish(contents, crash)
        finally:
            self.power_cut = None

    @invariant()
    def whatever_clients_can_know_of_is_whole(self):
        index = self.server.index()
        for version in index.versions:
            self.server.assert_whole(self.server.disk(self.released[version.label]))
        for label in self.gone:  # whoever was told of one knew when that expires
            if self.server.clock() < self.named_until[label] + TOLD_AFTER_S:
                self.server.assert_whole(self.server.disk(self.released[label]))

    def end_quietly(self):
        server = self.server
        for _ in range(4):
            server.clock.advance(TOLD_S + DAY_S)
            repository.renew_online(server.installation)
            report = collect(server.installation)
            assert report.lost == []
        self.whatever_clients_can_know_of_is_whole()
        needed = set()
        for version in server.index().versions:
            needed |= {record.digest for record in server.disk(self.released[version.label]).records}
        assert server.block_files() == needed
        assert server.block_rows() == needed
        with server.installation.database.read() as session:
            assert session.scalar(select(func.count()).select_from(Lease)) == 0
            kept = set(session.scalars(select(ManifestRow.digest)))
        assert kept == {version.manifest for version in server.index().versions}
        files = {path.name.removesuffix(".json") for path in server.world.tree.glob("manifests/*")}
        assert files == {digest.hex() for digest in kept}


def run(template, monkeypatch, examples, steps):
    monkeypatch.setattr(lengths, "make", lambda _installation, _manifest: True)

    class WithTemplate(Machine):
        pass

    WithTemplate.template = template
    run_state_machine_as_test(
        WithTemplate,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=set(Phase) - {Phase.explain},  # it traces every line of every run
        ),
    )


def test_nothing_needed_is_lost_and_nothing_unneeded_stays(template, monkeypatch):
    run(template, monkeypatch, examples=5, steps=12)


@pytest.mark.long
def test_nothing_needed_is_lost_and_nothing_unneeded_stays_in_many_runs(template, monkeypatch):
    quick = template[0].place.database_url is None
    run(template, monkeypatch, examples=RUNS if quick else max(1, RUNS // 16), steps=30)
