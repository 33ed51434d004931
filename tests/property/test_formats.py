"""Every format comes back as it was, has one encoding, and survives any bytes thrown at it."""

import contextlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from support.pictures import chunk, header, picture

from oscirc_blockstore import canonical, frame, image_index, manifest, names, png, screenshot, table
from oscirc_blockstore.digests import ZERO_DIGEST, block_digest, digest_of
from oscirc_blockstore.disk_source import ByteRange, aligned
from oscirc_blockstore.errors import IntegrityError, NameRefusedError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.png_making import Picture, encode
from oscirc_blockstore.table import Geometry, TableBuilder, TableRoot

NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,62}", fullmatch=True).filter(lambda n: n not in names.TUF_TOP_LEVEL_ROLES)
LABELS = st.from_regex(r"[a-z0-9][a-z0-9.+_-]{0,62}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs")), max_size=60)
DATES = st.datetimes().map(lambda d: d.strftime("%Y").zfill(4) + d.strftime("-%m-%dT%H:%M:%SZ"))
DIGESTS = st.binary(min_size=1, max_size=8).map(digest_of)
GEOMETRIES = st.builds(
    lambda sectors, shift: Geometry(sectors * 512, 1 << shift), st.integers(1, 1 << 32), st.integers(16, 20)
)


@given(st.binary(max_size=40), st.integers(16, 18), st.integers(1, 12))
def test_frames_come_back(pattern, shift, level):
    size = 1 << shift
    raw = (pattern * (size // max(1, len(pattern)) + 1))[:size].ljust(size, b"\0")
    assert frame.decode(frame.encode(raw, level), size) == raw


@given(st.binary(max_size=3000), st.sampled_from([32768, 65536]))
def test_any_bytes_as_a_frame_are_refused_cleanly(junk, size):
    with contextlib.suppress(IntegrityError):
        assert len(frame.decode(frame.MAGIC + junk, size)) == size


@given(GEOMETRIES, st.data())
@settings(deadline=None)
def test_tables_come_back_whatever_is_left_out(geometry, data):
    blocks = data.draw(st.dictionaries(st.integers(0, geometry.block_count - 1), DIGESTS, max_size=40))
    nodes = {}
    builder = TableBuilder(geometry, nodes.__setitem__)
    for position, digest in sorted(blocks.items()):
        builder.add(position, digest)
    root = builder.finish()
    load = nodes.__getitem__
    assert dict(table.iterate_blocks(geometry, root, load)) == blocks
    found = table.contents(geometry, root, load)
    assert set(found.nodes) == set(nodes)
    assert set(found.blocks) == set(blocks.values())
    assert found.data_blocks == len(blocks)
    for position in [*list(blocks)[:5], 0, geometry.block_count - 1]:
        assert table.look_up(geometry, root, position, load) == blocks.get(position, ZERO_DIGEST)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, geometry.block_count)] * 2)))
    inside = {p: d for p, d in blocks.items() if start <= p < stop}
    assert dict(table.iterate_blocks(geometry, root, load, start, stop)) == inside


@given(GEOMETRIES, st.data())
@settings(deadline=None)
def test_differences_are_exactly_the_positions_that_differ(geometry, data):
    positions = st.dictionaries(st.integers(0, geometry.block_count - 1), DIGESTS, max_size=20)
    one, two = data.draw(positions), data.draw(positions)
    two = {**{p: d for p, d in one.items() if p % 3}, **two}
    nodes = {}
    roots = []
    for blocks in (one, two):
        builder = TableBuilder(geometry, nodes.__setitem__)
        for position, digest in sorted(blocks.items()):
            builder.add(position, digest)
        roots.append(builder.finish())
    found = {p: (a, b) for p, a, b in table.differences(geometry, *roots, nodes.__getitem__)}
    expected = {
        p: (one.get(p, ZERO_DIGEST), two.get(p, ZERO_DIGEST))
        for p in one.keys() | two.keys()
        if one.get(p) != two.get(p)
    }
    assert found == expected


@given(GEOMETRIES, NAMES, NAMES, DIGESTS, TEXT, TEXT, st.integers(1, 1 << 24), st.sampled_from(["bios", "uefi"]))
def test_manifests_come_back_byte_for_byte(geometry, publisher, image, root, family, login, memory, firmware):
    facts = SystemFacts(family=family, default_login=login, minimum_memory_mib=memory, firmware=firmware)
    made = Manifest(publisher, image, geometry, TableRoot(root, geometry.depth), geometry.block_count, facts)
    raw = made.serialise()
    assert manifest.parse(raw) == made
    assert manifest.parse(raw).serialise() == raw


