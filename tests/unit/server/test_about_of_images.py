"""What publishers say of images: kept as signed, found by search, shown on pages, and harmless wherever it is shown."""

import json
import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from xml.etree import ElementTree as ET

import pytest

from oscirc_blockstore import canonical
from oscirc_blockstore.about import NOTHING_SAID, About

from .server_world import DAY_S, START_S, block
from .test_readme import LINKS, MARKUP

SAID = About(
    "Debian for looms",
    "Weaves by itself.",
    "# Setting up\n\nPull the *lever*.",
    "GPL-2.0-or-later",
    "https://looms.example/debian?a=1&b=2",
    "server",
    MappingProxyType({"12": "2028-06-30"}),
)


@pytest.fixture
def debian(api, alice):
    """alice/debian 1.0, of which nothing is said."""
    disk = alice.build("debian", [block("a")], family="debian", version="12")
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200


@pytest.fixture
def say(api, alice, debian):
    """Says something of it, as a publisher does."""

    def said(about):
        indexes = {"debian": replace(alice.indexes["debian"], about=about)}
        answer = api.call("PUT", "publishers/alice/role", json=alice.offer(indexes))
        assert answer.status_code == 200, answer.text
        alice.took_force(indexes)

    return said


def test_an_image_says_what_was_said_of_it_and_lists_leave_the_readme_out(http, say):
    say(SAID)
    image = http.get("/api/v1/images/alice/debian").json()
    assert image["about"] == SAID.document()
    assert http.get("/images/alice/debian", headers={"Accept": "application/json"}).json() == image
    (listed,) = http.get("/api/v1/images").json()["images"]
    assert listed["about"] == {**SAID.document(), "readme": None}


def test_of_an_image_of_which_nothing_is_said_the_page_says_nothing(http, debian):
    assert http.get("/api/v1/images/alice/debian").json()["about"] == NOTHING_SAID.document()
    text = http.get("/images/alice/debian").text
    for absent in ("What its publisher says", "homepage", "licence", "supported until", "made for"):
        assert absent not in text


def test_the_page_shows_what_is_said(http, say):
    say(SAID)
    text = http.get("/images/alice/debian").text
    for expected in ("Debian for looms", "Weaves by itself.", "GPL-2.0-or-later", "made for", "2028-06-30"):
        assert expected in text
    assert '<h3 id="readme-setting-up">Setting up</h3>' in text
    assert "<em>lever</em>" in text
    assert '<a href="https://looms.example/debian?a=1&amp;b=2" rel="nofollow noopener noreferrer">' in text
    assert '<bdi dir="auto">looms.example</bdi>' in text
    assert "Support of this system ended" not in text


def test_a_system_whose_support_ended_is_warned_of_from_the_day_after(http, say):
    assert START_S == 1_800_000_000  # 2027-01-15
    for day, ended in (("2027-01-15", False), ("2027-01-14", True), ("2027-01-16", False)):
        say(replace(SAID, end_of_life=MappingProxyType({"12": day, "": "2020-01-01"})))
        assert (f"Support of this system ended on {day}" in http.get("/images/alice/debian").text) == ended


def test_a_search_finds_words_of_title_and_summary(http, say):
    queries = ("looms", "WEAVES", "debian itself", "looms weaves 12")

    def counts(query):
        listed = http.get("/api/v1/images", params={"q": query}).json()["images"]
        return http.get("/api/v1/search", params={"q": query}).json()["total"], len(listed)

    assert {counts(query) for query in queries} == {(0, 0)}
    say(SAID)
    assert {counts(query) for query in queries} == {(1, 1)}
    assert "images/alice/debian" in http.get("/", params={"q": "looms"}).text
    say(replace(SAID, title="Debian", summary=""))
    assert {counts(query) for query in queries} == {(0, 0)}


def test_that_something_else_is_said_is_an_event(http, say):
    say(SAID)
    say(replace(SAID, title="Debian"))
    found = http.get("/api/v1/events", params={"kind": "image.described"}).json()["events"]
    assert [each["detail"] for each in found] == [{"title": "Debian for looms"}, {"title": "Debian"}]


