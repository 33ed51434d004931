"""`oscirc remote mirrors`: a user's own list beside the repository's, and how each mirror does."""

import json

import pytest
from support.repository_simulator import RepositorySimulator, SimulatedDocuments

from oscirc import mount_facts
from oscirc.__main__ import main
from oscirc.commands import mirrors
from oscirc_remote.remotes import Remotes

from .test_status_text import MIRROR

HOME, NAMED = "http://home.example/repo", "http://named.example/repo"
MINE, OTHER = "http://mine.example/repo", "http://other.example/repo"


@pytest.fixture(autouse=True)
def remote():
    """The remote `home`, whose repository names one mirror."""
    repository = RepositorySimulator(mirrors=(NAMED,))
    Remotes().add("home", repository.line(HOME), open_documents=lambda url: SimulatedDocuments(url, repository.files))


@pytest.fixture
def run(capsys):
    def run(*arguments, code=0):
        assert main(["remote", "mirrors", "home", *arguments]) == code
        out, err = capsys.readouterr()
        return err if code else json.loads(out) if "--json" in arguments else out

    return run


@pytest.fixture
def told(monkeypatch):
    """What the mounts of the remote say of their mirrors: fill it."""
    told = {}
    monkeypatch.setattr(mirrors, "_standings", lambda name: told if name == "home" else {})
    return told


def sources(run):
    return [(each["url"], each["from"]) for each in run("--json")["mirrors"]]


def test_the_repository_s_own_address_comes_first_then_what_it_names_then_what_the_user_adds(run):
    run("--add", MINE)
    assert sources(run) == [(HOME, "remote"), (NAMED, "repository"), (MINE, "you")]
    assert run("--json")["sources"] == [HOME, NAMED, MINE]


def test_the_user_s_list_is_replaced_added_to_taken_from_and_forgotten(run):
    run(MINE, OTHER)
    assert [url for url, whose in sources(run) if whose == "you"] == [MINE, OTHER]
    run("--remove", f"{MINE}/", "--add", "http://new.example/r")
    assert [url for url, whose in sources(run) if whose == "you"] == [OTHER, "http://new.example/r"]
    run("--add", OTHER)  # again does no harm
    assert [url for url, whose in sources(run) if whose == "you"] == [OTHER, "http://new.example/r"]
    run("--clear")
    assert sources(run) == [(HOME, "remote"), (NAMED, "repository")]


def test_what_the_repository_names_cannot_be_removed(run):
    said = run("--remove", NAMED, code=2)
    assert "what the repository names is not yours to remove" in said
    assert sources(run)[1] == (NAMED, "repository")


@pytest.mark.parametrize("url", ["ftp://x/y", "http://user:secret@x/y", "http://x/y?z", "x", ""])
def test_what_is_no_address_of_a_mirror_is_refused_and_changes_nothing(run, url):
    run(MINE)
    run("--add", url, code=2)
    assert sources(run)[2:] == [(MINE, "you")]


def test_a_remote_that_there_is_not_is_said(run, capsys):
    assert main(["remote", "mirrors", "nobody"]) == 3
    assert "nobody" in capsys.readouterr().err


STATES = {
    "not used now": [],
    "not asked yet": [{**MIRROR, "score": 0.0}],
    "45 ms per block": [MIRROR, {**MIRROR, "score": 60.0}],
    "demoted for 7 s: it is out": [
        MIRROR,
        {**MIRROR, "demoted": True, "demoted_for_s": 7.2, "last_problem": "it is out"},
    ],
    "LIED: forged": [{**MIRROR, "demoted": True}, {**MIRROR, "lied": True, "last_problem": "forged"}],
    "LIED: a cache on the way": [{**MIRROR, "lied": True}],
}


@pytest.mark.parametrize("state", STATES)
def test_the_worst_that_any_mount_says_of_a_mirror_is_shown(run, told, state):
    told[HOME] = STATES[state]
    (line,) = (line for line in run().splitlines() if line.startswith(HOME))
    assert state in line
    assert run("--json")["mirrors"][0]["mounts"] == STATES[state]


def test_mounts_of_other_remotes_and_dead_ones_are_not_asked(monkeypatch, run):
    class Record:
        def __init__(self, remote, alive):
            self.remote, self.mountpoint, self.process = remote, f"/mnt/{remote}", self
            self.alive = lambda: alive

    from oscirc_fusedriver import records

    everybody = [Record("home", alive=True), Record("home", alive=False), Record("other", alive=True)]
    monkeypatch.setattr(records, "list_records", lambda: everybody)
    asked = []
    monkeypatch.setattr(
        mount_facts, "running", lambda record: asked.append(record) or {"mirrors": [{**MIRROR, "name": HOME}]}
    )
    (of_home, of_named) = run("--json")["mirrors"]
    assert asked == everybody[:1]
    assert of_home["mounts"] == [{"mountpoint": "/mnt/home", **MIRROR, "name": HOME}]
    assert of_named["mounts"] == []
