"""Jobs done by real processes: their limits, what becomes of them when they are killed, and of what they made."""

import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from sqlalchemy import update

from oscirc_blockstore import accelerators as documents
from oscirc_blockstore import bundle, delta, delta_making
from oscirc_blockstore.accelerators import BUNDLE, DELTA, PROFILE
from oscirc_blockstore.bundle_making import built_bundle
from oscirc_blockstore.delta_making import Version, made_pack
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.profile import Profile
from oscirc_server import job_worker, repository
from oscirc_server.collection.collecting import collect
from oscirc_server.job_process import Order
from oscirc_server.job_worker import JobWorkers
from oscirc_server.models import JobRow
from oscirc_server.services import fleet, job_plans, jobs
from oscirc_server.services.jobs import DELTA_JOB, Wanted
from oscirc_server.settings import JobSettings
from oscirc_server.stored_blocks import StoredBlocks

from .server_world import DAY_S, block

pytestmark = pytest.mark.usefixtures("no_block_lengths")

VERSIONS = "images/alice/debian/versions"


def piece(number, change=""):
    """A block of which an update changes one page."""
    return block(f"block {number}")[:-4096] + block(change or f"end {number}")[:4096]


@pytest.fixture
def published(api, alice):
    """debian 1.0 and 2.0, which differ in a few blocks; `stable` is 2.0."""
    old = alice.build("debian", [piece(number) for number in range(12)])
    new = alice.build("debian", [piece(number, "new" * (number > 8)) for number in range(12)])
    assert api.publish(alice, "debian", "1.0", old).status_code == 200
    assert api.publish(alice, "debian", "2.0", new).status_code == 200
    return old, new


@pytest.fixture
def working(installation):
    """Does what waits, in this thread; gives the newest jobs as they stand then, by kind and argument."""

    def work(**limits):
        installation.settings = replace(installation.settings, jobs=JobSettings(at_once=1, **limits))
        workers = JobWorkers(installation)
        while workers._next("worker"):
            pass
        workers.stop()
        with installation.database.read() as session:
            return {(each.wanted.kind, each.wanted.argument): each for each in reversed(jobs.page(session).jobs)}

    return work


@pytest.fixture
def listed(world):
    def find(disk, kind, name):
        try:
            raw = (world.tree / documents.listing_path(disk.digest)).read_bytes()
        except FileNotFoundError:  # also while the S3 server replaces it, which takes the old one away first
            return None
        return documents.parse_listing(raw).find(kind, name)

    return find


def pack_here(installation, old, new):
    """The pack as `oscirc delta make` makes it, which asks the repository's list of what blocks cost."""

    def stored_length(digest):
        frame = installation.storage.get(block_path(digest), 1 << 20)
        return None if frame is None else len(frame)

    with made_pack(
        Version(old.digest, old.manifest),
        Version(new.digest, new.manifest),
        StoredBlocks(installation.storage).load,
        delta_making.stated_whole_length(stored_length),
    ) as made:
        return made.file.read()


def test_a_release_gets_the_pack_that_nobody_sent_and_it_is_the_publishers_own(
    world, installation, published, working, listed
):
    done = working()
    assert {key: job.state for key, job in done.items()} == {("delta", "1.0"): "done"}
    found = listed(published[1], DELTA, delta.name_for(published[0].digest))
    assert (world.tree / found.path).read_bytes() == pack_here(installation, *published)
    result = done["delta", "1.0"].result
    assert (result["sha256"], result["length"], result["blocks"]) == (found.sha256.hex(), found.length, 3)
    assert not any((world.data / "scratch").iterdir())


def test_a_profile_without_a_bundle_gets_the_bundle_that_its_publisher_would_have_made(
    world, api, installation, published, working, listed
):
    recorded = Profile(published[1].digest, "boot", 1, (5, 3, 11, 3 + 1))
    raw = recorded.serialise()
    sha256 = digest_of(raw).hex()
    put = api.call("PUT", f"{VERSIONS}/2.0/accelerators/{PROFILE}/boot", params={"sha256": sha256}, content=raw)
    assert put.status_code == 200, put.text
    assert working()["bundle", "boot"].state == "done"
    blocks = StoredBlocks(installation.storage)
    with built_bundle(recorded, published[1].manifest, lambda digest, size, _: blocks.load(digest, size)) as built:
        assert (world.tree / listed(published[1], BUNDLE, "boot").path).read_bytes() == built.file.read()
    assert working()["bundle", "boot"].attempts == 1


