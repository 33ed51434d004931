import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import NotServedError, StoreFullError, UnreachableError
from oscirc_remote import filling
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Cancellation
from oscirc_remote.filling import Filler
from oscirc_remote.table_view import TableView

from .fakes import BLOCK_SIZE, FakeBlocks, block, make_image


@pytest.fixture
def inner():
    made, stored = make_image({at: block(1 + at // 2) for at in range(8)}, 8 * BLOCK_SIZE)
    source = FakeBlocks(stored)
    source.manifest = made
    return source


@pytest.fixture
def source(inner, tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "FIRST_PAUSE_S", 0.01)
    source = CachedSource(inner, tmp_path)
    yield source
    source.close()


def fill(inner, source, cancellation=None):
    made = inner.manifest
    return Filler(source, cancellation or Cancellation()).fill(TableView(made.geometry, made.root))


def test_all_of_it_comes_each_block_once(inner, source):
    assert fill(inner, source) == ""
    assert sorted(inner.fetched) == sorted(inner.blocks)
    assert fill(inner, source) == ""
    assert len(inner.fetched) == len(inner.blocks)


def test_what_may_heal_is_tried_again(inner, source):
    inner.errors = [UnreachableError("gone"), UnreachableError("gone")]
    assert fill(inner, source) == ""
    assert all(source.has(digest) for digest in inner.blocks)


def test_what_will_not_heal_is_raised(inner, source):
    del inner.blocks[digest_of(block(2))]
    with pytest.raises(NotServedError):
        fill(inner, source)


def test_a_cache_that_keeps_nothing_ends_it_with_the_reason(inner, source, monkeypatch):
    monkeypatch.setattr(source._store, "save", lambda *_: (_ for _ in ()).throw(StoreFullError("no space left")))
    assert "no space left" in fill(inner, source)
    assert len(inner.fetched) == 2  # a node and a block


def test_called_off_it_ends(inner, source):
    cancellation = Cancellation()
    cancellation.cancel("closed")
    assert fill(inner, source, cancellation) == ""
    assert inner.fetched == []


def test_a_table_that_repeats_itself_is_gone_through_once(inner, source):
    filler = Filler(source, Cancellation())
    digest = inner.manifest.root.digest
    loads = [filler._node(digest) for _ in range(1000)]
    assert loads[0] is not None
    assert loads[1:] == [None] * 999