VERSIONS = st.lists(
    st.builds(ImageVersion, LABELS, DIGESTS, DATES, TEXT, st.none() | st.builds(Yank, TEXT, DATES, st.booleans())),
    unique_by=lambda v: v.label,
    max_size=8,
)


@given(NAMES, NAMES, VERSIONS, st.lists(NAMES, max_size=4), st.randoms())
def test_indexes_come_back_byte_for_byte(publisher, image, versions, channels, random):
    index = ImageIndex(publisher, image, tuple(versions))
    for channel in channels if versions else []:
        index = index.with_channel(channel, random.choice(versions).label)
    raw = index.serialise()
    assert image_index.parse(raw, publisher, image) == index


@given(st.binary(max_size=2000))
def test_any_bytes_as_a_document_are_refused_cleanly(junk):
    for parse in (manifest.parse, lambda raw: image_index.parse(raw, "a", "b")):
        with contextlib.suppress(IntegrityError):
            parse(junk)


@given(st.data(), st.integers(1, 40), st.integers(1, 12))
def test_any_screen_becomes_a_picture_that_the_checker_takes(data, width, height):
    pixel = st.sampled_from(data.draw(st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=300)))
    rows = data.draw(st.lists(pixel, min_size=width, max_size=width))
    shown = Picture(width, height, b"".join(rows) * height)
    raw = encode(shown)
    assert png.check(raw) == png.PictureSize(width, height)
    assert screenshot.parse(screenshot.build(digest_of(b"x"), "words", raw)).png == raw


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.integers(0, 6))
def test_any_bytes_in_a_picture_are_refused_cleanly(junk, kind, colour):
    for raw in (
        junk,
        png.SIGNATURE + junk,
        picture(between=chunk(kind, junk)),
        picture(data=chunk(b"IDAT", junk)),
        picture(head=header(colour=colour), palette=None, rows=junk),
        picture(palette=junk),
        picture(head=chunk(b"IHDR", junk[:13])),
        picture(behind=junk),
    ):
        with contextlib.suppress(IntegrityError):
            png.check(raw)
        with contextlib.suppress(IntegrityError):
            screenshot.parse(raw)
        with contextlib.suppress(IntegrityError):
            png.bare(raw)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), JSON, max_size=5))
def test_canonical_json_has_one_form(document):
    raw = canonical.serialise(document)
    assert canonical.parse(raw, 1 << 20, "it") == document
    for other in (raw + b" ", b" " + raw, raw[:1] + b" " + raw[1:]):
        try:
            canonical.parse(other, 1 << 20, "it")
        except IntegrityError:
            continue
        raise AssertionError(other)


@given(st.text(max_size=70))
def test_a_name_that_passes_is_safe_as_file_url_and_pattern(text):
    try:
        names.check_version(text)
    except NameRefusedError:
        return
    assert 0 < len(text) <= 63
    assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789.+_-")
    assert text[0] not in ".-+_"


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 300)), max_size=20),
    st.sampled_from([1, 64, 512]),
)
def test_aligned_extents_cover_the_same_bytes_once(pieces, unit):
    size = 6000
    starts, ranges, at = sorted(pieces), [], 0
    for start, length in starts:
        low = max(at, start)
        high = min(size, low + length)
        ranges.append(ByteRange(low, high))
        at = high
    result = list(aligned(iter(ranges), unit, size))
    expected = {b // unit for r in ranges for b in range(r.start, r.stop)}
    covered = [b // unit for r in result for b in range(r.start, r.stop, unit)]
    assert sorted(covered) == sorted(expected)
    assert all(r.start % unit == 0 and (r.stop % unit == 0 or r.stop == size) for r in result)
    assert all(a.stop < b.start for a, b in itertools.pairwise(result))


@given(st.integers(16, 18), st.binary(min_size=0, max_size=3))
def test_zeros_have_one_name(shift, tail):
    raw = bytes((1 << shift) - len(tail)) + tail
    assert (block_digest(raw) == ZERO_DIGEST) == (not any(raw))
