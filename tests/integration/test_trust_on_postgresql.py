"""Several processes on one PostgreSQL renew once; a database that is restored from an older copy reuses no number."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from in_process import client_of
from server_world import PASSPHRASE, Api, MovableClock, Publisher, block

from oscirc_server import repository
from oscirc_server.administration import Administration
from oscirc_server.app import create_app
from oscirc_server.initialising import initialise
from oscirc_server.installation import Installation
from oscirc_server.reconciling import reconcile
from oscirc_server.settings import Settings

DAY_S = 86_400
RENEW = """
import sys
from pathlib import Path
from oscirc_server.installation import Installation
from oscirc_server.repository import renew_online
from oscirc_server.settings import Settings
with Installation.open(Settings(data_dir=Path(sys.argv[1]), database_url=sys.argv[2])) as installation:
    print("ready", flush=True)
    sys.stdin.readline()
    print(renew_online(installation), flush=True)
"""


@pytest.fixture
def database(postgresql):
    name = postgresql.create()
    yield name
    postgresql.drop(name)


def made(tmp_path, url, clock, store=None):
    places = {"database_url": url, "blocks_url": store}
    return initialise(tmp_path / "data", tmp_path / "keys", PASSPHRASE, None, "test", clock=clock, **places)


def versions(tmp_path, url):
    settings = Settings(data_dir=tmp_path / "data", database_url=url)
    with Installation.open(settings) as installation, installation.database.read() as session:
        return {role: repository.current_version(session, role) for role in ("snapshot", "timestamp")}


def test_of_four_processes_that_find_renewal_due_one_renews(tmp_path, postgresql, database):
    url = postgresql.url(database)
    made(tmp_path, url, MovableClock(time.time() - 2 * DAY_S))
    before = versions(tmp_path, url)
    command = [sys.executable, "-c", RENEW, str(tmp_path / "data"), url]
    servers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for server in servers:
            assert server.stdout.readline() == "ready\n"
        for server in servers:
            server.stdin.write("go\n")
            server.stdin.flush()
        answers = [server.communicate(timeout=60)[0].strip() for server in servers]
    finally:
        for server in servers:
            if server.poll() is None:
                server.kill()
                server.wait()
    assert sorted(answers) == sorted([str(before["snapshot"] + 1), "None", "None", "None"])
    assert versions(tmp_path, url) == {role: number + 1 for role, number in before.items()}


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_an_older_copy_of_the_database_reuses_no_number(tmp_path, postgresql, database, place, request, monkeypatch):
    clock = MovableClock(time.time())
    store = None
    if place == "bucket":
        s3 = request.getfixturevalue("s3")
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        store = s3.url(s3.bucket())
    url = postgresql.url(database)
    token = made(tmp_path, url, clock, store).admin_token
    alice = Publisher("alice", clock)
    administration = Administration(tmp_path / "data", database_url=url, blocks_url=store, clock=clock)
    administration.add_publisher("alice", [alice.public_pem], tmp_path / "keys", PASSPHRASE)

    def release(url, version):
        settings = Settings(data_dir=tmp_path / "data", database_url=url, blocks_url=store)
        with Installation.open(settings, clock) as installation:
            reconcile(installation)
            with client_of(create_app(installation)) as http:
                return Api(http, token).publish(alice, "debian", version, alice.build("debian", [block(version)]))

    def numbered():
        settings = Settings(data_dir=tmp_path / "data", database_url=url, blocks_url=store)
        with Installation.open(settings, clock) as installation:
            paths = [file.path for file in installation.storage.files("metadata") if "timestamp" not in file.path]
            return {path: installation.storage.get(path, 1 << 20) for path in paths}

    assert release(url, "1").status_code == 200
    postgresql.end_sessions(database)
    backup = postgresql.create(template=database)
    for version in ("2", "3"):
        assert release(url, version).status_code == 200
    last = versions(tmp_path, url)
    signed = numbered()
    answer = release(postgresql.url(backup), "4")
    assert (answer.status_code, answer.json()["role_version"]) == (200, 4)
    after = versions(tmp_path, postgresql.url(backup))
    assert after["snapshot"] > last["snapshot"]
    assert after["timestamp"] > last["timestamp"]
    assert len(signed) > 10
    assert signed.items() <= numbered().items()
    postgresql.drop(backup)
