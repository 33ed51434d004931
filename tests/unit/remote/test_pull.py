import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import StoreFullError, UnreachableError
from oscirc_blockstore.table import FANOUT
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Cancellation
from oscirc_remote.image import ImageReader
from oscirc_remote.pull import pull

from .fakes import BLOCK_SIZE, FakeBlocks, block, make_image

CONTENT = {0: block(1), 5: block(2), FANOUT: block(1), 2 * FANOUT + 3: block(3)}
DISK_SIZE = 3 * FANOUT * BLOCK_SIZE


@pytest.fixture
def image(tmp_path):
    manifest, stored = make_image(CONTENT, DISK_SIZE)
    inner = FakeBlocks(stored)
    source = CachedSource(inner, tmp_path)
    yield manifest, inner, source
    source.close()


def test_everything_is_fetched_once_and_reported(image, tmp_path):
    manifest, inner, source = image
    steps = []
    counts = pull(manifest, source, progress=lambda done, total: steps.append((done, total)))
    assert (counts.positions, counts.fetched_blocks, counts.fetched_nodes) == (4, 3, 4)
    assert sorted(inner.fetched) == sorted(inner.blocks)
    assert steps[-1] == (4, 4)
    assert steps == sorted(steps)
    offline = ImageReader(manifest, CachedSource(FakeBlocks({}), tmp_path))
    assert offline.read(5 * BLOCK_SIZE, BLOCK_SIZE) == block(2)
    assert offline.read((2 * FANOUT + 3) * BLOCK_SIZE, BLOCK_SIZE) == block(3)
    assert offline.status().safe_to_unplug
    offline.close()


def test_a_second_pull_fetches_nothing(image):
    manifest, inner, source = image
    pull(manifest, source)
    before = len(inner.fetched)
    counts = pull(manifest, source)
    assert (counts.positions, counts.fetched_blocks, len(inner.fetched)) == (4, 0, before)


def test_a_pull_goes_on_where_it_was_interrupted(image):
    manifest, inner, source = image
    lost = inner.blocks.pop(digest_of(block(3)))
    inner.error = None
    with pytest.raises(Exception, match="nobody has it"):
        pull(manifest, source, parallelism=1)
    inner.blocks[digest_of(block(3))] = lost
    fetched = list(inner.fetched)
    pull(manifest, source)
    assert inner.fetched[len(fetched) :] == [digest_of(block(3))]


def test_a_network_that_stays_away_ends_the_pull(image):
    manifest, inner, source = image
    inner.error = UnreachableError("down")
    with pytest.raises(UnreachableError):
        pull(manifest, source, patience_s=5)


def test_a_cache_that_keeps_nothing_ends_the_pull(image, monkeypatch):
    manifest, _, source = image

    def refuse(*_args):
        raise StoreFullError("no space left")

    monkeypatch.setattr(source._store, "save", refuse)
    with pytest.raises(StoreFullError, match="no space left"):
        pull(manifest, source)


def test_a_pull_can_be_called_off(image):
    manifest, _, source = image
    cancellation = Cancellation()
    cancellation.cancel("interrupted")
    with pytest.raises(Exception, match="interrupted"):
        pull(manifest, source, cancellation=cancellation)


def test_a_table_that_names_one_leaf_everywhere_is_pulled_in_no_time(tmp_path):
    content = {row * FANOUT + slot: block(1) for row in range(3) for slot in range(FANOUT)}
    manifest, stored = make_image(content, DISK_SIZE)
    source = CachedSource(FakeBlocks(stored), tmp_path)
    counts = pull(manifest, source)
    assert (counts.positions, counts.fetched_blocks, counts.fetched_nodes) == (3 * FANOUT, 1, 2)
    source.close()
