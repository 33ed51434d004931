"""Search: what is counted is what is shown, whatever was chosen; and it is quick where there is much."""

import pytest
from sqlalchemy import event, insert

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import Yank
from oscirc_server.models import VersionRow
from oscirc_server.services import search
from oscirc_server.services.facets import FACETS
from oscirc_server.services.listing import Listing
from oscirc_server.services.search import MAX_VALUE_CHARS, Question

from .server_world import block
from .test_app import is_problem

FAMILIES = ("debian", "fedora", "alpine", "arch", "freebsd")


def row(number, label, *, shown, searched=True, publisher=None, **facts):
    publisher = publisher or f"publisher-{number % 7}"
    image = f"image-{number:05}"
    family = FAMILIES[number % len(FAMILIES)]
    architecture = ("x86_64", "aarch64", "riscv64")[number % 3]
    values = {
        "publisher": publisher,
        "image": image,
        "label": f"{label}.0",
        "name": f"{publisher}/{image}",
        "position": label,
        "manifest": bytes(32),
        "state": "released" if searched else "yanked",
        "state_date": "",
        "state_why": "",
        "security": False,
        "released": f"2027-01-{1 + number % 28:02}T08:00:00Z",
        "changelog": "",
        "shown": shown,
        "searched": searched,
        "family": family,
        "system_version": str(label + number % 4),
        "architecture": architecture,
        "firmware": ("bios", "uefi")[number % 2],
        "minimum_memory_mib": (256, 1024, 3000, 32_768)[number // 2 % 4],
        "default_login": "",
        "kind": ("", "desktop", "server")[number // 4 % 3],
        "end_of_life": ("", "1969-12-31", "1970-01-01", "1975-06-30")[(number + label) % 4],
        "block_size": 65536,
        "disk_size": 1 << 30,
        "data_bytes": 1 << 28,
        "download_bytes": 1 << 27,
    } | facts
    text = " ".join(
        str(values[name]) for name in ("name", "label", "family", "system_version", "architecture", "firmware")
    )
    return values | {"search_text": text}


def fill(installation, images, versions):
    with installation.database.write() as session:
        for number in range(images):
            rows = [
                row(number, label, shown=label == versions - 1, searched=label != 0 or versions == 1)
                for label in range(versions)
            ]
            session.execute(insert(VersionRow), rows)


@pytest.fixture
def some(installation):
    fill(installation, 60, 4)


def ask(installation, question=None, **options):
    with installation.database.read() as session:
        return search.search(Listing(lambda: 0), session, question or Question(), **{"limit": 200, **options})


QUESTIONS = [
    Question(),
    Question("debian"),
    Question("", {"family": ["debian"]}),
    Question("", {"family": ["debian", "arch"], "firmware": ["uefi"]}),
    Question("image-0001", {"architecture": ["x86_64"]}),
    Question("", {"version": ["3"], "publisher": ["publisher-1", "publisher-2"]}),
    Question("", {"family": ["nothing"]}),
    Question("", {"memory": ["1 GiB", "more than 16 GiB"], "support": ["supported"]}),
    Question("debian", {"kind": ["server"], "support": ["for a year or more", "ended"]}),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_every_number_of_a_facet_is_what_choosing_that_value_shows(installation, some, question):
    found = ask(installation, question)
    assert found.total == len(found.hits)
    for facet, values in found.facets.items():
        for value in values:
            chosen = {**question.chosen, facet: [value.value]}
            shown = ask(installation, Question(question.text, chosen))
            assert value.images == shown.total == len(shown.hits), (facet, value)


def test_a_choice_leaves_the_other_values_of_its_facet_in_sight(installation, some):
    families = ask(installation, Question("", {"family": ["debian"]})).facets["family"]
    assert {value.value: value.chosen for value in families} == {name: name == "debian" for name in FAMILIES}


def test_what_was_chosen_and_is_not_there_is_shown_as_none(installation, some):
    family = ask(installation, Question("", {"family": ["plan9"]})).facets["family"]
    assert [(value.value, value.images) for value in family if value.chosen] == [("plan9", 0)]


@pytest.mark.parametrize("sort", ["name", "released"])
def test_pages_follow_each_other_to_the_end(installation, some, sort):
    whole = [hit.shown.name for hit in ask(installation, Question("bios", sort=sort)).hits]
    seen, after = [], ""
    while after is not None:
        page = ask(installation, Question("bios", sort=sort), after=after, limit=7)
        seen += [hit.shown.name for hit in page.hits]
        after = page.after
    assert seen == whole
    assert len(set(seen)) == len(seen) == 30


def test_the_newest_release_comes_first_where_that_is_asked(installation, some):
    dates = [hit.shown.released for hit in ask(installation, Question(sort="released")).hits]
    assert dates == sorted(dates, reverse=True)


def test_an_image_is_found_by_an_older_version_and_says_which(installation, some):
    hits = ask(installation, Question("image-00000", {"version": ["1"]})).hits
    assert [(hit.shown.label, hit.matches, hit.newest_match) for hit in hits] == [("3.0", 1, "1.0")]


def test_yanked_versions_find_nothing_unless_they_stand_for_their_image(http, api, alice):
    for label in ("1.0", "2.0"):
        disk = alice.build("debian", [block(label)], family="debian", version=label)
        assert api.publish(alice, "debian", label, disk).status_code == 200
    index = alice.indexes["debian"].with_yank("1.0", Yank("x", "2027-01-16T08:00:00Z"))
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index})).status_code == 200
    found = http.get("/api/v1/search").json()
    assert [(hit["boot"], hit["matches"]) for hit in found["images"]] == [("oscirc boot alice/debian@2.0", 1)]
    assert http.get("/api/v1/search?version=1.0").json()["total"] == 0


