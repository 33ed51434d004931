"""Listings and hints: what is refused of documents that nobody signed, and what is passed over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore import accelerators, canonical
from oscirc_blockstore.accelerators import BUNDLE, PROFILE, Accelerator, Hint, Listing, parse_hint, parse_listing
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError

DISK = digest_of(b"disk")
FILE = Accelerator(BUNDLE, "boot", digest_of(b"file"), 1000, 200)
LISTING = Listing(DISK, (FILE, Accelerator(PROFILE, "boot", digest_of(b"profile"), 30)))
_NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)
_FILES = st.builds(
    lambda kind, name, content, length, share: Accelerator(kind, name, digest_of(content), length, length * share // 9),
    st.sampled_from((BUNDLE, PROFILE)),
    _NAMES,
    st.binary(max_size=4),
    st.integers(1, 1 << 40),
    st.integers(0, 9),
)
_LISTINGS = st.lists(_FILES, max_size=8, unique_by=lambda each: (each.kind, each.name)).map(
    lambda files: Listing(DISK, tuple(files))
)


@given(_LISTINGS)
def test_a_listing_is_read_as_it_was_written(listing):
    assert parse_listing(listing.serialise()) == listing


@given(st.dictionaries(_NAMES, _LISTINGS, max_size=5))
def test_a_hint_is_read_as_it_was_written(channels):
    hint = Hint("alice", "debian", channels)
    assert parse_hint(hint.serialise()) == hint


def changed(raw, change):
    document = json.loads(raw)
    change(document)
    return canonical.serialise(document)


def first(document):
    return document["accelerators"][0]


def test_an_accelerator_of_another_kind_is_passed_over_whatever_it_holds():
    raw = changed(LISTING.serialise(), lambda document: document["accelerators"].append({"kind": "picture", "x": [1]}))
    assert parse_listing(raw) == LISTING


def test_what_is_not_listed_is_not_found():
    assert LISTING.find(BUNDLE, "boot") == FILE
    assert LISTING.find(BUNDLE, "desktop") is None
    assert FILE.path == f"accel/{digest_of(b'file').hex()}"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(format="oscirc-accelerators-2"),
        lambda document: document.update(manifest="00"),
        lambda document: document.pop("manifest"),
        lambda document: document.update(note=1),
        lambda document: document.update(accelerators={}),
        lambda document: document.update(accelerators=[1]),
        lambda document: document["accelerators"].append(document["accelerators"][0]),
        lambda document: document.update(accelerators=[{"kind": "picture"}] * (accelerators.MAX_ACCELERATORS + 1)),
        lambda document: first(document).pop("kind"),
        lambda document: first(document).update(kind=["bundle"]),
        lambda document: first(document).update(name="../boot"),
        lambda document: first(document).update(name="Boot"),
        lambda document: first(document).update(sha256="../" + "a" * 61),
        lambda document: first(document).update(sha256=first(document)["sha256"].upper()),
        lambda document: first(document).update(length=0),
        lambda document: first(document).update(length=(1 << 40) + 1),
        lambda document: first(document).update(length=True),
        lambda document: first(document).update(length="1000"),
        lambda document: first(document).update(index_length=1001),
        lambda document: first(document).update(index_length=-1),
        lambda document: first(document).update(url="http://elsewhere.test/"),
    ],
)
def test_a_listing_that_is_not_of_the_one_form_is_refused(change):
    with pytest.raises(DocumentRefusedError):
        parse_listing(changed(LISTING.serialise(), change))


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(format=accelerators.LISTING_FORMAT),
        lambda document: document.update(publisher="?lice"),
        lambda document: document.update(image="../debian"),
        lambda document: document.update(channels=[]),
        lambda document: document["channels"].update({"Not A Channel": document["channels"]["stable"]}),
        lambda document: document["channels"].update(
            {f"c{number}": document["channels"]["stable"] for number in range(accelerators.MAX_CHANNELS)}
        ),
        lambda document: document.update(url="http://elsewhere.test/"),
        lambda document: document["channels"]["stable"].update(format=accelerators.LISTING_FORMAT),
        lambda document: first(document["channels"]["stable"]).update(length=0),
        lambda document: document["channels"]["stable"].update(
            accelerators=[first(document["channels"]["stable"])] * 2
        ),
    ],
)
def test_a_hint_that_is_not_of_the_one_form_is_refused(change):
    with pytest.raises(DocumentRefusedError):
        parse_hint(changed(Hint("alice", "debian", {"stable": LISTING}).serialise(), change))


@pytest.mark.parametrize(("parse", "limit"), [(parse_listing, "MAX_LISTING_BYTES"), (parse_hint, "MAX_HINT_BYTES")])
def test_documents_are_bounded_before_they_are_parsed(parse, limit):
    with pytest.raises(DocumentRefusedError, match="at most"):
        parse(b" " * (getattr(accelerators, limit) + 1))
    with pytest.raises(DocumentRefusedError, match="not JSON"):
        parse(b"[" * getattr(accelerators, limit))


def test_a_hints_place_holds_only_names():
    assert accelerators.hint_path("alice", "debian") == "accel/hints/alice/debian.json"
    for names in (("..", "debian"), ("alice", "a/b"), ("alice", "")):
        with pytest.raises(NameRefusedError):
            accelerators.hint_path(*names)
    assert accelerators.listing_path(DISK) == f"accel/{DISK.hex()}.json"


def test_what_may_not_be_read_is_not_written():
    with pytest.raises(DocumentRefusedError):
        Listing(DISK, (FILE, FILE)).serialise()
    with pytest.raises(DocumentRefusedError):
        Hint("alice", "debian", {"Stable": LISTING}).serialise()


def of(kind, name, length):
    return Accelerator(kind, name, digest_of(f"{kind} {name}".encode()), length)


@pytest.mark.parametrize(
    ("own", "fleet", "chosen"),
    [
        (1000, None, "boot"),
        (1000, 1250, "fleet-boot"),
        (1000, 1251, "boot"),
        (1000, 10, "fleet-boot"),
        (None, accelerators.FLEET_ALONE_BYTES, "fleet-boot"),
        (None, accelerators.FLEET_ALONE_BYTES + 1, None),
        (None, None, None),
        (2 * accelerators.FLEET_ALONE_BYTES, accelerators.FLEET_ALONE_BYTES + 1, "fleet-boot"),
    ],
)
def test_a_fleets_bundle_is_preferred_as_long_as_the_publishers_word_bounds_it(own, fleet, chosen):
    files = [of(PROFILE, "boot", 30), of(PROFILE, "fleet-boot", 31)]
    files += [of(BUNDLE, name, length) for name, length in (("boot", own), ("fleet-boot", fleet)) if length]
    listing = Listing(DISK, tuple(files))
    found = listing.bundle_for("boot")
    assert (found.name if found else None) == chosen
    assert listing.profile_for("boot").name == (chosen or "boot")


def test_a_fleets_profile_alone_is_not_taken_unasked():
    listing = Listing(DISK, (of(PROFILE, "fleet-boot", 31),))
    assert listing.bundle_for("boot") is None
    assert listing.profile_for("boot") is None
    assert listing.profile_for("fleet-boot").name == "fleet-boot"
