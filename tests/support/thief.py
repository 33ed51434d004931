"""What somebody with stolen keys does: signs ahead, and puts it where readers look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from oscirc_blockstore import image_index, keys
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.image_index import ImageIndex, ImageVersion

FAR = 1 << 31


def online_key(data: Path, role: str) -> Ed25519PrivateKey:
    """A server's own key, as whoever reads its disk has it; after a rotation it has a longer name."""
    (path,) = (data / "keys").glob(f"{role}*.pem")
    return keys.load_private(path.read_bytes(), None, role)


def signed(payload, *private: Ed25519PrivateKey) -> bytes:
    metadata = Metadata(payload)
    for key in private:
        metadata.sign(CryptoSigner(key), append=True)
    return metadata.to_bytes()


def evil_index(honest: ImageIndex) -> ImageIndex:
    """What was released, one version more, and the channel on it."""
    evil = ImageVersion("evil", honest.versions[0].manifest, "2026-01-01T00:00:00Z")
    return honest.with_version(evil).with_channel("stable", "evil")


def jump(
    data: Path,
    publisher: str,
    key: Ed25519PrivateKey,
    index: ImageIndex,
    *,
    version: int = FAR,
    tree: Path | None = None,
) -> None:
    """With the online keys of `data` and a publisher's key: its role, snapshot and timestamp at a far version."""
    tree = tree or data / "tree"
    raw = index.serialise()
    target = image_index.index_target(publisher, index.image)
    role = Targets(version=version, expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=300))
    role.targets[target] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, target)
    (tree / "targets" / publisher).mkdir(parents=True, exist_ok=True)
    (tree / f"targets/{publisher}/{digest_of(raw).hex()}.{index.image}.json").write_bytes(raw)
    made = signed(role, key)
    (tree / f"metadata/{version}.{publisher}.json").write_bytes(made)
    timestamp = Metadata[Timestamp].from_bytes((tree / "metadata/timestamp.json").read_bytes()).signed
    before = (tree / f"metadata/{timestamp.snapshot_meta.version}.snapshot.json").read_bytes()
    snapshot = Metadata[Snapshot].from_bytes(before).signed
    snapshot.version = timestamp.version = version
    snapshot.meta[f"{publisher}.json"] = MetaFile(version, len(made), {"sha256": digest_of(made).hex()})
    made = signed(snapshot, online_key(data, "snapshot"))
    timestamp.snapshot_meta = MetaFile(version, len(made), {"sha256": digest_of(made).hex()})
    (tree / f"metadata/{version}.snapshot.json").write_bytes(made)
    (tree / "metadata/timestamp.json").write_bytes(signed(timestamp, online_key(data, "timestamp")))