def test_packs_between_any_two_versions_are_made_on_request_and_once(api, published, working, listed):
    asked = api.call("POST", f"{VERSIONS}/2.0/deltas/1.0")
    assert asked.status_code == 202, asked.text
    assert api.call("POST", f"{VERSIONS}/2.0/deltas/1.0").json()["job"]["id"] == asked.json()["job"]["id"]
    working()
    found = listed(published[0], DELTA, delta.name_for(published[1].digest))
    again = api.call("POST", f"{VERSIONS}/2.0/deltas/1.0")
    assert (again.status_code, again.json()) == (200, {"job": None, "sha256": found.sha256.hex()})


def test_a_process_that_is_killed_is_started_again_and_not_for_ever(installation, published, working, monkeypatch):
    started = []

    def killed(process, line):
        started.append(process)
        process.kill()

    monkeypatch.setattr(job_worker, "_tell", killed)
    monkeypatch.setattr(jobs, "RETRY_S", 0)
    job = working()["delta", "1.0"]
    assert (job.state, job.attempts, len(started)) == ("failed", jobs.MAX_ATTEMPTS, jobs.MAX_ATTEMPTS)
    assert "-9" in job.error
    assert all(process.poll() == -signal.SIGKILL for process in started)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"scratch_bytes": 400}, "a longer file"),
        ({"time_s": -1.0}, "longer than"),
    ],
)
def test_a_job_that_wants_more_than_it_may_have_fails_and_says_so(
    world, published, working, listed, limits, says, monkeypatch
):
    monkeypatch.setattr(job_worker, "RENEW_S", 0.05)
    job = working(**limits)["delta", "1.0"]
    assert (job.state, job.attempts) == ("failed", 1), job.error
    assert says in job.error
    assert listed(published[1], DELTA, delta.name_for(published[0].digest)) is None
    assert not any((world.data / "scratch").iterdir())


def test_a_job_that_wants_more_memory_than_it_may_have_takes_only_its_process_with_it(published, working, monkeypatch):
    monkeypatch.setattr(jobs, "RETRY_S", 0)
    job = working(memory_bytes=48 << 20)["delta", "1.0"]
    assert job.state == "failed"


