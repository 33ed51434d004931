"""The list in memory follows the database: every change of it, whoever made it, is in the next answer."""

import threading

import pytest
from sqlalchemy import event, select

from oscirc_server.models import ImageRow, VersionRow
from oscirc_server.services import catalog_changes, image_rows, listing
from oscirc_server.services.listing import Listing

from .server_world import block
from .test_search import fill, row

DAY_S = 86_400


@pytest.fixture
def some(installation):
    fill(installation, 20, 3)


def new(clock=lambda: 0):
    return Listing(clock)


def names(listing_, session):
    return [image.name for image in listing_.current(session).images]


def change(installation, number, **values):
    """Add a version to an image, or an image."""
    made = row(number, 9, shown=False) | values
    with installation.database.write() as session:
        session.add(VersionRow(**made))
        catalog_changes.note(session, made["publisher"], made["image"])
    return made


def statements(session):
    asked = []
    event.listen(session.connection(), "before_cursor_execute", lambda *given: asked.append(given[2]))
    return asked


def test_what_did_not_change_is_not_read_again(installation, some):
    mine = new()
    with installation.database.read() as session:
        first = mine.current(session)
        asked = statements(session)
        assert mine.current(session) is first
        assert len(asked) == 1


def test_after_a_change_only_what_it_concerns_is_read(installation, some):
    mine = new()
    with installation.database.read() as session:
        before = mine.current(session)
    made = change(installation, 3)
    with installation.database.read() as session:
        asked = statements(session)
        after = mine.current(session)
        assert len(asked) == 3
    same = [new is old for new, old in zip(after.images, before.images, strict=True)]
    assert same.count(False) == 1
    (image,) = (image for image in after.images if image.name == made["name"])
    assert "9.0" in {label for alike in image.alike for label in alike.labels}


def test_a_change_that_one_process_made_is_in_the_next_answer_of_another(installation, some):
    one, other = new(), new()
    with installation.database.read() as session:
        assert names(one, session) == names(other, session)
    made = change(installation, 77, shown=True)
    for each in (one, other):
        with installation.database.read() as session:
            assert made["name"] in names(each, session)


def test_a_transaction_from_before_a_change_gets_what_it_sees(installation, some):
    mine = new()
    with installation.database.read() as before:
        old = names(mine, before)
        made = change(installation, 77, shown=True)
        with installation.database.read() as after:
            assert made["name"] in names(mine, after)
        assert names(mine, before) == old
        assert len({id(each) for each in mine._kept}) == 2  # nothing was made anew for it


def test_only_two_catalogs_are_kept(installation, some):
    mine = new()
    for number in range(5):
        change(installation, 100 + number, shown=True)
        with installation.database.read() as session:
            mine.current(session)
    assert len(mine._kept) == 2


def test_after_very_many_changes_the_list_is_read_whole(installation, some, monkeypatch):
    monkeypatch.setattr(listing, "MOST_CHANGES", 3)
    mine = new()
    with installation.database.read() as session:
        mine.current(session)
    made = [change(installation, number, shown=True)["name"] for number in range(100, 104)]
    with installation.database.read() as session:
        asked = statements(session)
        assert set(made) <= set(names(mine, session))
        assert len(asked) == 3


def test_a_database_that_went_back_is_read_whole(installation, some):
    mine = new()
    made = change(installation, 77, shown=True)
    with installation.database.read() as session:
        assert made["name"] in names(mine, session)
    with installation.database.write() as session:
        session.delete(session.get(catalog_changes.CatalogChange, (made["publisher"], made["image"])))
        session.delete(session.get(VersionRow, (made["publisher"], made["image"], made["label"])))
    with installation.database.read() as session:
        assert made["name"] not in names(mine, session)


def test_on_another_day_facets_are_laid_out_again_without_reading(installation, some):
    now = [0.0]
    mine = new(lambda: now[0])
    with installation.database.read() as session:
        first = mine.current(session)
        now[0] += DAY_S
        asked = statements(session)
        second = mine.current(session)
        assert len(asked) == 2  # the last change, and what changed since
    assert (first.today, second.today) == ("1970-01-01", "1970-01-02")
    assert all(old is new for old, new in zip(first.images, second.images, strict=True))


def test_many_who_ask_at_once_have_it_read_once(installation, some, monkeypatch):
    read, real = [], listing.image_of
    monkeypatch.setattr(listing, "image_of", lambda *given: read.append(given[0]) or real(*given))
    mine, gate, found = new(), threading.Barrier(6), []

    def ask():
        with installation.database.read() as session:
            gate.wait(30)
            found.append(mine.current(session))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert len(read) == 20


def test_releases_withdrawals_and_departures_are_noted(installation, api, alice):
    seen = []

    def serial():
        with installation.database.read() as session:
            return catalog_changes.last(session)

    for label in ("1.0", "2.0"):
        disk = alice.build("debian", [block(label)], family="debian", version=label)
        assert api.publish(alice, "debian", label, disk).status_code == 200
        seen.append(serial())
    with installation.database.write() as session:
        image_rows.unlist_publisher(session, "alice", 0)
    seen.append(serial())
    with installation.database.write() as session:
        image_rows.forget(session, session.scalars(select(ImageRow)).one(), 0)
    seen.append(serial())
    assert seen == sorted(set(seen))
    assert seen[0] > 0
