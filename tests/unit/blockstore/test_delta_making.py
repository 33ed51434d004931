"""A pack that is made gives every changed block and node, at a fraction of their bytes, and the same file again."""

import errno
import io
import os
import random
import threading

import pytest

from oscirc_blockstore import delta, delta_making, delta_record, frame
from oscirc_blockstore.delta import PAGE_SIZE
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError, UsageError
from oscirc_blockstore.table import contents
from tests.unit.blockstore.versions import BLOCK, Store

RANDOM = random.Random(11)
PAGES = BLOCK // PAGE_SIZE


def block(seed):
    return random.Random(seed).randbytes(BLOCK)


def edited(raw, at, text):
    return raw[:at] + text + raw[at + len(text) :]


def shifted(raw, by):
    return (RANDOM.randbytes(by) + raw)[:BLOCK]


def whole_length(_digest, raw):
    return len(frame.encode(raw))


def made(store, old, new, **options):
    with delta_making.made_pack(old, new, store.load, whole_length, **options) as pack:
        return pack, pack.file.read()


def everything(store, old, new, file):
    """What a client that has all of the old version makes of a pack."""
    index = delta.parse_index(file[: delta.index_length(file)])
    assert index.length == len(file)
    blocks = {
        record.digest: delta_record.rebuild(record, file[record.offset : record.offset + record.length], store.held.get)
        for record in index.records.values()
        if record.is_rebuildable
    }
    nodes = {patch.digest: delta_record.rebuild_node(patch, store.held.get) for patch in index.nodes.values()}
    return index, blocks, nodes


@pytest.fixture
def store():
    return Store()


def test_moved_pages_are_copied_and_edited_ones_compressed_against_what_they_were(store):
    first, second, third = block(1), block(2), block(3)
    old = store.version([first, second, third])
    new_first = second[: 5 * PAGE_SIZE] + bytes(PAGE_SIZE) + edited(first[6 * PAGE_SIZE :], 9000, b"an edit")
    new = store.version([new_first, second, shifted(third, 5)])
    pack, file = made(store, old, new)
    index, blocks, nodes = everything(store, old, new, file)
    assert (pack.blocks, pack.records) == (2, 2)
    assert set(blocks) == {digest_of(new_first), *(d for d in index.records if d != digest_of(new_first))}
    assert nodes[new.manifest.root.digest] == store.held[new.manifest.root.digest]
    assert pack.whole_bytes > 100_000
    assert len(file) < 6_000
    assert pack.accelerator.sha256 == digest_of(file)
    assert (pack.accelerator.kind, pack.accelerator.name) == ("delta", delta.name_for(old.digest))


def test_the_same_pair_gives_the_same_file_whatever_the_number_of_threads(store):
    old = store.version([block(n) for n in range(12)])
    new = store.version([shifted(block(n), 1 + n) for n in range(12)])
    assert made(store, old, new, workers=1)[1] == made(store, old, new, workers=4)[1]


def test_a_block_that_only_moved_needs_nothing(store):
    old = store.version([block(1), block(2)])
    new = store.version([block(2), block(1)])
    pack, file = made(store, old, new)
    index = delta.parse_index(file)
    assert (pack.blocks, index.records) == (0, {})
    assert set(index.nodes) == {new.manifest.root.digest}


def test_what_resembles_nothing_is_named_with_what_it_costs_whole(store):
    old, new = store.version([block(1)]), store.version([block(2)])
    pack, file = made(store, old, new)
    record = delta.parse_index(file).records[digest_of(block(2))]
    assert (pack.records, record.is_rebuildable) == (0, False)
    assert record.whole_length == whole_length(None, block(2))


def test_what_did_not_compress_and_resembles_nothing_is_not_tried(store, monkeypatch):
    monkeypatch.setattr(delta_record, "encode", None)
    old, new = store.version([block(1)]), store.version([block(2)])
    assert made(store, old, new)[0].records == 0


def test_a_disk_that_grew_and_one_that_shrank(store):
    small = store.version([block(1)])
    large = store.version({0: block(1), 3000: edited(block(1), 70, b"grown")})
    for old, new in ((small, large), (large, small)):
        _, file = made(store, old, new)
        _, _, nodes = everything(store, old, new, file)
        before = set(contents(old.manifest.geometry, old.manifest.root, store.node).nodes)
        assert {*nodes, *before} >= set(contents(new.manifest.geometry, new.manifest.root, store.node).nodes)


def test_only_so_many_old_blocks_are_looked_at_and_those_first_that_are_gone(store, monkeypatch):
    monkeypatch.setattr(delta_making, "MAX_OLD_PAGES", 2 * PAGES)
    kept = [block(n) for n in range(10, 20)]
    old = store.version([*kept, block(1), block(2)])
    new = store.version([*kept, edited(block(1), 5, b"x"), edited(block(2), 5, b"y")])
    store.loads = {}
    pack, _ = made(store, old, new)
    assert pack.records == 2
    assert not any(digest_of(raw) in store.loads for raw in kept)


def test_a_fingerprint_that_lies_makes_no_wrong_record(store, monkeypatch):
    look_at = delta_making.similarity.look_at

    def colliding(raw, **options):
        looked = look_at(raw, **options)
        looked.fingerprints[:] = 77
        return looked

    monkeypatch.setattr(delta_making.similarity, "look_at", colliding)
    old, new = store.version([block(1)]), store.version([block(2)])
    pack, _ = made(store, old, new)
    assert (pack.blocks, pack.records) == (1, 0)


def test_what_fails_to_load_ends_the_making(store):
    old, new = store.version([block(1)]), store.version([block(2)])
    store.held.pop(digest_of(block(1)))
    with pytest.raises(KeyError):
        made(store, old, new)


def test_it_can_be_stopped(store):
    old = store.version([block(n) for n in range(40)])
    new = store.version([shifted(block(n), 3) for n in range(40)])
    stop = threading.Event()

    def interrupted(_phase, done, _total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(store, old, new, stop=stop, progress=interrupted)
    assert stop.is_set()


def test_blocks_of_two_sizes_make_no_pack(store):
    old = store.version([block(1)])
    new = store.version([block(1) + block(2)], block_size=2 * BLOCK)
    with pytest.raises(UsageError):
        made(store, old, new)


def test_progress_is_told(store):
    told = []
    old = store.version([block(n) for n in range(5)])
    new = store.version([shifted(block(n), 3) for n in range(5)])
    made(store, old, new, progress=lambda *what: told.append(what))
    assert told[-1] == (delta_making.MAKING, 5, 5)
    assert (delta_making.LOOKING, 5, 5) in told


def test_no_room_for_what_is_made_is_an_error_of_this_machine(store, monkeypatch):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(delta_making.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(LocalError, match="No space left") as caught:
        made(store, store.version([block(1)]), store.version([block(2)]))
    assert "TMPDIR" in caught.value.hint


def test_what_a_whole_block_costs_is_asked_before_it_is_tried():
    asked = delta_making.stated_whole_length({digest_of(b"a"): 77}.get)
    assert asked(digest_of(b"a"), b"a") == 77
    assert asked(digest_of(b"b"), bytes(1 << 16)) == delta_making.usual_whole_length(digest_of(b"b"), bytes(1 << 16))
