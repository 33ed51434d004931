"""docs/vectors is what a second implementation checks itself against: this one must agree with every entry.

`python tests/unit/blockstore/test_vectors.py` writes the file anew from the definitions below.
"""

import base64
import hashlib
import io
import json
import pathlib

import pytest

from oscirc_blockstore import (
    accelerators,
    bundle,
    consensus,
    frame,
    image_index,
    lengths,
    manifest,
    profile,
    segment,
    table,
    trace,
)
from oscirc_blockstore.accelerators import BUNDLE, PROFILE, Accelerator, Hint, Listing
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, block_digest, block_path, digest_of
from oscirc_blockstore.errors import OscircError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.names import check_publisher, check_version
from oscirc_blockstore.profile import Profile
from oscirc_blockstore.table import NODE_SIZE, Geometry, TableBuilder
from oscirc_blockstore.trace import END_LINE, TracedRead, TraceHead

VECTORS = pathlib.Path(__file__).parents[3] / "docs" / "vectors" / "formats.json"
BLOCK = 65536


def pattern_block(seed: int) -> bytes:
    """65,536 bytes: SHA-256 of the decimal seed, a colon and a counter from 0, one after another."""
    return b"".join(hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range(BLOCK // 32))


def build(block_count: int, positions: dict[int, int]):
    geometry = Geometry(block_count * BLOCK, BLOCK)
    nodes: dict[Digest, bytes] = {}
    builder = TableBuilder(geometry, nodes.__setitem__)
    for position, seed in sorted(positions.items()):
        builder.add(position, block_digest(pattern_block(seed)))
    return geometry, builder.finish(), nodes


def accelerating(document: bytes, root: Digest) -> dict[str, object]:
    """A disk's accelerators: the blocks 2 and 0 in one bundle of two segments (a frame's bytes differ by library)."""
    disk = digest_of(document)
    runs = [(2, 0, 1), (2, 1), (0, 2, 7)]
    recorded = [Profile(disk, "boot", 1, run) for run in runs]
    raw_profile = profile.merge(recorded).serialise()
    node = build(3, {0: 1, 2: 2})[2][root]
    contents = [[node, pattern_block(2)], [pattern_block(1)]]
    groups = [tuple(bundle.Entry(digest_of(raw), len(raw)) for raw in group) for group in contents]
    frames = [_stored_frame(b"".join(group)) for group in contents]
    raw_bundle = b"".join(bundle.build(disk, BLOCK, groups, frames))
    index_length = bundle.index_length(raw_bundle)
    listing = Listing(
        disk,
        (
            Accelerator(BUNDLE, "boot", digest_of(raw_bundle), len(raw_bundle), index_length),
            Accelerator(PROFILE, "boot", digest_of(raw_profile), len(raw_profile)),
        ),
    )
    reads = [TracedRead(2 * BLOCK - 512, 1024, 0), TracedRead(0, 4096, 12), TracedRead(2 * BLOCK, 512, 15)]
    return {
        "profiles": {
            "runs": [list(run) for run in runs],
            "merged": raw_profile.decode(),
            "agreed": list(consensus.agreed(recorded, consensus.quorum(3)).positions),
        },
        "bundle": {
            "index_base64": base64.b64encode(raw_bundle[:index_length]).decode(),
            "length": len(raw_bundle),
            "sha256": digest_of(raw_bundle).hex(),
            "segments": "each 28b52ffda0, the content size in 4 bytes, then raw blocks of 131,072 bytes or what is left",
            "entries": [[entry.digest.hex(), entry.raw_size] for group in groups for entry in group],
        },
        "block_lengths": {
            "base64": base64.b64encode(_block_lengths(disk)).decode(),
            "node": 300,
            "blocks": [70, 65_600],
        },
        "listing": listing.serialise().decode(),
        "hint": Hint("alice", "debian", {"stable": listing}).serialise().decode(),
        "trace": {
            "text": f"{TraceHead(3 * BLOCK, disk)}{''.join(map(str, reads))}{END_LINE}",
            "touched": trace.first_touch_order(reads, BLOCK),
        },
    }


def _block_lengths(disk: Digest) -> bytes:
    """Of the table of blocks 0 and 2: a node's file of 300 bytes, blocks' files of 70 and 65,600."""
    values = (300, 2, 70, 65_600)
    body = (1).to_bytes(4, "little") + bytes(value >> shift & 255 for shift in (0, 8, 16) for value in values)
    frame = _stored_frame(body)
    return b"OSCLENS1" + disk + len(frame).to_bytes(4, "little") + len(body).to_bytes(4, "little") + frame


def _stored_frame(raw: bytes) -> bytes:
    """A zstd frame of raw blocks (RFC 8878, 3.1.1): the same bytes from every library."""
    head = b"\x28\xb5\x2f\xfd\xa0" + len(raw).to_bytes(4, "little")  # one segment, a content size of four bytes
    pieces = [raw[at : at + (1 << 17)] for at in range(0, len(raw), 1 << 17)]
    blocks = [
        (len(piece) << 3 | (number == len(pieces) - 1)).to_bytes(3, "little") + piece
        for number, piece in enumerate(pieces)
    ]
    return head + b"".join(blocks)


def generate() -> dict[str, object]:
    block = pattern_block(1)
    good = frame.encode(block, 3)
    tables = []
    for count, positions in ((1, {}), (3, {0: 1, 2: 2}), (1025, {0: 1, 1024: 1}), (1 << 21, {5: 1, 1_500_000: 2})):
        _, root, nodes = build(count, positions)
        tables.append(
            {
                "block_size": BLOCK,
                "block_count": count,
                "blocks": {str(p): s for p, s in positions.items()},
                "depth": root.depth,
                "root": root.digest.hex(),
                "nodes": sorted(d.hex() for d in nodes),
            }
        )
    geometry, root, _ = build(3, {0: 1, 2: 2})
    facts = SystemFacts(family="debian", version="12", firmware="uefi", default_login="root / oscirc")
    document = Manifest("alice", "debian", geometry, root, 2, facts).serialise()
    index = (
        ImageIndex("alice", "debian")
        .with_version(ImageVersion("1.0", digest_of(document), "2026-03-01T12:00:00Z", "première\n"))
        .with_version(ImageVersion("1.1", digest_of(b"other"), "2026-04-01T12:00:00Z"))
        .with_channel("stable", "1.0")
        .with_yank("1.1", Yank("does not boot", "2026-04-02T08:00:00Z"))
        .serialise()
    )
    return {
        "pattern_block": "block(seed) = SHA-256 of the ASCII text '<seed>:<i>' for i = 0 to 2047, concatenated: 65,536 bytes",
        "blocks": [
            {
                "seed": seed,
                "sha256": digest_of(pattern_block(seed)).hex(),
                "path": block_path(digest_of(pattern_block(seed))),
            }
            for seed in (1, 2)
        ],
        "zero": {"size": BLOCK, "digest": ZERO_DIGEST.hex(), "forbidden": digest_of(bytes(BLOCK)).hex()},
        "frames": {
            "accepted": [{"seed": 1, "base64": base64.b64encode(good).decode()}] if len(good) < 1000 else [],
            "refused": [
                {"why": "no magic number", "base64": base64.b64encode(bytes(64)).decode()},
                {"why": "states 1 GiB", "base64": "KLUv/aAAAABAAQAA"},
                {"why": "states no size", "base64": base64.b64encode(b"\x28\xb5\x2f\xfd\x00\x30\x01\x00\x00").decode()},
                {
                    "why": "asks for a 2 MiB window",
                    "base64": base64.b64encode(b"\x28\xb5\x2f\xfd\x80\x58\x00\x00\x01\x00\x01\x00\x00").decode(),
                },
            ],
        },
        "tables": tables,
        "manifest": {"text": document.decode(), "sha256": digest_of(document).hex()},
        "image_index": {"text": index.decode(), "sha256": digest_of(index).hex()},
        **accelerating(document, root.digest),
        "names": {
            "publishers_accepted": ["a", "debian-12", "a..b", "0"],
            "publishers_refused": [
                "",
                "..",
                "../x",
                "a/b",
                "?lice",
                "*",
                "[a]",
                "Alice",
                "-a",
                ".a",
                "root",
                "targets",
                "a" * 64,
                "a_b",
            ],
            "versions_accepted": ["1.0", "12.5+deb_1"],
            "versions_refused": ["+1", "1/2", "1@2", ""],
        },
    }


@pytest.fixture(scope="module")
def vectors():
    return json.loads(VECTORS.read_text(encoding="utf-8"))


def test_the_vectors_are_what_this_implementation_makes(vectors):
    assert vectors == generate()


def test_frames_that_must_be_refused_are(vectors):
    for case in vectors["frames"]["refused"]:
        with pytest.raises(OscircError):
            frame.decode(base64.b64decode(case["base64"]), BLOCK)


def test_documents_parse_and_hash(vectors):
    text = vectors["manifest"]["text"].encode()
    manifest.parse_verified(text, Digest(bytes.fromhex(vectors["manifest"]["sha256"])))
    image_index.parse(vectors["image_index"]["text"].encode(), "alice", "debian")


def test_accelerators_parse_and_hash(vectors):
    listing = accelerators.parse_listing(vectors["listing"].encode())
    assert accelerators.parse_hint(vectors["hint"].encode()).channels == {"stable": listing}
    merged = profile.parse(vectors["profiles"]["merged"].encode())
    assert digest_of(merged.serialise()) == listing.find(PROFILE, "boot").sha256
    index = bundle.parse_index(base64.b64decode(vectors["bundle"]["index_base64"]))
    assert index.length == vectors["bundle"]["length"] == listing.find(BUNDLE, "boot").length
    entries = [[entry.digest.hex(), entry.raw_size] for part in index.segments for entry in part.entries]
    assert entries == vectors["bundle"]["entries"]
    assert entries[0][1] == NODE_SIZE


def test_block_lengths_parse(vectors):
    geometry, root, nodes = build(3, {0: 1, 2: 2})
    parsed = lengths.parse(base64.b64decode(vectors["block_lengths"]["base64"]), geometry)
    assert parsed.manifest.hex() == vectors["manifest"]["sha256"]
    assert list(parsed.nodes[0]) == [vectors["block_lengths"]["node"]]
    assert list(parsed.of_leaf(0, nodes[root.digest]).values()) == vectors["block_lengths"]["blocks"]


def test_a_bundles_segments_decode_whoever_made_them(vectors):
    index = bundle.parse_index(base64.b64decode(vectors["bundle"]["index_base64"]))
    known = {digest_of(pattern_block(seed)): pattern_block(seed) for seed in (1, 2)}
    known |= build(3, {0: 1, 2: 2})[2]
    for part in index.segments:
        stored = _stored_frame(b"".join(known[entry.digest] for entry in part.entries))
        source = segment.SegmentSource(io.BytesIO(stored), part.length)
        assert [bytes(raw) for _, raw in segment.decode(part, source)] == [known[e.digest] for e in part.entries]


def test_a_trace_names_the_blocks_that_were_touched(vectors):
    _, reads = trace.parse(vectors["trace"]["text"].splitlines(keepends=True))
    assert trace.first_touch_order(reads, BLOCK) == vectors["trace"]["touched"]


def test_tables_look_up(vectors):
    for case in vectors["tables"]:
        geometry, root, nodes = build(case["block_count"], {int(p): s for p, s in case["blocks"].items()})
        for position, seed in case["blocks"].items():
            assert table.look_up(geometry, root, int(position), nodes.__getitem__) == digest_of(pattern_block(seed))


def test_names(vectors):
    cases = vectors["names"]
    for name in cases["publishers_accepted"]:
        check_publisher(name)
    for label in cases["versions_accepted"]:
        check_version(label)
    for check, refused in ((check_publisher, cases["publishers_refused"]), (check_version, cases["versions_refused"])):
        for name in refused:
            with pytest.raises(OscircError):
                check(name)


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(generate(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
