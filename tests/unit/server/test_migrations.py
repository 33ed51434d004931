"""Every step of the database's form works on SQLite and on PostgreSQL, from nothing and with rows already there."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from support.places import BOTH, SQLITE

from oscirc_server.database import Database, sqlite_url
from oscirc_server.engines import open_engine
from oscirc_server.models import Base

CONFIG = Config()
CONFIG.set_main_option("script_location", "oscirc_server:migrations")
REVISIONS = [step.revision for step in ScriptDirectory.from_config(CONFIG).walk_revisions()][::-1]


@pytest.fixture(params=BOTH)
def url(request, tmp_path):
    if request.param == SQLITE:
        yield sqlite_url(tmp_path / "a.db")
    else:
        cluster = request.getfixturevalue("postgresql")
        name = cluster.create()
        yield cluster.url(name)
        cluster.drop(name)


@pytest.fixture
def engine(url):
    opened = open_engine(url)
    yield opened
    opened.dispose()


def upgrade(engine, revision):
    with engine.begin() as connection:
        CONFIG.attributes["connection"] = connection
        command.upgrade(CONFIG, revision)


def differences(engine):
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)


def value_for(column, number):
    """Something that the column takes, another one for each number."""
    if isinstance(column.type, sa.LargeBinary):
        return bytes([number]) * (column.type.length or 8)
    if isinstance(column.type, sa.Boolean):
        return True
    if isinstance(column.type, sa.String):
        return f"v{number}"[: column.type.length]
    return number


def fill(engine):
    """Two rows into every table that there is, parents first; returns how many rows each table has."""
    tables = sa.MetaData()
    tables.reflect(engine)
    counts = {}
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            for number in (1, 2):
                row = {column.name: value_for(column, number) for column in table.columns}
                connection.execute(table.insert().values(row))
            counts[table.name] = 2
    return counts


def test_there_is_one_line_of_steps():
    assert len(ScriptDirectory.from_config(CONFIG).get_heads()) == 1
    assert [revision for revision in REVISIONS if not revision.isdigit()] == []
    assert sorted(REVISIONS) == REVISIONS


def test_all_steps_make_what_the_models_say(url, engine):
    database = Database(url)
    database.migrate()
    database.migrate()  # again, which changes nothing
    database.close()
    assert differences(engine) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_earlier_form_with_rows_in_it_becomes_the_newest(engine, revision):
    upgrade(engine, revision)
    before = fill(engine)
    upgrade(engine, "head")
    assert differences(engine) == []
    with engine.connect() as connection:
        for table in before:
            if table == "profile_runs" and revision < "0003":
                continue  # those did not say who sent them: they were dropped on purpose
            count = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608
            assert count >= before[table], table