def test_without_numpy_it_is_said_what_is_missing_and_where(published, working, monkeypatch, tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('no numpy')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = working()["delta", "1.0"]
    assert (job.state, job.attempts) == ("failed", 1)
    assert "numpy" in job.error
    assert "oscirc[delta]" in job.error


def test_a_damaged_block_in_the_store_fails_the_job_and_lists_nothing(world, published, working, listed):
    changed = published[1].blocks[-1].digest.hex()
    path = world.tree / "blocks" / "sha256" / changed[:2] / f"{changed}.zst"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert working()["delta", "1.0"].state == "failed"
    assert listed(published[1], DELTA, delta.name_for(published[0].digest)) is None


@pytest.fixture
def share(installation, published, world):
    """Networks share boots of 2.0 of these positions, and an hour later the fleet's profile is written of them."""

    def sharing(*positions, networks=job_plans.LEAST_NETWORKS):
        raw = Profile(published[1].digest, "boot", 1, positions).serialise()
        for number in range(networks + 1):
            if number == networks:
                world.clock.advance(fleet.REWRITE_S)
            sender = f"network {number % networks}".encode().ljust(16)
            fleet.add_run(installation, ("alice", "debian", "2.0"), "boot", raw, sender)

    return sharing


def bundled(world, listed, disk):
    """The positions whose blocks the fleet's bundle holds, and its file."""
    found = listed(disk, BUNDLE, "fleet-boot")
    if found is None:
        return None
    raw = (world.tree / found.path).read_bytes()
    index = bundle.parse_index(raw[: found.index_length])
    places = {record.digest: number for number, record in enumerate(disk.blocks)}
    return [places[e.digest] for part in index.segments for e in part.entries if e.digest in places]


def test_what_a_fleet_shares_becomes_a_bundle_and_again_when_it_changed_enough(
    world, published, working, listed, share
):
    first = list(range(10))
    share(*first)
    assert working()["bundle", "fleet-boot"].state == "done"
    assert bundled(world, listed, published[1]) == first
    before = listed(published[1], BUNDLE, "fleet-boot")
    share(*first[:9], 10)
    working()
    assert bundled(world, listed, published[1]) == [*first[:9], 10]
    share(*first[:9], 10, 11)
    jobs_of_it = working()["bundle", "fleet-boot"]
    assert "nothing" in jobs_of_it.result
    assert (world.tree / before.path).exists()  # somebody may be reading it


@pytest.mark.long
def test_a_fleets_file_is_gone_once_two_others_have_followed_it(world, published, working, listed, share):
    files = []
    for positions in ((0, 1, 2), (3, 4, 5), (6, 7, 8)):
        share(*positions)
        working()
        assert bundled(world, listed, published[1]) == list(positions)
        files.append(world.tree / listed(published[1], BUNDLE, "fleet-boot").path)
    assert [path.exists() for path in files] == [False, True, True]


def test_too_few_networks_make_no_bundle(world, published, working, listed, share):
    share(0, 1, 2, networks=job_plans.LEAST_NETWORKS - 1)
    assert ("bundle", "fleet-boot") not in working()
    assert bundled(world, listed, published[1]) is None


def test_a_fleet_that_knows_little_of_what_the_publisher_recorded_gets_no_bundle(
    world, api, published, working, listed, share
):
    raw = Profile(published[1].digest, "boot", 1, (0, 1, 2, 3)).serialise()
    sha256 = digest_of(raw).hex()
    put = api.call("PUT", f"{VERSIONS}/2.0/accelerators/{PROFILE}/boot", params={"sha256": sha256}, content=raw)
    assert put.status_code == 200
    share(3, 8, 9, 10, 11)
    refused = working()["bundle", "fleet-boot"]
    assert (refused.state, refused.result) == ("done", {"nothing": "it has 1 of the 4 blocks of the publisher's boot"})
    assert bundled(world, listed, published[1]) is None
    share(2, 3, 8, 9, 10)
    working()
    assert bundled(world, listed, published[1]) == [2, 3, 8, 9, 10]


def test_removing_a_fleets_profile_removes_the_bundle_made_of_it(world, api, published, working, listed, share):
    share(0, 1, 2)
    working()
    assert bundled(world, listed, published[1]) == [0, 1, 2]
    assert api.call("DELETE", f"{VERSIONS}/2.0/accelerators/{PROFILE}/fleet-boot").status_code == 204
    assert bundled(world, listed, published[1]) is None


def test_what_was_made_for_a_version_goes_with_it_and_what_was_asked_for_it_fails(
    world, api, alice, installation, published, working, listed
):
    api.call("POST", f"{VERSIONS}/2.0/deltas/1.0")
    working()
    path = world.tree / listed(published[0], DELTA, delta.name_for(published[1].digest)).path
    assert path.exists()
    index = alice.indexes["debian"].without_versions(["1.0"], date="2027-02-01T00:00:00Z")
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index})).status_code == 200
    with installation.database.write() as session:
        jobs.queue(session, Wanted(DELTA_JOB, "alice", "debian", "1.0", "2.0"), int(world.clock()), requested_by="late")
    assert (working()["delta", "2.0"].state, working()["delta", "2.0"].attempts) == ("failed", 1)
    world.clock.advance(40 * DAY_S)
    repository.resign_online(installation)
    assert collect(installation).manifests_retired == 1
    assert not path.exists()
    assert not (world.tree / documents.listing_path(published[0].digest)).exists()


