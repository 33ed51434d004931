from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_remote.receipts import Receipt, ReceiptBook, parse
from oscirc_remote.references import parse as reference

from .fakes import block, make_image

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RECEIPT = Receipt("alice", "debian", "1", digest_of(b"one"), ("stable",), NOW, NOW + timedelta(days=7))
YANK = Yank("it eats files", "2026-03-02T00:00:00Z", security=True)

labels = st.from_regex(r"[a-z0-9][a-z0-9.+_-]{0,20}", fullmatch=True)
channels = st.lists(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True), unique=True, max_size=4)
dates = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(labels, st.binary(min_size=32, max_size=32), channels, dates, dates, st.sampled_from([None, YANK]))
def test_every_receipt_reads_back(label, digest, names, verified, expires, yanked):
    receipt = Receipt("alice", "debian", label, digest, tuple(sorted(names)), verified, expires, yanked)
    assert parse(canonical.parse(receipt.serialise(), 1 << 20, "it")) == receipt


@pytest.mark.parametrize(
    "change",
    [
        {"format": "oscirc-receipt-9"},
        {"publisher": "../x"},
        {"version": "a/b"},
        {"channels": ["../x"]},
        {"verified": "yesterday"},
        {"verified": "2026-02-31T00:00:00Z"},
        {"extra": 1},
    ],
)
def test_a_malformed_receipt_is_refused(change):
    document = canonical.parse(RECEIPT.serialise(), 1 << 20, "it") | change
    with pytest.raises(DocumentRefusedError):
        parse(document)


@pytest.fixture
def book(tmp_path):
    return ReceiptBook(tmp_path)


def test_a_receipt_is_found_by_version_channel_and_digest(book):
    book.write(RECEIPT)
    for text in ("alice/debian@1", "alice/debian#stable", f"alice/debian@sha256:{RECEIPT.manifest.hex()}"):
        assert book.find(reference(text)) == RECEIPT
    for text in ("alice/debian@2", "alice/debian#testing", "alice/arch", f"alice/debian@sha256:{'00' * 32}"):
        assert book.find(reference(text)) is None


def test_a_channel_leaves_a_receipt_only_for_another(book):
    book.write(RECEIPT)
    second = replace(RECEIPT, version="2", channels=("testing",), verified=NOW + timedelta(days=1))
    book.write(second)
    assert book.find(reference("alice/debian#stable")) == RECEIPT
    third = replace(RECEIPT, version="3", channels=("stable",), verified=NOW + timedelta(days=2))
    book.write(third)
    assert book.find(reference("alice/debian#stable")) == third
    assert book.find(reference("alice/debian@1")).channels == ()


def test_the_receipts_learn_of_yanks_and_of_their_end(book):
    book.write(RECEIPT)
    index = ImageIndex("alice", "debian", (ImageVersion("1", RECEIPT.manifest, "2026-03-01T00:00:00Z", yanked=YANK),))
    book.learn(index)
    assert book.find(reference("alice/debian@1")).yanked == YANK
    book.learn(index.with_yank("1", None))
    assert book.find(reference("alice/debian@1")) == RECEIPT


def test_a_damaged_receipt_is_as_good_as_none(book, tmp_path):
    book.write(RECEIPT)
    path = tmp_path / "receipts/alice/debian/1.json"
    for damage in (b"", b"{}", RECEIPT.serialise().replace(b"alice", b"mallory")):
        path.write_bytes(damage)
        assert book.find(reference("alice/debian@1")) is None


def test_what_cannot_be_looked_at_hides_no_other_receipt(book, tmp_path):
    book.write(RECEIPT)
    (tmp_path / "receipts" / "a-loop").symlink_to("a-loop")
    assert list(book.all()) == [RECEIPT]


def test_a_manifest_is_verified_whenever_it_is_read(book, tmp_path):
    manifest, _ = make_image({0: block(1)}, 1 << 20)
    raw = manifest.serialise()
    assert book.manifest(digest_of(raw)) is None
    book.keep_manifest(digest_of(raw), raw)
    assert book.manifest(digest_of(raw)) == manifest
    (tmp_path / "manifests" / f"{digest_of(raw).hex()}.json").write_bytes(raw + b" ")
    assert book.manifest(digest_of(raw)) is None