def test_the_list_shows_what_is_said_and_chooses_by_it(http, say, world):
    say(SAID)
    (hit,) = http.get("/api/v1/search").json()["images"]
    assert (hit["title"], hit["summary"]) == ("Debian for looms", "Weaves by itself.")
    assert (hit["shown"]["kind"], hit["shown"]["end_of_life"]) == ("server", "2028-06-30")
    for view in ("cards", "table"):
        assert "Debian for looms" in http.get("/", params={"view": view}).text
    chosen = {"kind": "server", "memory": "1 GiB", "support": "for a year or more"}
    assert http.get("/api/v1/search", params=chosen).json()["total"] == 1
    text = http.get("/", params=chosen).text
    for legend in ("Made for", "Runs with memory of", "Support"):
        assert f"<legend>{legend}</legend>" in text
    world.clock.advance(600 * DAY_S)
    assert http.get("/api/v1/search", params=chosen).json()["total"] == 0
    facets = http.get("/api/v1/search").json()["facets"]
    assert facets["support"] == [{"value": "ended", "images": 1, "chosen": False}]
    assert "Support ended on 2028-06-30" in http.get("/").text
    say(NOTHING_SAID)
    facets = http.get("/api/v1/search").json()["facets"]
    assert (facets["support"], facets["kind"]) == ([], [])


@dataclass(frozen=True)
class Raw:
    """An index whose bytes no honest client would write."""

    raw: bytes

    def serialise(self):
        return self.raw


REFUSED = [
    {"title": "right \u202e to left"},
    {"readme": "\u2066isolated"},
    {"readme": "x" * (1 << 20)},
    {"homepage": "javascript:alert(1)"},
    {"homepage": "data:text/html,x"},
    {"summary": "two\nlines"},
    {"end_of_life": {"12": "soon"}},
]


def test_what_may_not_be_said_is_refused_from_whoever_signs_it(api, alice, debian, http):
    whole = json.loads(alice.indexes["debian"].serialise())
    for fields in REFUSED:
        raw = canonical.serialise({**whole, "about": {**SAID.document(), **fields}})
        answer = api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": Raw(raw)}))
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert http.get("/api/v1/images/alice/debian").json()["about"] == NOTHING_SAID.document()


@pytest.fixture
def hostile(say):
    """Everything that may be said, said in bad faith."""
    readme = "\n\n".join([*MARKUP, *(f"[x]({link})" for link in LINKS), "\u05d0\u0301" * 2_000, "x" * 60_000])[:60_000]
    say(
        About(
            '"><script>alert(1)</script>' + "\u05d0\u202f" * 20,
            "</bdi></p><script>alert(2)</script><!--",
            readme,
            "<img src=x onerror=alert(3)>]]>",
            "https://x.example/?'onclick=alert(4)//&quot;",
            "desktop",
            MappingProxyType({"<script>": "2028-01-01", "": "2020-01-01"}),
        )
    )


def test_hostile_words_are_harmless_on_every_page(http, hostile):
    for path in ("/", "/?view=table", "/?q=%3Cscript%3E", "/images/alice/debian", "/images/alice/debian/versions"):
        answer = http.get(path)
        assert answer.status_code == 200
        text = answer.text
        assert len(re.findall(r"<script", text, re.IGNORECASE)) == 1  # the page's own
        assert not re.search(r"<(img|iframe|style|base|meta http-equiv|object|h1>another|b )", text, re.IGNORECASE)
        assert not re.search(r"<[^>]*\s(on[a-z]+|style)\s*=", text, re.IGNORECASE)
        assert not re.search(r'(href|src|action)="\s*(javascript|data|vbscript|//)', text, re.IGNORECASE)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert len(text) < 1_000_000
    assert text.count("</main>") == 1


def test_hostile_words_leave_the_feed_and_the_answers_in_json_readable(http, hostile):
    ET.fromstring(http.get("/feed.atom").text)  # noqa: S314  # our own
    for path in ("/", "/images/alice/debian"):
        answer = http.get(path, headers={"Accept": "application/json"})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        answer.json()
    for path in ("images", "images/alice/debian", "search"):
        assert http.get(f"/api/v1/{path}").headers["content-type"] == "application/json"
    assert len(http.get("/api/v1/images").content) < 10_000  # without READMEs