@pytest.fixture
def hanging(monkeypatch):
    """Processes that are given no order wait for one; `hanging` is set once one waits."""
    waits = threading.Event()
    monkeypatch.setattr(job_worker, "_tell", lambda _process, _line: waits.set())
    return waits


@pytest.fixture
def started(installation):
    installation.settings = replace(installation.settings, jobs=JobSettings(at_once=1))
    workers = JobWorkers(installation, poll_s=0.01, renew_s=0.01)
    workers.start()
    yield workers
    if not workers._stop.is_set():
        workers.stop()


def of_kind(installation, kind):
    with installation.database.read() as session:
        return next(each for each in jobs.page(session).jobs if each.wanted.kind == kind)


def test_a_stop_puts_back_what_runs_and_the_next_worker_makes_it(
    installation, published, hanging, started, working, listed, monkeypatch
):
    assert hanging.wait(30)
    started.stop()
    job = of_kind(installation, DELTA_JOB)
    assert (job.state, job.attempts) == ("queued", 0)
    monkeypatch.undo()
    assert working()["delta", "1.0"].state == "done"
    assert listed(published[1], DELTA, delta.name_for(published[0].digest))


def test_a_cancelled_job_is_killed_and_lists_nothing(installation, published, hanging, started, listed):
    assert hanging.wait(30)
    scratch = installation.layout.scratch
    jobs.cancel(installation, of_kind(installation, DELTA_JOB).id, actor="root")
    deadline = threading.Event()
    while any(scratch.iterdir()):
        assert not deadline.wait(0.01)
    assert of_kind(installation, DELTA_JOB).state == "cancelled"
    assert listed(published[1], DELTA, delta.name_for(published[0].digest)) is None


def test_what_was_made_while_the_job_was_cancelled_is_not_listed(installation, published, working, listed, monkeypatch):
    keep = job_worker.made_files.keep

    def too_late(installation, job, *facts):
        jobs.cancel(installation, job.id, actor="root")
        return keep(installation, job, *facts)

    monkeypatch.setattr(job_worker.made_files, "keep", too_late)
    assert working()["delta", "1.0"].state == "cancelled"
    assert listed(published[1], DELTA, delta.name_for(published[0].digest)) is None


def test_a_process_ends_when_whoever_started_it_is_gone(world, published, tmp_path):
    order = Order(
        Wanted(DELTA_JOB, "alice", "debian", "2.0", "1.0"),
        str(world.data),
        world.settings.database_url,
        world.settings.blocks_url,
        str(tmp_path),
        threads=1,
        memory_bytes=2 << 30,
        file_bytes=1 << 30,
        niceness=0,
    )
    command = [sys.executable, "-m", "oscirc_server.job_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(order.line())
        process.stdin.close()
        said, code = process.stdout.read(), process.wait(60)
    assert (said, code) == (b"", 3) or json.loads(said)["kind"] == "delta"  # gone in time, or quicker than its end


def test_what_dead_workers_left_is_swept_and_what_runs_is_not(installation, published, hanging, started):
    assert hanging.wait(30)
    mine = of_kind(installation, DELTA_JOB)
    left = installation.layout.scratch / "999-left"
    left.mkdir()
    started._tidy()
    assert [place.name.partition("-")[0] for place in installation.layout.scratch.iterdir()] == [str(mine.id)]


def test_a_mistake_of_ours_ends_no_worker(installation, published, listed, monkeypatch, caplog):
    plan, failed = job_plans.plan, threading.Event()

    def mistaken(*names):
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError
        return plan(*names)

    monkeypatch.setattr(job_plans, "plan", mistaken)
    installation.settings = replace(installation.settings, jobs=JobSettings(at_once=1))
    workers = JobWorkers(installation, poll_s=0.01)
    workers.start()
    assert failed.wait(30)
    with installation.database.write() as session:  # its lease runs out
        session.execute(update(JobRow).values(lease_s=0))
    until = threading.Event()
    while listed(published[1], DELTA, delta.name_for(published[0].digest)) is None:
        assert not until.wait(0.05)
    workers.stop()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["a job was left"]
