"""The database: its form is the models', its transactions are all or nothing."""

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select, text

from oscirc_blockstore.errors import LocalError, UsageError
from oscirc_server.database import Database, get_fact, insert_new, set_fact, sqlite_url
from oscirc_server.models import Base, BlockRow, Fact


@pytest.fixture
def database(tmp_path):
    opened = Database(sqlite_url(tmp_path / "a.db"))
    opened.migrate()
    yield opened
    opened.close()


def test_the_migrations_make_what_the_models_say(database, tmp_path):
    database.migrate()  # again, which changes nothing
    engine = create_engine(sqlite_url(tmp_path / "a.db"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_a_database_of_a_newer_program_is_refused(database):
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LocalError, match="another version"):
        database.migrate()


@pytest.mark.parametrize("url", ["nothing", "sqlite+nodriver:///x", "postgresql+nodriver://host/x"])
def test_a_url_that_is_none_is_a_usage_error(url):
    with pytest.raises(UsageError):
        Database(url)


def test_a_database_that_cannot_be_opened_is_a_local_error(tmp_path):
    (tmp_path / "a.db").write_bytes(b"no database" * 100)
    for path in (tmp_path / "a.db", tmp_path / "absent" / "a.db"):
        broken = Database(sqlite_url(path))
        with pytest.raises(LocalError):
            broken.migrate()
        broken.close()


def test_a_failed_write_leaves_nothing(database):
    with pytest.raises(RuntimeError), database.write() as session:
        set_fact(session, "a", "1")
        session.flush()
        raise RuntimeError
    with database.read() as session:
        assert get_fact(session, "a") is None


def test_facts_are_replaced(database):
    for value in ("1", "2"):
        with database.write(durable=True) as session:
            set_fact(session, "a", value)
    with database.read() as session:
        assert get_fact(session, "a") == "2"


def test_rows_that_exist_are_left_as_they_are(database):
    def row(digest, length):
        return {"digest": digest, "raw_size": 1, "stored_length": length, "state": "live", "created_s": 1}

    with database.write() as session:
        insert_new(session, BlockRow, [])
        insert_new(session, BlockRow, [row(b"a" * 32, 1)])
        insert_new(session, BlockRow, [row(b"a" * 32, 2), row(b"b" * 32, 2)])
    with database.read() as session:
        assert list(session.scalars(select(BlockRow.stored_length).order_by(BlockRow.digest))) == [1, 2]


def test_writers_wait_for_each_other_and_readers_for_nobody(database):
    entered, leave = threading.Event(), threading.Event()

    def first():
        with database.write() as session:
            set_fact(session, "a", "first")
            entered.set()
            leave.wait()

    def second():
        with database.write() as session:
            set_fact(session, "a", f"{get_fact(session, 'a')}, then second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    entered.wait()
    threads[1].start()
    with database.read() as session:
        assert session.scalar(select(Fact.value)) is None
    leave.set()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert get_fact(session, "a") == "first, then second"
