"""Every single byte of a delta pack spoiled in turn: no block is ever wrong, and what was spoiled is counted."""

import zstandard

from oscirc_blockstore import delta, delta_record
from oscirc_blockstore.accelerators import Listing
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import IntegrityError
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.bundle_mirrors import Part
from oscirc_remote.pack_source import PackSource
from oscirc_remote.packs import Packs
from oscirc_remote.readiness import index_file

from .fakes import FakeClock
from .test_pack_source import ACCELERATOR, FILE, FROM, INDEX, NEW, OLD_DIGESTS, STORE, TO, Mirrors

NODE = TO.manifest.root.digest
WANTED = [*((digest_of(raw), len(raw)) for raw in NEW), (NODE, NODE_SIZE)]
MADE = [digest for digest, _ in WANTED if digest in INDEX.records and INDEX.records[digest].is_rebuildable]


class Kept:
    """The old version's blocks and nodes, in memory."""

    def __init__(self):
        self.held = {digest: STORE.held[digest] for digest in (*OLD_DIGESTS, FROM.manifest.root.digest)}

    def holds(self, digest, size):
        return len(self.held.get(digest, b"")) == size

    def load(self, digest, raw_size):
        return self.held.get(digest)


class Spoiled:
    """The only mirror: its pack has these bytes."""

    requests = received_bytes = 0

    def __init__(self, file):
        self._file = file

    def get_range(self, accelerator, start, stop, deadline):
        return self._file[start:stop]

    def get_part(self, accelerator, start, stop, deadline, *, skip=frozenset()):
        return Part(self._file[start:stop], "only")


def read_all(file, directory):
    """(what packs did, the blocks that were fetched whole) when all of the new version is read."""
    mirrors, ranges = Mirrors(), Spoiled(file)
    source = PackSource(mirrors, ranges, Kept())
    index_file(directory, ACCELERATOR.sha256).unlink(missing_ok=True)  # what was kept of the pack before
    packs = Packs(TO.digest, TO.manifest, source, ranges, directory, (FROM.digest,))
    deadline = FakeClock().deadline()
    packs.use(Listing(TO.digest, (ACCELERATOR,)), deadline)
    for digest, size in WANTED:
        assert digest_of(source.fetch(digest, size, deadline)) == digest
    return source.status(), set(mirrors.asked)


def is_harmless(file):
    """Whether what is spoiled means nothing: zstd has a bit that nobody reads, and two ways to say some things."""
    index, frames = file[: ACCELERATOR.index_length], ACCELERATOR.index_length
    if index != FILE[:frames]:
        try:
            said = zstandard.ZstdDecompressor().decompress(index[delta.HEAD_SIZE :], allow_extra_data=False)
        except zstandard.ZstdError:
            return False
        plain = zstandard.ZstdDecompressor().decompress(FILE[delta.HEAD_SIZE : frames])
        return index[: delta.HEAD_SIZE] == FILE[: delta.HEAD_SIZE] and said == plain
    try:
        for record in (INDEX.records[digest] for digest in MADE):
            delta_record.rebuild(record, file[record.offset : record.offset + record.length], Kept().held.get)
    except IntegrityError:
        return False
    return True


def test_as_it_was_made_it_makes_all_that_it_can(tmp_path):
    status, whole = read_all(FILE, tmp_path)
    assert (status.packs, status.refused_packs, status.refused_records, status.failed_records) == (1, 0, 0, 0)
    assert (status.rebuilt_blocks, status.rebuilt_nodes) == (len(MADE), 1)
    assert whole.isdisjoint({*MADE, NODE})
    assert ACCELERATOR.index_length < len(FILE) < 4096


def test_whichever_byte_is_spoiled_no_block_is_wrong_and_it_is_counted(tmp_path):
    harmless = []
    for at in range(len(FILE)):
        file = FILE[:at] + bytes([FILE[at] ^ 1 << at % 8]) + FILE[at + 1 :]
        status, whole = read_all(file, tmp_path)
        counted = (status.refused_packs, status.refused_records, status.failed_records)
        if is_harmless(file):
            harmless.append(at)
            assert (counted, status.rebuilt_blocks) == ((0, 0, 0), len(MADE))
        elif at < ACCELERATOR.index_length:
            assert (counted, status.packs, whole) == ((1, 0, 0), 0, {digest for digest, _ in WANTED})
        else:
            assert (counted, status.rebuilt_blocks) == ((0, 1, 0), len(MADE) - 1)
            assert len(whole & {*MADE}) == 1
    assert len(harmless) < len(FILE) / 20
