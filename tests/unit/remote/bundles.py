"""Bundles of small images, and mirrors that serve them as a test says; nothing here touches the network."""

from oscirc_blockstore import bundle
from oscirc_blockstore.accelerators import BUNDLE, Accelerator
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import UnreachableError
from oscirc_blockstore.table import NODE_SIZE

from .fakes import BLOCK_SIZE, block, make_image


class Image:
    """An image of `count` blocks and the bundle of some of its positions, cut into segments of `per_segment` blocks."""

    def __init__(self, count=12, positions=None, per_segment=4, extra=(), make=block):
        self.make = make
        self.positions = list(range(count)) if positions is None else positions
        self.manifest, self.stored = make_image({at: make(at + 1) for at in range(count)}, count * BLOCK_SIZE)
        self.digest = digest_of(self.manifest.serialise())
        nodes = [Entry(name, NODE_SIZE) for name, raw in self.stored.items() if len(raw) == NODE_SIZE]
        blocks = [Entry(self.digest_at(at), BLOCK_SIZE) for at in self.positions]
        self.contents = {**self.stored, **{digest_of(raw): raw for raw in extra}}
        blocks += [Entry(digest_of(raw), BLOCK_SIZE) for raw in extra]
        self.groups = [
            tuple(nodes),
            *(tuple(blocks[at : at + per_segment]) for at in range(0, len(blocks), per_segment)),
        ]
        self.seal()

    def seal(self, manifest=None):
        """Put the file together."""
        frames = [bundle.compress_segment([self.contents[each.digest] for each in group], 1) for group in self.groups]
        self.raw = b"".join(bundle.build(manifest or self.digest, BLOCK_SIZE, self.groups, frames))
        index_length = bundle.index_length(self.raw)
        self.index = self.raw[:index_length]
        self.accelerator = Accelerator(BUNDLE, "boot", digest_of(self.raw), len(self.raw), index_length)

    def digest_at(self, position):
        return digest_of(self.make(position + 1))

    @property
    def named(self):
        """What the bundle brings: every digest in it."""
        return {each.digest for group in self.groups for each in group}


class Keeper:
    """A cache in memory; refuses what is not what its digest says, as nothing unverified may ever come here."""

    def __init__(self, blocks=(), costs=()):
        self.kept = dict(blocks)
        self.costs = dict(costs)

    def cost(self, digest, raw_size):
        return self.costs.get(digest)

    def has(self, digest):
        return digest in self.kept

    def resident(self, digest, raw_size):
        """As the real one, it takes what is not as long as was asked for to be damaged, and removes it."""
        if digest in self.kept and len(self.kept[digest]) != raw_size:
            del self.kept[digest]
        return self.kept.get(digest)

    def remember_prefetched(self, digest, raw):
        assert digest_of(raw) == digest
        self.kept[digest] = raw

    def keep(self, digest, raw):
        assert digest_of(raw) == digest
        self.kept[digest] = raw


class ScriptedDownload:
    """Gives bytes in pieces; ends, or fails with `error` when they are at an end."""

    def __init__(self, source, raw, start, stop, *, piece=10_000, error=None):
        self.source = source
        self.start, self.stop = start, stop
        self.raw, self.piece, self.error = raw, piece, error
        self.at = 0
        self.closed = False

    def read(self, _timeout_s):
        if self.at >= len(self.raw):
            if self.error is not None:
                raise self.error
            return b""
        piece = self.raw[self.at : self.at + self.piece]
        self.at += len(piece)
        return piece

    @property
    def received_bytes(self):
        return self.at

    def pace(self):
        return self.at, 1.0

    def close(self):
        self.closed = True


class Mirrors:
    """Mirrors by name: each a function of (start, stop) to (bytes, error), or an error."""

    def __init__(self, **mirrors):
        self.mirrors = mirrors
        self.opened = []
        self.reports = []

    def open(self, accelerator, start, stop, skip):
        for name, serve in self.mirrors.items():
            if name not in skip:
                raw, error = serve(start, stop)
                self.opened.append((name, start, stop))
                return ScriptedDownload(name, raw, start, stop, error=error)
        return None

    def report(self, name, problem, *, received_bytes=0, seconds=0.0):
        self.reports.append((name, problem, received_bytes))

    def blamed(self):
        return [name for name, problem, _ in self.reports if problem is not None]


def honest(raw):
    return lambda start, stop: (raw[start:stop], None)


def refusing(error):
    return lambda _start, _stop: (b"", error)


def breaking_off(raw, after):
    return lambda start, stop: (raw[start : min(stop, after)], UnreachableError("broke off"))
