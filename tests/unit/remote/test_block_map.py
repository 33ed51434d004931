import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.table import FANOUT, Geometry, TableBuilder
from oscirc_remote import block_map
from oscirc_remote.block_map import BlockState
from oscirc_remote.cache import CachedSource
from oscirc_remote.image import ImageReader
from oscirc_remote.table_view import TableView

from .fakes import BLOCK_SIZE, FakeBlocks, block, make_image

MANY = 2 * FANOUT + 7


def name(position):
    return digest_of(position.to_bytes(8, "big"))


def build(positions, count=MANY):
    stored = {}
    geometry = Geometry(count * BLOCK_SIZE, BLOCK_SIZE)
    builder = TableBuilder(geometry, stored.__setitem__)
    for position in sorted(positions):
        builder.add(position, name(position))
    return TableView(geometry, builder.finish()), stored


def every_page(view, load, state_of, **options):
    pages, at = [], 0
    while at is not None:
        pages.append(block_map.page(view, load, state_of, at, **options))
        assert pages[-1].start == at
        at = pages[-1].next
    return pages


def unrolled(pages):
    return [state for page in pages for state, count in page.runs for _ in range(count)]


@settings(max_examples=60)
@given(st.sets(st.integers(0, MANY - 1), max_size=40), st.integers(1, 50), st.data())
def test_the_pages_together_say_what_every_position_is(positions, max_runs, data):
    view, stored = build(positions)
    here = data.draw(st.sets(st.sampled_from(sorted(positions)))) if positions else set()
    cached = {name(position) for position in here}

    def state_of(digest):
        assert digest != ZERO_DIGEST
        return BlockState.CACHED if digest in cached else BlockState.ABSENT

    pages = every_page(view, stored.get, state_of, max_runs=max_runs)
    assert unrolled(pages) == [
        "z" if position not in positions else "c" if position in here else "a" for position in range(MANY)
    ]
    assert all(len(page.runs) < max_runs + FANOUT + 1 for page in pages)


def test_what_a_missing_node_holds_is_unknown():
    view, stored = build({5, FANOUT + 1})
    root = next(digest for digest, raw in stored.items() if name(5) not in raw and name(FANOUT + 1) not in raw)
    nodes = {root: stored[root]}
    states = unrolled(every_page(view, nodes.get, lambda _: BlockState.ABSENT))
    assert states == ["n"] * 2 * FANOUT + ["z"] * 7
    assert unrolled(every_page(view, {}.get, lambda _: BlockState.ABSENT)) == ["n"] * MANY


def test_a_page_ends_when_there_is_no_more_time_and_still_goes_on():
    view, stored = build({5, FANOUT + 1})
    pages = every_page(view, stored.get, lambda _: BlockState.ABSENT, out_of_time=lambda: True)
    assert [page.start for page in pages] == [0, FANOUT, 2 * FANOUT]


def test_a_position_that_the_disk_has_not_is_refused():
    view, stored = build({5})
    for start in (-1, MANY):
        with pytest.raises(UsageError):
            block_map.page(view, stored.get, lambda _: BlockState.ABSENT, start)


def test_a_sparse_terabyte_is_a_few_runs_and_a_few_look_ups():
    count = (1 << 40) // BLOCK_SIZE
    view, stored = build({0, count // 2, count - 1}, count)
    loads = []

    def load(digest):
        loads.append(digest)
        return stored[digest]

    started = time.process_time()
    pages = every_page(view, load, lambda _: BlockState.ABSENT)
    assert time.process_time() - started < 5
    assert [run for page in pages for run in page.runs] == [
        ("a", 1),
        ("z", count // 2 - 1),
        ("a", 1),
        ("z", count - 2 - count // 2),
        ("a", 1),
    ]
    assert len(set(loads)) == len(stored)


@pytest.fixture
def image(tmp_path):
    manifest, stored = make_image({0: block(1), 1: block(2), 2: block(3), 3: block(4), 5: block(5)}, 6 * BLOCK_SIZE)
    source = CachedSource(FakeBlocks(stored), tmp_path)
    reader = ImageReader(manifest, source)
    yield reader, source
    reader.close()


def test_a_reader_tells_how_each_block_came(image, tmp_path):
    reader, source = image
    assert reader.block_map(0).runs == [("n", 6)]
    source.keep(digest_of(block(1)), block(1))
    reader.read(BLOCK_SIZE, 1)
    for number in (3, 4):
        source.keep(digest_of(block(number)), block(number))
        source.remember_prefetched(digest_of(block(number)), block(number))
    reader.read(3 * BLOCK_SIZE, 1)
    page = reader.block_map(0)
    assert page.runs == [("c", 1), ("d", 1), ("p", 1), ("u", 1), ("z", 1), ("a", 1)]
    assert (page.next, page.block_count, page.block_size) == (None, 6, BLOCK_SIZE)
    assert reader.block_map(4).runs == [("z", 1), ("a", 1)]
