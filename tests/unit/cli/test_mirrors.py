"""`oscirc remote mirrors`: a user's own list beside the repository's, and how each mirror does."""

import functools
import json

import pytest
from support.repository_simulator import RepositorySimulator, SimulatedDocuments

from oscirc import mirror_probe, mount_facts
from oscirc.__main__ import main
from oscirc.commands import mirrors
from oscirc_blockstore.errors import NotServedError, OversizedResponseError, ServerRefusedError, UnreachableError
from oscirc_remote.remotes import Remotes

from .test_status_text import MIRROR

HOME, NAMED = "http://home.example/repo", "http://named.example/repo"
MINE, OTHER = "http://mine.example/repo", "http://other.example/repo"


@pytest.fixture(autouse=True)
def repository(monkeypatch):
    """The remote `home`, whose repository names one mirror; every address serves that repository."""
    repository = RepositorySimulator(mirrors=(NAMED,))

    def open_documents(url):
        return SimulatedDocuments(url, repository.files)

    Remotes().add("home", repository.line(HOME), open_documents=open_documents)
    ask = functools.partial(mirror_probe.probe_all, open_documents=open_documents)
    monkeypatch.setattr(mirror_probe, "probe_all", ask)
    return repository


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


def asking(monkeypatch, answers):
    """Let each new mirror be asked answer with bytes or an error; gives what was asked for."""
    asked = []

    class Documents:
        def __init__(self, url):
            self.url = url

        def fetch_document(self, path, _limit_bytes, _deadline):
            asked.append((self.url, path))
            answer = answers[self.url]
            if isinstance(answer, Exception):
                raise answer
            return answer

        def close(self):
            pass

    ask = functools.partial(mirror_probe.probe_all, open_documents=Documents)
    monkeypatch.setattr(mirror_probe, "probe_all", ask)
    return asked


def test_a_new_mirror_is_asked_for_the_pinned_root_and_an_old_one_is_not(monkeypatch, run):
    remote = Remotes().load("home")
    asked = asking(monkeypatch, {MINE: remote.root(), OTHER: remote.root()})
    assert run("--add", MINE, "--json")["probed"] == [{"url": MINE, "outcome": "serves it", "problem": ""}]
    assert asked == [(MINE, f"roots/{remote.root_digest.hex()}.json")]
    run("--add", OTHER)
    assert [url for url, _ in asked] == [MINE, OTHER]
    assert run("--remove", MINE, "--json")["probed"] == []


@pytest.mark.parametrize("problem", [UnreachableError("nobody"), ServerRefusedError("broken", status=503)])
def test_a_mirror_that_does_not_answer_now_is_added_with_a_warning(monkeypatch, run, capsys, problem):
    asking(monkeypatch, {MINE: problem, OTHER: problem})
    (probed,) = run("--add", MINE, "--json")["probed"]
    assert probed == {"url": MINE, "outcome": "unreachable", "problem": str(problem)}
    assert main(["remote", "mirrors", "home", "--add", OTHER]) == 0
    assert f"warning: {OTHER} was added, though it does not answer now: {problem}" in capsys.readouterr().err
    assert [url for url, whose in sources(run) if whose == "you"] == [MINE, OTHER]


@pytest.mark.parametrize(
    ("answer", "code"),
    [(NotServedError("none"), 3), (b'{"signed": "another root"}', 4), (OversizedResponseError("a film"), 4)],
)
def test_what_serves_something_else_is_no_mirror_and_nothing_is_changed(monkeypatch, run, answer, code):
    asking(monkeypatch, {MINE: Remotes().load("home").root(), OTHER: answer})
    assert OTHER in run(MINE, OTHER, code=code)
    assert sources(run) == [(HOME, "remote"), (NAMED, "repository")]


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
