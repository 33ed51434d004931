"""Backups: made beside a running server, whole or not at all, for their owner alone, and judged before they are used.

A SQLite file and a PostgreSQL dump, each by its own means. What only a SQLite file has, journals beside it and the lock
of the one server that may run on it, is tried there alone; what takes their place on PostgreSQL is tried there.
"""

import json
import shutil
import sqlite3
import stat
import subprocess
from dataclasses import replace

import pytest
from support.places import POSTGRESQL, SQLITE

from oscirc_blockstore.errors import BusyError, DocumentRefusedError, LocalError, NotFoundError, UsageError
from oscirc_server import backing_up, running
from oscirc_server.backing_up import (
    POSTGRESQL_NAME,
    SQLITE_NAME,
    back_up,
    backups,
    check,
    read,
    url_without_password,
)
from oscirc_server.engines import parse_url
from oscirc_server.restoring import restore

from .server_world import DAY_S, block

ON_SQLITE = pytest.mark.parametrize("new_place", [SQLITE], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("new_place", [POSTGRESQL], indirect=True)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "backups"


@pytest.fixture
def database_name(world):
    """Of the file in a backup."""
    return SQLITE_NAME if world.place.database_url is None else POSTGRESQL_NAME


def tables_in(made):
    """The names of the tables that a backup holds."""
    if made.database == "sqlite":
        copy = sqlite3.connect(made.directory / SQLITE_NAME)
        names = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        copy.close()
        return names
    command = ["pg_restore", "--list", made.directory / POSTGRESQL_NAME]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return {words[5] for words in map(str.split, listing.splitlines()) if words[3:4] == ["TABLE"] and len(words) > 5}


def everything(world):
    """All that a restore could change (a lock that was taken leaves its file)."""
    files = [path for path in world.data.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path: path.read_bytes() for path in files}, world.place.save_database()


def test_a_backup_holds_the_database_and_the_keys_and_nobody_else_can_read_it(
    world, installation, place, api, alice, database_name
):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    made = back_up(installation, place)
    assert made == read(made.directory) == backups(place)[0]
    keys = {f"keys/{path.name}" for path in installation.layout.keys.glob("*.pem")}
    assert keys
    assert set(made.files) == {database_name} | keys
    assert made.roles == {
        role.role: role.version for role in world.administration.status().roles if role.role in made.roles
    }
    for path in [place, made.directory, *made.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    check(made)


def test_it_is_consistent_while_somebody_writes(installation, place, api):
    with installation.database.write() as session:
        session.connection().exec_driver_sql("CREATE TABLE half (x INTEGER)")
        session.connection().exec_driver_sql("INSERT INTO half VALUES (1)")
        made = back_up(installation, place)
    assert "drafts" in tables_in(made)
    assert "half" not in tables_in(made)
    assert "half" in tables_in(back_up(installation, place / "later"))


def test_the_newest_are_kept_and_strangers_folders_are_left_alone(world, installation, place):
    (place / "notes").mkdir(parents=True)
    made = []
    for _ in range(4):
        made.append(back_up(installation, place, keep=2).directory)
        world.clock.advance(DAY_S)
    assert [each.directory for each in backups(place)] == made[2:]
    assert (place / "notes").is_dir()
    assert not list(place.glob(".*"))


def test_a_key_that_a_rotation_retires_meanwhile_is_in_the_backup_all_the_same(world, installation, place, monkeypatch):
    (first, *_) = sorted(installation.layout.keys.glob("*.pem"))
    copyfile = shutil.copyfile

    def while_it_is_retired(source, target):
        if first.exists():
            first.rename(f"{first}.retired")
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", while_it_is_retired)
    made = back_up(installation, place)
    names = {path.name for path in installation.layout.keys.glob("*.pem*")}
    assert f"{first.name}.retired" in names
    assert {path.name for path in (made.directory / "keys").iterdir()} == names


def test_a_key_that_is_a_link_to_nowhere_is_told_and_nothing_is_left(installation, place):
    (installation.layout.keys / "snapshot.lost.pem").symlink_to("nowhere")
    with pytest.raises(LocalError, match="No such file"):
        back_up(installation, place)
    assert list(place.iterdir()) == []


def test_one_that_fails_leaves_nothing_and_removes_nothing(world, installation, place, monkeypatch):
    first = back_up(installation, place, keep=1)
    world.clock.advance(DAY_S)

    def fail(_source, target):
        target.write_bytes(b"half")
        raise LocalError("no space left")

    monkeypatch.setattr(backing_up, "_copy_sqlite", fail)
    monkeypatch.setattr(backing_up, "_dump", fail)
    with pytest.raises(LocalError, match="no space"):
        back_up(installation, place, keep=1)
    assert list(place.iterdir()) == [first.directory]


@pytest.mark.parametrize(
    ("name", "raw", "error"),
    [
        ("the database", b"something else", DocumentRefusedError),
        ("the database", None, DocumentRefusedError),
        ("backup.json", None, NotFoundError),
        ("backup.json", b"{}", DocumentRefusedError),
        ("backup.json", b"[" * 5000, DocumentRefusedError),
        ("backup.json", b'{"format": "oscirc-backup-9"}', DocumentRefusedError),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_changes(
    world, installation, place, name, raw, error, database_name
):
    made = back_up(installation, place)
    path = made.directory / (database_name if name == "the database" else name)
    path.unlink()
    if raw is not None:
        path.write_bytes(raw)
    before = everything(world)
    with pytest.raises(error):
        restore(world.settings, read(made.directory), world.clock)
    assert everything(world) == before


@pytest.mark.parametrize("name", ["../oscirc.db", "/etc/passwd", "keys/../../x", "a/b/c", ""])
def test_a_backup_names_no_file_elsewhere(installation, place, name):
    made = back_up(installation, place)
    facts = json.loads((made.directory / "backup.json").read_text())
    facts["files"][name] = "0" * 64
    (made.directory / "backup.json").write_text(json.dumps(facts))
    with pytest.raises(DocumentRefusedError, match="elsewhere"):
        read(made.directory)


@ON_SQLITE
def test_what_stands_there_is_set_aside_and_a_journal_is_not_played_into_another_database(world, place, alice):
    with world.open() as opened:
        made = back_up(opened, place)
    database = world.data / "oscirc.db"
    with sqlite3.connect(database) as later:
        later.execute("PRAGMA journal_mode=WAL")
        later.execute("CREATE TABLE later (x)")
    (world.data / "oscirc.db-wal").write_bytes(b"a journal that is not this file's")
    later.close()
    (world.data / "keys" / "snapshot.pem").write_bytes(b"another key")
    aside = restore(world.settings, made, world.clock)
    assert {path.name.partition(".before-")[0] for path in aside} == {"oscirc.db", "snapshot.pem"}
    assert all(path.exists() for path in aside)
    assert not (world.data / "oscirc.db-wal").exists()
    with world.open() as opened:
        back_up(opened, place / "again")
    assert world.administration.status().images == 0
    assert restore(world.settings, made, world.clock)[0].name.startswith("oscirc.db.before-")  # twice is fine


@ON_POSTGRESQL
def test_it_goes_into_an_empty_database_and_into_no_other(world, place, api, alice):
    """Who runs a server on one has its tables there: a running server's database is not replaced either."""
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    with world.open() as opened:
        made = back_up(opened, place)
    (world.data / "keys" / "snapshot.pem").write_bytes(b"another key")
    before = everything(world)
    with pytest.raises(UsageError, match="not empty"):
        restore(world.settings, made, world.clock)
    assert everything(world) == before
    empty = replace(world.place, database=world.place.cluster.create())
    again = replace(world, place=empty)
    assert [path.name.partition(".before-")[0] for path in restore(again.settings, made, world.clock)] == [
        "snapshot.pem"
    ]
    assert again.administration.status() == world.administration.status()
    assert again.administration.status().images == 1


@ON_SQLITE
def test_a_running_servers_data_is_not_replaced(world, place):
    with world.open() as opened:
        made = back_up(opened, place)
    with world.open() as opened, running._only_server(opened), pytest.raises(BusyError, match="a server runs"):
        restore(world.settings, made, world.clock)


def test_a_backup_of_another_kind_of_database_is_refused(world, installation, place):
    made = back_up(installation, place)
    url = "postgresql://oscirc@127.0.0.1:1/oscirc" if made.database == "sqlite" else f"sqlite:///{place / 'other.db'}"
    with pytest.raises(UsageError, match=url.partition(":")[0]):
        restore(replace(world.settings, database_url=url), made, world.clock)
    assert not (place / "other.db").exists()


def test_a_password_is_in_the_environment_of_postgresqls_programs_and_not_among_their_arguments():
    text, secret = url_without_password(parse_url("postgresql://oscirc:pass%40word@db:5433/oscirc?passfile=/x"))
    assert text.startswith("postgresql://oscirc@db:5433/oscirc?")
    assert "passfile=" in text
    assert "word" not in text
    assert "+" not in text  # libpq knows no space but %20
    assert secret == {"PGPASSWORD": "pass@word"}
    assert url_without_password(parse_url("postgresql://oscirc@db/oscirc"))[1] == {}
