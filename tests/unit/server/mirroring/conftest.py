"""A repository in memory behind a server that can misbehave, and mirrors of it."""

import hashlib
import random
import shutil

import pytest
from support.fault_server import FaultServer
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

from oscirc_blockstore import lengths
from oscirc_blockstore.accelerators import LENGTHS, PROFILE, Accelerator, Hint, Listing, hint_path, listing_path
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.profile import Profile
from oscirc_remote.opening import open_source
from oscirc_remote.pull import pull
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver
from oscirc_server.mirroring import syncing
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.selection import Selection

BLOCKS = 20


def disk(seed, blocks=BLOCKS, changed=()):
    """Blocks of pseudo-random bytes; those `changed` are of another seed."""
    made = [random.Random(f"{seed}-{n}").randbytes(BLOCK_SIZE) for n in range(blocks)]
    for n in changed:
        made[n] = random.Random(f"changed-{seed}-{n}").randbytes(BLOCK_SIZE)
    return b"".join(made)


class World:
    """`repository` is served by `server`; `mirror()` is a directory that mirrors it."""

    def __init__(self, directory):
        self.directory = directory
        self.repository = RepositorySimulator()
        self.server = FaultServer(self.repository.files)
        self.line = self.repository.line(self.server.url)
        self.manifests = {}

    def publish(self, publisher="alice", image="debian", version="1", **options):
        manifest = self.repository.publish(publisher, image, version, options.pop("content", disk(version)), **options)
        digest = digest_of(manifest.serialise())
        self.manifests[f"{publisher}/{image}@{version}"] = digest
        return digest

    def accelerate(self, publisher, image, digest, *more):
        """A profile of a version, with its listing and hint."""
        raw = Profile(digest, "boot", 1, tuple(range(5))).serialise()
        files = self.repository.files
        listed = [Accelerator(PROFILE, "boot", digest_of(raw), len(raw))]
        files[listed[0].path] = raw
        for kind, name, content in more:
            listed.append(Accelerator(kind, name, digest_of(content), len(content)))
            files[listed[-1].path] = content
        listing = Listing(digest, tuple(listed))
        files[listing_path(digest)] = listing.serialise()
        files[hint_path(publisher, image)] = Hint(publisher, image, {"stable": listing}).serialise()
        return listing

    def accelerate_lengths(self, publisher, image, digest):
        manifest = self.repository.manifests[digest]
        files = self.repository.files
        from oscirc_blockstore.digests import block_path
        from oscirc_blockstore.frame import decode
        from oscirc_blockstore.table import NODE_SIZE, contents

        def load(node):
            return decode(files[block_path(node)], NODE_SIZE)

        table = contents(manifest.geometry, manifest.root, load)
        known = {each: len(files[block_path(each)]) for each in (*table.nodes, *table.blocks)}
        raw = lengths.build(digest, manifest.geometry, manifest.root, load, known)
        return self.accelerate(publisher, image, digest, (LENGTHS, lengths.NAME, raw)), sum(known.values())

    def mirror(self, name="mirror", line=None, others=()):
        return MirrorDirectory.open(self.directory / name, line or self.line, others)

    def sync(self, mirror=None, images=(), versions="all", **options):
        mirror = mirror or self.mirror()
        with mirror.only_sync():
            report, _ = syncing.sync(mirror, Selection.parse(images, versions), **options)
        return report

    def tree(self, mirror):
        return {
            str(path.relative_to(mirror.tree)): path.read_bytes() for path in mirror.tree.rglob("*") if path.is_file()
        }

    def read_whole(self, url, reference, *, digest=None):
        """All of a version as a workstation gets it from `url` alone."""
        home = self.directory / f"home-{hashlib.sha256(f'{url}{reference}'.encode()).hexdigest()[:8]}"
        shutil.rmtree(home, ignore_errors=True)
        remotes = Remotes(home / "remotes")
        remotes.add("home", self.repository.line(url))
        resolved = Resolver(remotes).resolve(reference)
        source = open_source([url], home / "cache")
        try:
            return pull(resolved.manifest, source, patience_s=5).positions
        finally:
            source.close()

    def close(self):
        self.server.close()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()
