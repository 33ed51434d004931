"""A mirror that fetches on demand: verifies before it answers, asks once, works without its source, and keeps a quota."""

import asyncio
import contextlib
import dataclasses
import errno
import os
import random
import threading

import httpx
import pytest
from support.fault_server import FaultServer, flip_bit, replace, stall, status

from oscirc_blockstore.accelerators import listing_path
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.errors import TransportError, UsageError
from oscirc_blockstore.manifest import manifest_path
from oscirc_server.mirroring import pull_through, serving
from oscirc_server.mirroring.on_demand import OnDemand
from oscirc_server.mirroring.pull_through import PullThrough
from oscirc_server.mirroring.quota import TreeQuota
from oscirc_server.settings import Listen

from .conftest import BLOCKS, disk


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@contextlib.contextmanager
def serving_mirror(directory, **options):
    """The real server in a thread; gives its base URL."""
    ready, stop, found, failed = threading.Event(), threading.Event(), [], []

    def run():
        try:
            serving.serve(
                directory,
                Listen.parse("127.0.0.1:0"),
                lambda url: (found.append(url), ready.set()),
                stop=stop,
                **options,
            )
        except BaseException as error:  # noqa: BLE001
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        if failed:
            raise failed[0]
        yield found[0]
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


class Asked:
    """The application, asked in process; its clock is scripted."""

    def __init__(self, directory, limit=None, **options):
        self.clock = Clock()
        self.quota = TreeQuota(directory, limit)
        self.on_demand = OnDemand(directory, self.quota)
        self.application = PullThrough(self.on_demand, self.quota, clock=self.clock, **options)

    async def get(self, *paths, **headers):
        transport = httpx.ASGITransport(app=self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://mirror", headers=headers) as client:
            answers = await asyncio.gather(
                *(client.get(path if path.startswith("/") else f"/{path}") for path in paths)
            )
        return answers[0] if len(paths) == 1 else answers

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.application.close()


def asking(check):
    """A test in a coroutine."""

    def run(world):
        asyncio.run(check(world))

    return run


def paths(world, prefix):
    return [path for path in world.repository.files if path.startswith(prefix)]


def test_a_workstation_reads_through_an_empty_mirror_and_then_without_its_source(world):
    world.publish()
    with serving_mirror(world.mirror()) as url:
        assert world.read_whole(url, "home:alice/debian") == BLOCKS
        world.server.close()
        assert world.read_whole(url, "home:alice/debian") == BLOCKS
    with serving_mirror(world.mirror()) as url:  # begun anew without a network
        assert world.read_whole(url, "home:alice/debian") == BLOCKS


def test_a_mirror_on_demand_behind_another_one(world):
    world.publish()
    with serving_mirror(world.mirror("near")) as near:
        line = world.repository.line(near)
        with serving_mirror(world.mirror("nearer", line=line)) as nearer:
            assert world.read_whole(nearer, "home:alice/debian") == BLOCKS


def test_what_a_sync_left_out_comes_on_demand(world):
    world.publish()
    world.publish("bob", "arch", content=disk("bob"))
    mirror = world.mirror()
    world.sync(mirror, ["alice"])
    world.server.forget()
    with serving_mirror(mirror) as url:
        assert world.read_whole(url, "home:alice/debian") == BLOCKS
        assert world.server.count("blocks/*") == 0
        assert world.read_whole(url, "home:bob/arch") == BLOCKS
        assert world.server.count("blocks/*") >= BLOCKS


@asking
async def test_an_object_is_fetched_once_however_many_ask(world):
    world.publish()
    path = paths(world, "blocks/")[0]
    async with Asked(world.mirror()) as asked:
        world.server.inject(path, stall(), times=1)
        task = asyncio.create_task(asked.get(*[path] * 20))
        await asyncio.to_thread(world.server.wait_until_asked, path)
        world.server.release()
        answers = await task
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.content for answer in answers} == {world.repository.files[path]}
        assert world.server.count(path) <= 2  # the stalled one may have been asked for once more
        world.server.forget()
        answer = await asked.get(path)
        assert world.server.count() == 0
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"] == "application/zstd"


