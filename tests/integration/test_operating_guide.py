"""docs/operating.md: its backup is made and put back with the commands of the page, on SQLite and on PostgreSQL.

What was released after the backup must still be there when the older database is put back; no version number is used
twice; and with backup and mirror a repository comes back on an empty machine.
"""

import json
import random
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support import postgresql
from support.commands import Repository, Workstation, add_publisher, end, free_port, wait_for_line

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
SECTIONS = ("Backup", "Putting it back", "All is lost")


def lines_of(section):
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    assert found, section
    return found


class Site:
    """The server's machine and the mirror's; `/srv` is a folder of the test."""

    def __init__(self, directory, database):
        self.directory = directory
        self.srv = directory / "srv"
        self.srv.mkdir()
        self.data = self.srv / "oscirc"
        self.environment = {"OSCIRC_DATABASE": database} if database else {}
        self.server = Workstation(directory / "server", extra=self.environment)
        self.mirror = Workstation(directory / "mirror")
        self.port = free_port()
        self.process = None
        self.said = {}

    def run(self, line):
        machine, command = re.fullmatch(r"(server|mirror)\$ (.*)", line).groups()
        backups = sorted(path.name for path in (self.srv / "backups").glob("*")) or [""]
        command = command.replace("/srv/", f"{self.srv}/").replace("NEWEST", backups[-1])
        words = shlex.split(command)
        if words[0] != "oscirc":
            subprocess.run(words, check=True)
        elif words[1] == "serve" and words[2].startswith("--"):
            self.start(words[2:])
        else:
            self.said[" ".join(words[1:3])] = getattr(self, machine).run(*words[1:])

    def start(self, options):
        self.stop()
        where = ("--listen", f"127.0.0.1:{self.port}", "--jobs", "off", "--log-level", "error")
        self.process = self.server.start("serve", *options, *where, stdout=subprocess.PIPE, text=True)
        wait_for_line(self.process, "listening on")

    def stop(self):
        if self.process is not None:
            end(self.process)
            self.process = None


@pytest.fixture(scope="module")
def cluster():
    with postgresql.cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def site(request, tmp_path):
    url = ""
    if request.param == "postgresql":
        made = request.getfixturevalue("cluster")
        name = made.create()
        url = made.url(name)
    site = Site(tmp_path, url)
    if url:
        site.set_aside = lambda: made.execute(f"ALTER DATABASE {name} RENAME TO {name}_before")
        site.empty = lambda: made.execute(f"CREATE DATABASE {name}")
    else:
        site.set_aside = site.empty = lambda: None
    yield site
    site.stop()
    if url:
        for each in (name, f"{name}_before"):
            made.drop(each)


def roles_of(tree):
    return {int(path.name.split(".")[0]): path.read_bytes() for path in tree.glob("metadata/*.snapshot.json")}


def publishing_to(site, directory):
    """A running repository; gives how alice publishes a version there, and how a reader sees which is the newest."""
    public = f"http://127.0.0.1:{site.port}"
    made = site.server.json("serve", "init", "--data", site.data, "--public-url", public)
    site.start(("--data", str(site.data)))
    repository = Repository(site.data, site.data / "keys", made["remote_url"], made["admin_token"], site.port)
    alice, reader = Workstation(directory / "alice"), Workstation(directory / "reader")
    add_publisher(alice, repository, "alice")
    site.mirror.run("remote", "add", "images", repository.url)
    reader.run("remote", "add", "test", repository.url)

    def publish(version):
        disk = directory / f"{version}.raw"
        disk.write_bytes(random.Random(version).randbytes(700_000).ljust(1 << 20, b"\0"))
        alice.run("publish", disk, f"test:alice/debian@{version}", "--key", "alice", "--deltas", "0")

    return publish, lambda: reader.json("show", "test:alice/debian")["version"]


def test_an_older_backup_is_put_back_and_later_a_lost_repository(site, tmp_path):
    publish, seen = publishing_to(site, tmp_path)
    publish(1)
    for line in lines_of("Backup"):
        site.run(line)
    (backup,) = (site.srv / "backups").iterdir()
    assert json.loads((backup / "backup.json").read_text())["database"] == (
        "postgresql" if site.environment else "sqlite"
    )
    publish(2)
    assert seen() == "2"
    site.stop()

    signed = roles_of(site.data / "tree")
    site.set_aside()
    if not site.environment:
        (site.data / "oscirc.db").write_bytes(b"damaged")
    site.empty()
    for line in lines_of("Putting it back"):
        site.run(line)
    assert seen() == "2"
    publish(3)
    assert seen() == "3"
    after = roles_of(site.data / "tree")
    assert {number: after[number] for number in signed} == signed  # no number was used twice
    site.run("mirror$ oscirc mirror sync images /srv/mirror")
    site.stop()

    shutil.rmtree(site.data)
    if site.environment:
        empty = ("-c", "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        subprocess.run(["psql", "-qX", site.environment["OSCIRC_DATABASE"], *empty], check=True, capture_output=True)
    for line in lines_of("All is lost"):
        site.run(line)
    assert seen() == "3"
    publish(4)
    assert seen() == "4"


def test_a_restore_is_refused_where_it_would_write_over_something(site, tmp_path):
    site.server.run("serve", "init", "--data", site.data, "--public-url", "http://127.0.0.1:1")
    site.run("server$ oscirc serve backup /srv/backups --data /srv/oscirc")
    (backup,) = (site.srv / "backups").iterdir()
    if site.environment:
        told = site.server.refused("serve", "restore", backup, "--data", site.data, code=2)
        assert "not empty" in told
    else:
        site.start(("--data", str(site.data)))
        assert "stop it first" in site.server.refused("serve", "restore", backup, "--data", site.data, code=6)


def test_every_section_of_the_page_that_has_commands_is_run_here():
    titles = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
    assert [
        title
        for title in titles
        if "```console" in PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    ] == list(SECTIONS)
