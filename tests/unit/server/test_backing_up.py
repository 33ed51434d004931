"""Backups: made beside a running server, whole or not at all, for their owner alone, and judged before they are used."""

import json
import sqlite3
import stat
from dataclasses import replace

import pytest

from oscirc_blockstore.errors import BusyError, DocumentRefusedError, LocalError, NotFoundError, UsageError
from oscirc_server import backing_up, running
from oscirc_server.backing_up import back_up, backups, check, read, url_without_password
from oscirc_server.engines import parse_url
from oscirc_server.restoring import restore

from .server_world import DAY_S, block


@pytest.fixture
def place(tmp_path):
    return tmp_path / "backups"


def test_a_backup_holds_the_database_and_the_keys_and_nobody_else_can_read_it(world, installation, place, api, alice):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    made = back_up(installation, place)
    assert made == read(made.directory) == backups(place)[0]
    keys = {f"keys/{path.name}" for path in installation.layout.keys.glob("*.pem")}
    assert keys
    assert set(made.files) == {"oscirc.db"} | keys
    assert made.roles == {
        role.role: role.version for role in world.administration.status().roles if role.role in made.roles
    }
    for path in [place, made.directory, *made.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    check(made)


def test_it_is_consistent_while_somebody_writes(installation, place, api):
    with installation.database.write() as session:
        session.connection().exec_driver_sql("CREATE TABLE half (x)")
        session.connection().exec_driver_sql("INSERT INTO half VALUES (1)")
        made = back_up(installation, place)
    with sqlite3.connect(made.directory / "oscirc.db") as copy:
        assert not copy.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall()
    copy.close()


def test_the_newest_are_kept_and_strangers_folders_are_left_alone(world, installation, place):
    (place / "notes").mkdir(parents=True)
    made = []
    for _ in range(4):
        made.append(back_up(installation, place, keep=2).directory)
        world.clock.advance(DAY_S)
    assert [each.directory for each in backups(place)] == made[2:]
    assert (place / "notes").is_dir()
    assert not list(place.glob(".*"))


def test_one_that_fails_leaves_nothing_and_removes_nothing(world, installation, place, monkeypatch):
    first = back_up(installation, place, keep=1)
    world.clock.advance(DAY_S)

    def fail(_source, target):
        target.write_bytes(b"half")
        raise LocalError("no space left")

    monkeypatch.setattr(backing_up, "_copy_sqlite", fail)
    with pytest.raises(LocalError, match="no space"):
        back_up(installation, place, keep=1)
    assert list(place.iterdir()) == [first.directory]


@pytest.mark.parametrize(
    ("name", "raw", "error"),
    [
        ("oscirc.db", b"something else", DocumentRefusedError),
        ("oscirc.db", None, DocumentRefusedError),
        ("backup.json", None, NotFoundError),
        ("backup.json", b"{}", DocumentRefusedError),
        ("backup.json", b"[" * 5000, DocumentRefusedError),
        ("backup.json", b'{"format": "oscirc-backup-9"}', DocumentRefusedError),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_changes(world, installation, place, name, raw, error):
    made = back_up(installation, place)
    path = made.directory / name
    path.unlink()
    if raw is not None:
        path.write_bytes(raw)
    before = {path: path.read_bytes() for path in world.data.rglob("*") if path.is_file()}
    with pytest.raises(error):
        restore(world.settings, read(made.directory), world.clock)
    assert {path: path.read_bytes() for path in world.data.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../oscirc.db", "/etc/passwd", "keys/../../x", "a/b/c", ""])
def test_a_backup_names_no_file_elsewhere(installation, place, name):
    made = back_up(installation, place)
    facts = json.loads((made.directory / "backup.json").read_text())
    facts["files"][name] = "0" * 64
    (made.directory / "backup.json").write_text(json.dumps(facts))
    with pytest.raises(DocumentRefusedError, match="elsewhere"):
        read(made.directory)


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


def test_a_running_servers_data_is_not_replaced(world, place):
    with world.open() as opened:
        made = back_up(opened, place)
    with world.open() as opened, running._only_server(opened), pytest.raises(BusyError, match="a server runs"):
        restore(world.settings, made, world.clock)


def test_a_backup_of_another_kind_of_database_is_refused(world, installation, place):
    made = back_up(installation, place)
    other = replace(world.settings, database_url="postgresql://oscirc@127.0.0.1:1/oscirc")
    with pytest.raises(UsageError, match="postgresql"):
        restore(other, made, world.clock)


def test_a_password_is_in_the_environment_of_postgresqls_programs_and_not_among_their_arguments():
    text, secret = url_without_password(parse_url("postgresql://oscirc:pass%40word@db:5433/oscirc?passfile=/x"))
    assert text.startswith("postgresql://oscirc@db:5433/oscirc?")
    assert "passfile=" in text
    assert "word" not in text
    assert "+" not in text  # libpq knows no space but %20
    assert secret == {"PGPASSWORD": "pass@word"}
    assert url_without_password(parse_url("postgresql://oscirc@db/oscirc"))[1] == {}