@asking
async def test_a_wrong_block_is_never_passed_on_nor_kept(world):
    world.publish()
    path = paths(world, "blocks/")[0]
    mirror = world.mirror()
    async with Asked(mirror) as asked:
        world.server.inject(path, flip_bit())
        answer = await asked.get(path)
        assert answer.status_code == 404
        assert answer.headers["cache-control"] == "no-store"
        assert path not in world.tree(mirror)
        world.server.heal()
        asked.clock.now += 10
        assert (await asked.get(path)).content == world.repository.files[path]


@asking
async def test_a_frame_of_another_block_is_no_answer(world):
    world.publish()
    one, two = paths(world, "blocks/")[:2]
    async with Asked(world.mirror()) as asked:
        world.server.inject(one, replace(world.repository.files[two]))
        assert (await asked.get(one)).status_code == 404


@pytest.mark.parametrize("prefix", ["manifests/", "targets/alice/", "roots/"])
def test_a_document_that_is_not_what_its_name_says_is_refused(world, prefix):
    world.publish()
    path = paths(world, prefix)[0]

    async def check():
        mirror = world.mirror()
        async with Asked(mirror) as asked:
            world.server.inject(path, flip_bit(20))
            assert (await asked.get(path)).status_code == 404
            assert path not in world.tree(mirror)
            world.server.heal()
            asked.clock.now += 10
            assert (await asked.get(path)).content == world.repository.files[path]

    asyncio.run(check())


@asking
async def test_metadata_is_refreshed_by_its_age_and_verified(world):
    world.publish()
    async with Asked(world.mirror()) as asked:
        first = (await asked.get("metadata/timestamp.json")).content
        world.publish(version="2", content=disk("2"))
        second = world.repository.files["metadata/timestamp.json"]
        asked.clock.now += 59
        assert (await asked.get("metadata/timestamp.json")).content == first
        asked.clock.now += 2
        assert (await asked.get("metadata/timestamp.json")).content == second
        snapshot = f"metadata/{world.repository.snapshot.version}.snapshot.json"
        role = f"metadata/{world.repository.roles['alice'].version}.alice.json"
        for path in (snapshot, role):
            assert (await asked.get(path)).content == world.repository.files[path]
        assert (await asked.get("metadata/1.alice.json")).status_code == 404  # replaced since


@asking
async def test_a_source_that_rolls_back_or_forges_changes_nothing(world):
    world.publish()
    old = dict(world.repository.files)
    world.publish(version="2", content=disk("2"))
    newest = world.repository.files["metadata/timestamp.json"]
    mirror = world.mirror()
    async with Asked(mirror) as asked:
        assert (await asked.get("metadata/timestamp.json")).content == newest
        for files in (old, {**world.repository.files, "metadata/timestamp.json": b"{}"}):
            world.server.serve(files)
            asked.clock.now += 100
            assert (await asked.get("metadata/timestamp.json")).content == newest


@asking
async def test_a_role_that_the_snapshot_does_not_mean_is_refused(world):
    world.publish()
    role = f"metadata/{world.repository.roles['alice'].version}.alice.json"
    async with Asked(world.mirror()) as asked:
        await asked.get("metadata/timestamp.json")
        world.server.inject(role, flip_bit(300))
        assert (await asked.get(role)).status_code == 404


@asking
async def test_roots_come_with_the_metadata_and_the_next_one_does_not_exist(world):
    world.publish()
    for _ in range(2):
        world.repository.rotate("snapshot")
        world.repository.release()
    async with Asked(world.mirror()) as asked:
        for version in (1, 2, 3):
            path = f"metadata/{version}.root.json"
            assert (await asked.get(path)).content == world.repository.files[path]
        world.server.forget()
        assert (await asked.get("metadata/4.root.json")).status_code == 404
        assert world.server.count() == 0  # known from the refresh a moment ago


