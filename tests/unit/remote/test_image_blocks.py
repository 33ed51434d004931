import pytest

from oscirc_blockstore.errors import NotServedError
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Deadline
from oscirc_remote.image_blocks import ImageBlocks
from oscirc_remote.table_view import TableView

from .fakes import BLOCK_SIZE, FakeBlocks, block, make_image


@pytest.fixture
def inner():
    manifest, stored = make_image({1: block(1), 3: block(3), 4: block(1)}, 6 * BLOCK_SIZE)
    source = FakeBlocks(stored)
    source.manifest = manifest
    return source


@pytest.fixture
def image(inner, tmp_path):
    source = CachedSource(inner, tmp_path)
    manifest = inner.manifest
    yield ImageBlocks(TableView(manifest.geometry, manifest.root), source, lambda: Deadline.after(10))
    source.close()


def test_blocks_come_by_their_position(image):
    assert [image.block(position) for position in range(6)] == [
        bytes(BLOCK_SIZE),
        block(1),
        bytes(BLOCK_SIZE),
        block(3),
        block(1),
        bytes(BLOCK_SIZE),
    ]
    assert (image.count, image.disk_size, image.digest_at(0)) == (6, 6 * BLOCK_SIZE, None)


def test_all_are_fetched_at_once_and_each_block_once(image, inner):
    image.fetch_all(range(6))
    image.fetch_all(range(6))
    assert len(inner.fetched) == len(set(inner.fetched)) == 3  # a node and two blocks


def test_what_nobody_has_is_no_error_until_it_is_asked_for(image, inner):
    missing = image.digest_at(3)
    del inner.blocks[missing]
    image.fetch_all([1, 3])
    assert image.block(1) == block(1)
    with pytest.raises(NotServedError):
        image.block(3)


def test_worth_fetching_is_what_is_known_to_be_data_and_is_not_here(image, inner):
    assert not image.is_worth(1)  # its node is not here: it would have to be asked for
    image.digest_at(1)
    fetched = list(inner.fetched)
    assert [image.is_worth(position) for position in range(5)] == [False, True, False, True, True]
    image.block(1)
    assert [image.is_worth(position) for position in range(5)] == [False, False, False, True, False]
    assert inner.fetched[: len(fetched)] == fetched
