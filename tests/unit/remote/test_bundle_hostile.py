"""Bundles that are well formed and lie: any entries, any frames, onto any cache. What must hold whatever they say.

Nothing comes into the cache that the signed table does not name; nothing that was there is lost; what is left for
single requests is of the image, too; it ends, and by no other exception than one of this project.
"""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscirc_blockstore import bundle
from oscirc_blockstore.accelerators import BUNDLE, Accelerator
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import bundle_tries
from oscirc_remote.arrivals import Arrivals
from oscirc_remote.bundle_stream import BundleStream
from oscirc_remote.stream_files import StreamFiles

from .bundles import Image, Keeper, Mirrors, honest
from .fakes import BLOCK_SIZE, block

IMAGE = Image(count=6)
POOL = {**IMAGE.stored, **{digest_of(raw): raw for raw in (block(100), block(101), block(7, NODE_SIZE))}}
DIGESTS = sorted(POOL)

entries = st.lists(
    st.tuples(st.sampled_from([*DIGESTS, digest_of(b"of nothing that is here")]), st.booleans()),
    min_size=1,
    max_size=7,  # as many as a bundle of this disk may have
    unique_by=lambda each: each[0],
)
frames = st.sampled_from(["right", "right", "right", "wrong content", "cut", "longer", "no frame", "two frames"])


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(bundle_tries, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(bundle_tries, "LONGEST_PAUSE_S", 0.0)


def content_of(entry):
    raw = POOL.get(entry.digest, b"")
    return raw if len(raw) == entry.raw_size else bytes(entry.raw_size)


def frame_of(group, kind):
    contents = [content_of(each) for each in group]
    if kind == "wrong content":
        contents[-1] = bytes(len(contents[-1]))
    frame = bundle.compress_segment(contents, 1)
    return {
        "cut": frame[: len(frame) // 2],
        "longer": frame + b"\0",
        "no frame": b"\x28\xb5\x2f\xfd" + bytes(20),
        "two frames": frame + frame,
    }.get(kind, frame)


@st.composite
def hostile_bundles(draw):
    """The file, and its listing."""
    drawn = draw(entries)
    named = [
        Entry(digest, NODE_SIZE if (len(POOL.get(digest, b"")) == NODE_SIZE) != lies else BLOCK_SIZE)
        for digest, lies in ((digest, lies and draw(st.booleans())) for digest, lies in drawn)
    ]
    size = draw(st.integers(1, len(named)))
    groups = [tuple(named[at : at + size]) for at in range(0, len(named), size)]
    parts = [frame_of(group, draw(frames)) for group in groups]
    index = bundle.build_index(IMAGE.digest, BLOCK_SIZE, groups, [len(part) for part in parts])
    raw = index + b"".join(parts)
    return raw, Accelerator(BUNDLE, "boot", digest_of(raw), len(raw), draw(st.sampled_from([0, len(index), 1, 10**6])))


def run(directory, raw, accelerator, keeper, **mirrors):
    stream = BundleStream(
        accelerator,
        IMAGE.digest,
        IMAGE.manifest,
        keeper,
        Mirrors(**(mirrors or {"liar": honest(raw)})),
        Arrivals(),
        StreamFiles(directory, accelerator.sha256),
    )
    stream.run()
    return stream


def check(stream, keeper, had):
    assert stream.state in ("complete", "failed")
    assert set(had) <= set(keeper.kept)
    assert set(keeper.kept) <= set(IMAGE.stored)
    assert all(digest_of(raw) == digest for digest, raw in keeper.kept.items())
    for left in stream.left_out():
        assert len(IMAGE.stored[left.digest]) == left.raw_size
    assert not any(thread.name == "oscirc-saver" for thread in threading.enumerate())


common = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@common
@given(hostile=hostile_bundles(), had=st.sets(st.sampled_from(sorted(IMAGE.stored))))
def test_whatever_a_bundle_says_only_the_image_comes_and_nothing_goes(tmp_path_factory, hostile, had):
    raw, accelerator = hostile
    keeper = Keeper({digest: IMAGE.stored[digest] for digest in had})
    stream = run(tmp_path_factory.mktemp("cache"), raw, accelerator, keeper)
    check(stream, keeper, had)


@common
@given(hostile=hostile_bundles(), had=st.sets(st.sampled_from(sorted(IMAGE.stored))))
def test_the_same_holds_for_an_index_that_was_left_in_the_cache(tmp_path_factory, hostile, had):
    raw, accelerator = hostile
    directory = tmp_path_factory.mktemp("cache")
    files = StreamFiles(directory, accelerator.sha256)
    files.keep_index(raw[: bundle.index_length(raw)])
    files.close()
    keeper = Keeper({digest: IMAGE.stored[digest] for digest in had})
    check(run(directory, raw, accelerator, keeper), keeper, had)


@common
@given(data=st.data())
def test_bytes_that_everybody_got_wrong_end_it_and_nothing_more(tmp_path_factory, data):
    raw = bytearray(IMAGE.raw)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    length = data.draw(st.integers(0, len(raw)))
    damaged = bytes(raw[:length]) + data.draw(st.binary(max_size=200))
    keeper = Keeper()
    check(run(tmp_path_factory.mktemp("cache"), damaged, IMAGE.accelerator, keeper), keeper, ())


@common
@given(hostile=hostile_bundles(), told=st.binary(min_size=32, max_size=32), entries_told=st.integers(0, 2**64 - 1))
def test_whatever_stands_in_the_stream_file_a_follower_ends_when_it_is_closed(
    tmp_path_factory, hostile, told, entries_told
):
    raw, accelerator = hostile
    directory = tmp_path_factory.mktemp("cache")
    leader = StreamFiles(directory, accelerator.sha256)
    assert leader.try_lock()
    leader.keep_index(raw[: bundle.index_length(raw)])
    path = directory / "accel" / f"{accelerator.sha256.hex()}.stream"
    path.write_bytes(told[:16] + entries_told.to_bytes(8, "little") + told[16:24])
    keeper, arrivals = Keeper(), Arrivals()
    files = StreamFiles(directory, accelerator.sha256)
    stream = BundleStream(accelerator, IMAGE.digest, IMAGE.manifest, keeper, Mirrors(), arrivals, files)
    thread = threading.Thread(target=stream.run)
    thread.start()
    for _ in range(400):
        if stream.state != "starting":
            break
        thread.join(0.001)
    for digest in DIGESTS:
        arrivals.expects(digest)
    stream.close()
    thread.join(20)
    leader.close()
    assert not thread.is_alive()
    assert stream.state in ("ended", "failed")
    assert keeper.kept == {}