def test_the_api_answers_with_facets_and_a_link(http, some):
    answer = http.get("/api/v1/search", params={"family": ["debian", "arch"], "limit": 2, "q": "bios"})
    found = answer.json()
    assert (found["total"], len(found["images"])) == (12, 2)
    assert answer.headers["link"].startswith("<search?family=debian&family=arch&limit=2&q=bios&after=publisher-")
    assert [value["value"] for value in found["facets"]["family"] if value["chosen"]] == ["arch", "debian"]
    assert set(found["facets"]) == {facet.name for facet in FACETS}


@pytest.mark.parametrize("word", ["%", "a_e", "\\", "'; DROP TABLE versions; --", "%%%%"])
def test_what_a_database_would_obey_is_only_text(http, some, word):
    assert http.get("/api/v1/search", params={"q": word}).json()["total"] == 0
    assert http.get("/api/v1/search", params={"family": word}).json()["total"] == 0


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 201}, {"q": "x" * 201}, {"sort": "size"}, {"family": ["x"] * 21}]
)
def test_questions_out_of_bounds_are_refused(http, params):
    is_problem(http.get("/api/v1/search", params=params), 422)


def test_too_many_words_and_places_that_are_none_are_refused(installation, http):
    is_problem(http.get("/api/v1/search", params={"q": "a " * 11}), 400)
    is_problem(http.get("/api/v1/search?sort=released&after=x"), 400)
    with pytest.raises(UsageError):
        ask(installation, Question("", {"colour": ["red"]}))


def test_what_is_chosen_is_bounded_since_each_value_links_to_all_the_others(http):
    long = http.get("/", params={"family": "x" * (MAX_VALUE_CHARS + 1)})
    many = http.get("/", params={facet: [str(n) for n in range(20)] for facet in ("family", "publisher", "kind")})
    assert {long.status_code, many.status_code} == {400}
    most = http.get("/", params={facet: ["ä" * 100 + str(n) for n in range(20)] for facet in ("family", "publisher")})
    assert most.status_code == 200
    assert len(most.content) < 3 << 20


def test_a_search_is_two_statements_however_much_there_is_and_however_much_it_shows(installation, some):
    listing = Listing(lambda: 0)
    with installation.database.read() as session:
        listing.current(session)
        asked = []
        event.listen(session.connection(), "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        for question in (Question(), Question("image", {"family": ["debian"]}), Question(sort="released")):
            asked.clear()
            assert search.search(listing, session, question, limit=50).hits
            assert len(asked) == 2  # whether something changed; and of the page, the versions that are shown


def test_what_a_warm_search_reads_it_reads_by_key(installation, some):
    listing = Listing(lambda: 0)
    with installation.database.read() as session:
        connection = session.connection()
        listing.current(session)
        asked = []
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        search.search(listing, session, Question(), limit=50)
        if connection.dialect.name == "sqlite":  # what PostgreSQL's planner chooses depends on how much there is
            plans = [
                connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {each}", values).all() for each, values in asked[:2]
            ]
            assert all(
                "SEARCH" in line[3] for line in plans[0] + plans[1] if line[3].partition(" ")[0] in ("SCAN", "SEARCH")
            )