@asking
async def test_versions_that_begin_anew_under_new_online_keys_are_served(world):
    """After a stolen timestamp key jumped ahead, only new keys and low numbers recover readers: and this mirror."""
    world.publish()
    world.repository.timestamp.version = 5000
    world.repository.write_timestamp()
    async with Asked(world.mirror()) as asked:
        await asked.get("metadata/timestamp.json")
        world.repository.rotate("timestamp")
        world.repository.rotate("snapshot")
        world.repository.timestamp.version = 50
        world.repository.release()
        asked.clock.now += 100
        answer = await asked.get("metadata/timestamp.json")
        assert answer.json()["signed"]["version"] == 51


def test_without_its_source_it_answers_what_it_has_and_503_else(world, monkeypatch):
    asyncio.run(_without_its_source(world, monkeypatch))


async def _without_its_source(world, monkeypatch):
    world.publish()
    path, other = paths(world, "blocks/")[:2]
    async with Asked(world.mirror()) as asked:
        await asked.get("metadata/timestamp.json", path)
        monkeypatch.setattr("oscirc_server.mirroring.on_demand.BLOCK_S", 0.2)
        world.server.close()
        asked.clock.now += 100
        assert (await asked.get("metadata/timestamp.json")).status_code == 200
        assert (await asked.get(path)).status_code == 200
        asked.clock.now += 100
        missing = await asked.get(other)
        assert missing.status_code == 503
        assert "retry-after" in missing.headers


def test_while_its_source_is_away_one_request_tries_and_the_others_fail_at_once(world, monkeypatch):
    monkeypatch.setattr("oscirc_server.mirroring.on_demand.BLOCK_S", 0.2)
    world.publish()
    one, two, three = paths(world, "blocks/")[:3]

    async def check():
        async with Asked(world.mirror()) as asked:
            world.server.inject("blocks/*", status(503))
            assert (await asked.get(one)).status_code == 503
            world.server.forget()
            assert (await asked.get(two)).status_code == 503
            assert world.server.count() == 0
            asked.clock.now += 3
            answers = await asked.get(one, two, three)
            assert {answer.status_code for answer in answers} == {503}
            assert [bool(world.server.count(path)) for path in (one, two, three)] == [True, False, False]
            world.server.heal()
            monkeypatch.undo()
            asked.clock.now += 3
            assert (await asked.get(two)).status_code == 200
            assert {answer.status_code for answer in await asked.get(one, three)} == {200}

    asyncio.run(check())


@asking
async def test_a_complaint_has_the_stored_block_looked_at(world):
    world.publish()
    path = paths(world, "blocks/")[0]
    mirror = world.mirror()
    async with Asked(mirror) as asked:
        good = (await asked.get(path)).content
        (mirror.tree / path).write_bytes(b"rotten")
        assert (await asked.get(path)).content == b"rotten"
        digest = path.rpartition("/")[2].removesuffix(".zst")
        assert (await asked.get(f"{path}?bad={digest}")).content == good
        world.server.forget()
        assert (await asked.get(f"{path}?bad={digest}")).content == good
        assert world.server.count() == 0  # a complaint about what is sound costs nobody anything


@asking
async def test_what_the_source_lacks_is_404_and_not_asked_for_again_at_once(world):
    world.publish()
    path = block_path(digest_of(b"nothing"))
    async with Asked(world.mirror()) as asked:
        assert (await asked.get(path)).status_code == 404
        assert (await asked.get(path)).status_code == 404
        assert world.server.count(path) == 1
        asked.clock.now += 6
        await asked.get(path)
        assert world.server.count(path) == 2


