"""A whole repository in memory: TUF roles, publishers, images and blocks, as the bytes that a server would serve.

Tests change the signed objects directly (`targets`, `roles`, `timestamp`, …) and call `release`, which signs what
changed and writes the URL tree into `files`: serve it, or read it through `documents`. Written on tuf.api alone, so
that what the project's own server does is not what its client is tested with.

    repository = RepositorySimulator()
    repository.publish("alice", "debian", "1", disk)
    with FaultServer(repository.files) as server:
        remotes.add("home", repository.line(server.url))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from oscirc_blockstore import frame
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, block_digest, block_path, digest_of
from oscirc_blockstore.errors import NotServedError, OversizedResponseError, UnreachableError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, index_target
from oscirc_blockstore.manifest import Manifest, SystemFacts, manifest_path
from oscirc_blockstore.repository_facts import TARGET, RepositoryFacts
from oscirc_blockstore.table import Geometry, TableBuilder
from oscirc_remote.deadlines import Deadline

TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
BLOCK_SIZE = 64 * 1024


class RepositorySimulator:
    """A repository with one online release already made (no publishers yet)."""

    def __init__(self, *, now: datetime | None = None, name: str = "simulated", mirrors: tuple[str, ...] = ()) -> None:
        self.now = now or datetime.now(UTC).replace(microsecond=0)
        self.files: dict[str, bytes] = {}
        self.signers = {role: CryptoSigner.generate_ed25519() for role in TOP_LEVEL}
        self.root = Root(expires=self.now + timedelta(days=5 * 365), consistent_snapshot=True)
        self.targets = Targets(expires=self.now + timedelta(days=365), delegations=Delegations({}, {}))
        self.snapshot = Snapshot(expires=self.now + timedelta(days=7), meta={"targets.json": MetaFile(1)})
        self.timestamp = Timestamp(expires=self.now + timedelta(days=7))
        self.roles: dict[str, Targets] = {}
        self.indexes: dict[str, ImageIndex] = {}
        self.manifests: dict[Digest, Manifest] = {}
        for role in TOP_LEVEL:
            self.root.add_key(self.signers[role].public_key, role)
        self.root_bytes = b""
        self.sign_root()
        self.set_facts(RepositoryFacts(name, mirrors=mirrors))
        self.release("targets", first=True)

    def line(self, url: str) -> str:
        """What `oscirc remote add` is given."""
        return f"{url}#sha256={hashlib.sha256(self.root_bytes).hexdigest()}"

    def sign_root(self, *extra: CryptoSigner) -> None:
        """Write the root as it stands, signed by its key and by `extra` (the old key, on a rotation)."""
        self.root_bytes = self._sign(self.root, self.signers["root"], *extra)
        self.files[f"metadata/{self.root.version}.root.json"] = self.root_bytes
        self.files[f"roots/{hashlib.sha256(self.root_bytes).hexdigest()}.json"] = self.root_bytes

    def rotate(self, role: str) -> None:
        """A new key for a top-level role, by a new root that the old root key signs too."""
        old_root, old_key = self.signers["root"], self.signers[role].public_key.keyid
        self.signers[role] = CryptoSigner.generate_ed25519()
        self.root.revoke_key(old_key, role)
        self.root.add_key(self.signers[role].public_key, role)
        self.root.version += 1
        self.sign_root(*([old_root] if role == "root" else []))

    def set_facts(self, facts: RepositoryFacts) -> None:
        """Change `repository.json`; released with the targets role."""
        raw = facts.serialise()
        self.targets.targets[TARGET] = TargetFile.from_data(TARGET, raw, ["sha256"])
        self.files[f"targets/{hashlib.sha256(raw).hexdigest()}.{TARGET}"] = raw

    def add_publisher(self, name: str) -> None:
        """Delegate `<name>/*` to a new key, and release."""
        assert self.targets.delegations is not None
        assert self.targets.delegations.roles is not None
        self.signers[name] = CryptoSigner.generate_ed25519()
        self.targets.delegations.roles[name] = DelegatedRole(name, [], 1, terminating=True, paths=[f"{name}/*"])
        self.targets.add_key(self.signers[name].public_key, name)
        self.roles[name] = Targets(expires=self.now + timedelta(days=365))
        self.release("targets")

    def remove_publisher(self, name: str) -> None:
        """Revoke: the delegation goes, the role stays in the snapshot, as TUF demands."""
        assert self.targets.delegations is not None
        assert self.targets.delegations.roles is not None
        del self.targets.delegations.roles[name]
        self.release("targets")

    def publish(
        self,
        publisher: str,
        image: str,
        version: str,
        disk: bytes | Mapping[int, bytes],
        *,
        disk_size: int | None = None,
        block_size: int = BLOCK_SIZE,
        channel: str = "stable",
        facts: SystemFacts | None = None,
    ) -> Manifest:
        """Release a version. `disk` is its bytes, or blocks by position on a sparse disk of `disk_size`."""
        if publisher not in self.roles:
            self.add_publisher(publisher)
        manifest = self.put_disk(publisher, image, disk, disk_size=disk_size, block_size=block_size, facts=facts)
        digest = digest_of(manifest.serialise())
        target = index_target(publisher, image)
        index = self.indexes.get(target, ImageIndex(publisher, image))
        released = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        index = index.with_version(ImageVersion(version, digest, released))
        if channel:
            index = index.with_channel(channel, version)
        self.put_index(index)
        return manifest

    def put_disk(
        self,
        publisher: str,
        image: str,
        disk: bytes | Mapping[int, bytes],
        *,
        disk_size: int | None = None,
        block_size: int = BLOCK_SIZE,
        facts: SystemFacts | None = None,
    ) -> Manifest:
        """Blocks, table and manifest, without a release."""
        if isinstance(disk, bytes):
            disk_size = len(disk)
            disk = {p: disk[p * block_size : (p + 1) * block_size] for p in range(-(-disk_size // block_size))}
        assert disk_size is not None
        geometry = Geometry(disk_size, block_size)
        builder = TableBuilder(geometry, self._put_block)
        data_blocks = 0
        for position, raw in sorted(disk.items()):
            padded = raw.ljust(block_size, b"\0")
            digest = block_digest(padded)
            if digest != ZERO_DIGEST:
                data_blocks += 1
                self._put_block(digest, padded)
                builder.add(position, digest)
        manifest = Manifest(publisher, image, geometry, builder.finish(), data_blocks, facts or SystemFacts())
        raw = manifest.serialise()
        self.files[manifest_path(digest_of(raw))] = raw
        self.manifests[digest_of(raw)] = manifest
        return manifest

    def _put_block(self, digest: Digest, raw: bytes) -> None:
        self.files.setdefault(block_path(digest), frame.encode(raw))

    def put_index(self, index: ImageIndex, *, raw: bytes | None = None, target: str | None = None) -> None:
        """Make an index its image's target and release; `raw` and `target` override what an honest tool would sign."""
        target = target or index_target(index.publisher, index.image)
        self.indexes[target] = index
        raw = index.serialise() if raw is None else raw
        self.roles[index.publisher].targets[target] = TargetFile.from_data(target, raw, ["sha256"])
        directory, _, name = target.rpartition("/")
        self.files[f"targets/{directory}/{hashlib.sha256(raw).hexdigest()}.{name}"] = raw
        self.release(index.publisher)

    def release(self, *changed: str, first: bool = False) -> None:
        """Sign the changed roles at their next version, then snapshot, then timestamp."""
        for name in changed:
            role = self.targets if name == "targets" else self.roles[name]
            released = f"{name}.json" in self.snapshot.meta and not first
            role.version += 1 if released else 0
            self.files[f"metadata/{role.version}.{name}.json"] = self._sign(role, self.signers[name])
            self.snapshot.meta[f"{name}.json"] = MetaFile(role.version)
        self.snapshot.version += 0 if first else 1
        self.write_snapshot()
        self.timestamp.version += 0 if first else 1
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.write_timestamp()

    def write_snapshot(self) -> None:
        """Sign the snapshot as it stands."""
        raw = self._sign(self.snapshot, self.signers["snapshot"])
        self.files[f"metadata/{self.snapshot.version}.snapshot.json"] = raw

    def write_timestamp(self) -> None:
        """Sign the timestamp as it stands."""
        self.files["metadata/timestamp.json"] = self._sign(self.timestamp, self.signers["timestamp"])

    def write_role(self, name: str, *signers: CryptoSigner) -> None:
        """Sign a publisher's role as it stands, by other keys than its own if given."""
        role = self.roles[name]
        self.files[f"metadata/{role.version}.{name}.json"] = self._sign(role, *(signers or (self.signers[name],)))

    def _sign(self, signed: Root | Targets | Snapshot | Timestamp, *signers: CryptoSigner) -> bytes:
        metadata = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes(JSONSerializer())

    def block_paths(self) -> Iterator[str]:
        """Paths of all block files, nodes included."""
        return (path for path in self.files if path.startswith("blocks/"))


class SimulatedDocuments:
    """A `DocumentSource` over a mapping: no sockets. `down` makes it unreachable; `asked` lists what was asked for."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        self.name = name
        self.files = files
        self.down = False
        self.asked: list[str] = []

    def fetch_document(self, path: str, max_bytes: int, deadline: Deadline) -> bytes:
        self.asked.append(path)
        deadline.check(self.name)
        if self.down:
            raise UnreachableError(f"cannot reach {self.name}: connection refused")
        raw = self.files.get(path)
        if raw is None:
            raise NotServedError(f"{self.name} does not have {path}")
        if len(raw) > max_bytes:
            raise OversizedResponseError(f"{self.name} sent more than the {max_bytes} bytes allowed")
        return raw

    def close(self) -> None:
        pass


def tampered(raw: bytes, **changes: object) -> bytes:
    """Signed metadata with fields of its signed part changed and the signatures left as they were."""
    document = json.loads(raw)
    document["signed"].update(changes)
    return json.dumps(document).encode()
