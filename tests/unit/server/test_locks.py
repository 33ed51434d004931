"""Named locks: among threads, among processes, and gone with their holder or its connection."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_server.engines import open_engine
from oscirc_server.errors import SupersededError
from oscirc_server.locks import DatabaseLocks, FileLocks

HOLD = """
import sys
from pathlib import Path
from oscirc_server.engines import open_engine
from oscirc_server.locks import DatabaseLocks, FileLocks

where = sys.argv[1]
locks = DatabaseLocks(open_engine(where, autocommit=True)) if "://" in where else FileLocks(Path(where))
with locks.held("writer"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["file", "database"])
def where(request, tmp_path):
    if request.param == "file":
        yield str(tmp_path / "locks")
    else:
        cluster = request.getfixturevalue("postgresql")
        name = cluster.create()
        yield cluster.url(name)
        cluster.drop(name)


@pytest.fixture
def opened(where):
    """Makes one process's locks after another; all are closed at the end."""
    made = []

    def open_locks():
        made.append(DatabaseLocks(open_engine(where, autocommit=True)) if "://" in where else FileLocks(Path(where)))
        return made[-1]

    yield open_locks
    for locks in made:
        locks.close()


def test_a_name_is_held_by_one_at_a_time_among_threads_and_processes(opened):
    ours, theirs = opened(), opened()
    with ours.held("writer") as held:
        held.confirm()
        for other in (ours, theirs):
            with pytest.raises(BusyError, match="changing the repository"), other.held("writer", wait_s=0.05):
                pass
            with other.try_held("writer") as mine:
                assert not mine
    with theirs.try_held("writer") as mine:
        assert mine
        mine.confirm()


def test_names_do_not_stand_in_each_others_way(opened):
    locks = opened()
    with locks.held("writer"), locks.held("collector"), locks.try_held("job:1") as one, locks.try_held("job:2") as two:
        assert one
        assert two


def test_a_lock_is_free_again_after_an_error(opened):
    ours, theirs = opened(), opened()
    with pytest.raises(RuntimeError), ours.held("collector"):
        raise RuntimeError
    with theirs.try_held("collector") as mine:
        assert mine


def test_who_waits_gets_it_as_soon_as_it_is_free(opened):
    ours, theirs = opened(), opened()
    order = []
    entered = threading.Event()

    def wait(locks, name):
        entered.set()
        with locks.held("writer"):
            order.append(name)

    with ours.held("writer"):
        threads = [threading.Thread(target=wait, args=(locks, "second")) for locks in (ours, theirs)]
        for thread in threads:
            thread.start()
        entered.wait()
        order.append("first")
    for thread in threads:
        thread.join()
    assert order == ["first", "second", "second"]


def test_a_killed_process_lets_go(where, opened):
    locks = opened()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        with locks.try_held("writer") as mine:
            assert not mine
        process.kill()
        process.wait()
        with locks.held("writer"):
            pass


def test_a_lock_file_that_cannot_be_made_is_a_local_error(tmp_path):
    with pytest.raises(LocalError, match="cannot lock"), FileLocks(tmp_path / "absent" / "locks").held("writer"):
        pass


@pytest.fixture
def database_locks(postgresql):
    name = postgresql.create()
    made = [DatabaseLocks(open_engine(postgresql.url(name), autocommit=True)) for _ in range(2)]
    yield postgresql, name, *made
    for locks in made:
        locks.close()
    postgresql.drop(name)


def test_whoever_lost_its_connection_is_told_that_it_holds_the_lock_no_longer(database_locks):
    cluster, name, ours, theirs = database_locks
    with ours.held("writer") as held:
        held.confirm()
        cluster.end_sessions(name)
        with theirs.held("writer") as taken_over:
            with pytest.raises(SupersededError, match="no longer"):
                held.confirm()
            with pytest.raises(SupersededError):  # and stays so
                held.confirm()
            taken_over.confirm()
    with ours.held("writer") as held:  # a new connection
        held.confirm()


def test_a_lock_that_its_own_session_gave_up_is_not_confirmed(database_locks):
    """As behind a pooler that hands one session to several clients."""
    _, _, ours, _ = database_locks
    with pytest.raises(SupersededError), ours.held("writer") as held:
        held._connection.execute(text("SELECT pg_advisory_unlock_all()"))
        held.confirm()
    with ours.held("writer") as held:
        held.confirm()