@asking
async def test_what_is_no_path_of_the_tree_reaches_no_source(world):
    world.publish()
    async with Asked(world.mirror()) as asked:
        for path in ("api/v1/images", "..%2f..%2fetc/passwd", "blocks/x", "metadata/%2e%2e", "accel/nothing"):
            assert (await asked.get(path)).status_code == 404
        assert world.server.count("*api*") == 0
        assert (await asked.get("/")).json()["mirror_of"] == world.line


@asking
async def test_a_small_accelerator_comes_whole_and_is_served_by_ranges(world):
    digest = world.publish()
    (profile,) = world.accelerate("alice", "debian", digest).accelerators
    async with Asked(world.mirror()) as asked:
        assert (await asked.get(profile.path)).status_code == 404  # nobody has listed it here
        asked.clock.now += 10
        assert (await asked.get(listing_path(digest))).content == world.repository.files[listing_path(digest)]
        answer = await asked.get(profile.path, Range="bytes=2-11")
        assert (answer.status_code, answer.content) == (206, world.repository.files[profile.path][2:12])
        assert world.server.count(profile.path) == 1


def test_a_large_accelerator_is_not_waited_for_and_served_by_ranges_once_it_is_here(world, monkeypatch):
    monkeypatch.setattr(pull_through, "SMALL_BYTES", 1000)
    monkeypatch.setattr(pull_through, "_LARGE_PATIENCE_S", 0.05)
    digest = world.publish()
    pack = random.Random(1).randbytes(100_000)
    listed = world.accelerate("alice", "debian", digest, ("delta", "from-x", pack)).accelerators[1]

    async def check():
        async with Asked(world.mirror()) as asked:
            await asked.get("accel/hints/alice/debian.json")
            world.server.inject(listed.path, stall(50_000), times=1)
            assert (await asked.get(listed.path, Range="bytes=0-99")).status_code == 404
            world.server.release()
            flight = asked.application._under_way[listed.path]
            await flight
            answer = await asked.get(listed.path, Range="bytes=50000-50099")
            assert (answer.status_code, answer.content) == (206, pack[50_000:50_100])
            assert world.server.count(listed.path) == 1

    asyncio.run(check())


@asking
async def test_a_wrong_accelerator_is_never_passed_on(world):
    digest = world.publish()
    (profile,) = world.accelerate("alice", "debian", digest).accelerators
    mirror = world.mirror()
    async with Asked(mirror) as asked:
        await asked.get(listing_path(digest))
        world.server.inject(profile.path, flip_bit())
        assert (await asked.get(profile.path)).status_code == 404
        assert profile.path not in world.tree(mirror)
        assert list((mirror.root / "tmp").iterdir()) == []


@asking
async def test_an_accelerator_longer_than_one_can_be_is_not_even_asked_for(world):
    digest = world.publish()
    listing = world.accelerate("alice", "debian", digest)
    huge = dataclasses.replace(listing.accelerators[0], length=1 << 39)
    world.repository.files[listing_path(digest)] = dataclasses.replace(listing, accelerators=(huge,)).serialise()
    async with Asked(world.mirror()) as asked:
        await asked.get(listing_path(digest))
        assert (await asked.get(huge.path)).status_code == 404
        assert world.server.count(huge.path) == 0


@asking
async def test_a_listing_of_another_disk_is_refused_and_an_old_one_better_than_none(world):
    digest = world.publish()
    other = world.publish("bob", "arch")
    world.accelerate("alice", "debian", digest)
    world.accelerate("bob", "arch", other)
    good = world.repository.files[listing_path(digest)]
    async with Asked(world.mirror()) as asked:
        world.server.inject(listing_path(digest), replace(world.repository.files[listing_path(other)]))
        assert (await asked.get(listing_path(digest))).status_code == 404
        world.server.heal()
        asked.clock.now += 100
        assert (await asked.get(listing_path(digest))).content == good
        world.server.inject(listing_path(digest), status(500))
        asked.clock.now += 100
        assert (await asked.get(listing_path(digest))).content == good


