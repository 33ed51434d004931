"""What is said of an image: bounded, without what reorders or hides text, and a part of the signed index."""

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore import about, canonical, image_index
from oscirc_blockstore.about import MAX_README_BYTES, NOTHING_SAID, About
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, check_successor

SAID = About(
    "Debian 12",
    "A small system, for servers.",
    "# Debian\n\n\tno password\n",
    "GPL-2.0-or-later AND others",
    "https://example.org:8443/debian?x=1#top",
    "server",
    MappingProxyType({"12": "2028-06-30", "": "2030-01-01"}),
)
V1 = ImageVersion("1.0", digest_of(b"m1"), "2026-03-01T12:00:00Z")
INDEX = ImageIndex("alice", "debian").with_version(V1).with_channel("stable", "1.0")


def test_what_is_said_comes_back_as_it_was():
    assert about.parse(SAID.document()) == SAID
    index = replace(INDEX, about=SAID)
    assert image_index.parse(index.serialise(), "alice", "debian") == index


def test_an_index_in_which_nothing_is_said_is_what_it_was_before_anything_could_be():
    assert b"about" not in INDEX.serialise()
    assert image_index.parse(INDEX.serialise(), "alice", "debian").about == NOTHING_SAID
    document = {**json.loads(INDEX.serialise()), "about": NOTHING_SAID.document()}
    with pytest.raises(DocumentRefusedError, match="leave it out"):
        image_index.parse(canonical.serialise(document), "alice", "debian")


def test_a_successor_may_say_something_else_or_nothing():
    check_successor(replace(INDEX, about=SAID), INDEX)
    check_successor(INDEX, replace(INDEX, about=SAID))


def test_of_an_image_that_is_deleted_nothing_is_said_any_more():
    gone = replace(INDEX, about=SAID).without_all(date="2026-05-01T00:00:00Z")
    assert gone.about == NOTHING_SAID


def test_the_end_of_a_version_of_the_system_is_its_own_or_that_of_all_others():
    assert (SAID.ends("12"), SAID.ends("13"), NOTHING_SAID.ends("12")) == ("2028-06-30", "2030-01-01", "")


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "x" * 101},
        {"title": "two\nlines"},
        {"title": None},
        {"summary": "x" * 301},
        {"summary": "evil \u202e txt"},
        {"licence": "x" * 201},
        {"readme": "x" * (MAX_README_BYTES + 1)},
        {"readme": "é" * (MAX_README_BYTES // 2 + 1)},
        {"readme": "x" * (1 << 20)},
        {"readme": "\x1b[2J"},
        {"readme": "a\r\nb"},
        {"readme": "right \u202eto\u202c left"},
        {"readme": "isolated \u2066text\u2069"},
        {"readme": "hidden\u200btext"},
        {"readme": ["a"]},
        {"kind": "laptop"},
        {"end_of_life": {"12": "2028-02-30"}},
        {"end_of_life": {"12": "2028-6-30"}},
        {"end_of_life": {"12": "20280630"}},
        {"end_of_life": {"12": "\uff12\uff10\uff12\uff18-06-30"}},
        {"end_of_life": {"12": 2028}},
        {"end_of_life": {"1\n2": "2028-06-30"}},
        {"end_of_life": {"x" * 65: "2028-06-30"}},
        {"end_of_life": {str(number): "2028-06-30" for number in range(101)}},
        {"end_of_life": []},
        {"surplus": ""},
    ],
)
def test_what_cannot_be_shown_as_it_is_is_refused(fields):
    with pytest.raises(DocumentRefusedError):
        about.parse({**SAID.document(), **fields})


@pytest.mark.parametrize("field", SAID.document())
def test_a_field_that_is_missing_is_refused(field):
    document = SAID.document()
    del document[field]
    with pytest.raises(DocumentRefusedError, match="lacks"):
        about.parse(document)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "HTTPS://example.org/",
        "javascript:alert(1)//https://example.org",
        "data:text/html,x",
        "https:example.org",
        "https:///x",
        "https://",
        "//example.org",
        "https://user@example.org/",
        "https://user:word@example.org/",
        "https://example.org\\@evil.example/",
        "https://exa mple.org/",
        "https://example.org/\n",
        'https://example.org/"onclick=',
        "https://example.org/<b>",
        "https://ex\u0430mple.org/",
        "https://[::1]/",
        "https://-x.org/",
        "https://example.org:99999999/",
        "https://" + "x" * 500,
    ],
)
def test_a_homepage_that_is_no_plain_https_address_is_refused(url):
    with pytest.raises(DocumentRefusedError):
        about.parse({**SAID.document(), "homepage": url})


def test_an_invisible_character_is_named_with_its_line_and_why_it_is_refused():
    with pytest.raises(DocumentRefusedError, match=r"U\+200D in line 3") as caught:
        about.check(About(readme="# Debian\n\nmade by \U0001f469\u200d\U0001f4bb"))
    assert "emoji" in caught.value.hint
    with pytest.raises(DocumentRefusedError, match=r"U\+0007$") as caught:
        about.check(About(title="ring\x07"))
    assert "emoji" not in caught.value.hint


@given(st.builds(About, *[st.text(max_size=40)] * 6, st.dictionaries(st.text(max_size=4), st.text(max_size=10))))
def test_whatever_is_said_is_refused_or_comes_back(said):
    try:
        checked = about.check(said)
    except DocumentRefusedError:
        return
    assert checked == said
    raw = replace(INDEX, about=said).serialise()
    assert image_index.parse(raw, "alice", "debian").about == said