def test_without_room_verified_bytes_are_passed_on_all_the_same(world, monkeypatch):
    world.publish()
    path = paths(world, "blocks/")[0]
    manifest = manifest_path(world.manifests["alice/debian@1"])
    mirror = world.mirror()
    real = os.write

    def write(descriptor, raw):
        from pathlib import Path

        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(mirror.root / "tmp"):
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, raw)

    async def check():
        async with Asked(mirror) as asked:
            monkeypatch.setattr(os, "write", write)
            for wanted in (path, manifest):
                assert (await asked.get(wanted)).content == world.repository.files[wanted]
            world.server.inject(path, flip_bit())
            assert (await asked.get(path)).status_code == 404  # and what is wrong is not

    asyncio.run(check())
    monkeypatch.undo()
    assert path not in world.tree(mirror)


def test_a_quota_keeps_what_was_used_last(world):
    world.publish()
    blocks = paths(world, "blocks/")[:BLOCKS]
    size = len(world.repository.files[blocks[0]])
    mirror = world.mirror()

    async def check():
        async with Asked(mirror, limit=10 * size) as asked:
            for path in blocks[:9]:
                await asked.get(path)
            for age, path in enumerate(blocks[:9]):
                os.utime(mirror.tree / path, (10_000 + age, 10_000 + age))
            await asked.get(blocks[0])  # used now
            assert (mirror.tree / blocks[0]).stat().st_mtime == 10_000  # by which readers compare
            for path in blocks[9:12]:
                assert (await asked.get(path)).content == world.repository.files[path]
            here = {path for path in world.tree(mirror) if path.startswith("blocks/")}
            assert blocks[0] in here
            assert not {blocks[1], blocks[2]} & here
            assert asked.quota.stored_bytes <= 10 * size

    asyncio.run(check())


def test_a_quota_is_refused_where_a_sync_made_whole_versions(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    with pytest.raises(UsageError, match="quota"), serving_mirror(mirror, quota_bytes=1000):
        pass


def test_a_mirror_that_lies_is_told_from_one_that_lacks(world):
    """What a reader sees of a bad source behind a mirror is an absent block: it asks the next, and blames nobody."""
    world.publish()
    world.server.inject("blocks/*", flip_bit())
    with serving_mirror(world.mirror()) as url, FaultServer(dict(world.repository.files)) as honest:
        from oscirc_remote.opening import open_source

        manifest = next(iter(world.repository.manifests.values()))
        source = open_source([url, honest.url], world.directory / "cache")
        from oscirc_remote.pull import pull

        assert pull(manifest, source, patience_s=20).positions == BLOCKS
        mirror, _ = source.mirror_status()
        assert (mirror.bad_blocks, mirror.lied) == (0, False)
        source.close()


def test_stopping_ends_what_is_under_way(world):
    world.publish()
    path = paths(world, "blocks/")[0]
    world.server.inject(path, stall())
    with serving_mirror(world.mirror()) as url:
        answers = []

        def ask():
            with contextlib.suppress(httpx.HTTPError):
                answers.append(httpx.get(f"{url}/{path}", timeout=30))

        asker = threading.Thread(target=ask)
        asker.start()
        world.server.wait_until_asked(path)
    asker.join(30)
    assert not asker.is_alive()
    assert all(answer.status_code == 503 for answer in answers)


def test_no_network_at_the_first_start_is_an_error_of_the_network(world):
    world.server.close()
    with pytest.raises(TransportError):
        world.mirror()


def test_what_is_stored_while_files_are_counted_stays_counted(world, monkeypatch):
    directory = world.mirror()
    quota = TreeQuota(directory, 1 << 30)
    files = quota._files

    def counting():
        yield from files()
        quota.added(1000)

    monkeypatch.setattr(quota, "_files", counting)
    before = quota.stored_bytes
    quota.evict()
    assert quota.stored_bytes == before + 1000
