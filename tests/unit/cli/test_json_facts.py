"""What commands that change something say for programs: one JSON document, and nothing else on standard output."""

import contextlib
import json

import pytest

from oscirc import composition
from oscirc.__main__ import main
from oscirc.commands import oidc, quotas, users
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import NotFoundError
from oscirc_blockstore.local_store import LocalStore
from oscirc_remote import paths
from oscirc_remote.cache_layout import STORE_DIRECTORY


@pytest.fixture
def told(capsys):
    def told(*arguments):
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return told


@pytest.fixture
def server(monkeypatch):
    """Takes every request; remembers them."""
    calls = []

    def call(_remote, _token_file, method, path, *_document):
        calls.append((method, path))
        return {}

    for module in (users, quotas, oidc):
        monkeypatch.setattr(module, "api_call", call)
    return calls


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["user", "disable", "bea"], {"user": "bea", "disabled": True}),
        (["user", "enable", "bea"], {"user": "bea", "disabled": False}),
        (["user", "password", "bea", "--remove"], {"user": "bea", "password": False}),
        (["user", "grant", "bea", "debian"], {"user": "bea", "publisher": "debian", "role": "publisher"}),
        (["user", "withdraw", "bea", "debian"], {"user": "bea", "publisher": "debian", "role": None}),
        (["robot", "disable", "debian/nightly"], {"robot": "debian/nightly", "disabled": True}),
        (["robot", "enable", "debian/nightly"], {"robot": "debian/nightly", "disabled": False}),
        (
            ["quota", "set", "debian", "--unique", "1K", "--logical", "none"],
            {"publisher": "debian", "limits": {"unique_bytes": 1024, "logical_bytes": None}},
        ),
        (["quota", "clear", "debian"], {"publisher": "debian", "limits": None}),
        (["oidc", "trust", "https://ci.example"], {"issuer": "https://ci.example", "trusted": True}),
        (["oidc", "distrust", "https://ci.example"], {"issuer": "https://ci.example", "trusted": False}),
        (["oidc", "forbid", "debian", "7f"], {"publisher": "debian", "removed": "7f"}),
    ],
)
def test_what_was_changed_at_a_server_is_told(server, told, arguments, facts):
    assert told(*arguments) == facts
    assert len(server) == 1


@pytest.mark.parametrize(
    ("there", "removed"), [(("bundle", "profile"), ["bundle", "profile"]), (("profile",), ["profile"]), ((), [])]
)
def test_which_parts_of_a_profile_were_there_is_told(monkeypatch, told, there, removed):
    class Client:
        def call(self, _method, path):
            if path.split("/")[-2] not in there:
                raise NotFoundError(path)

    class Wanted:
        remote, publisher, image, version = None, "alice", "debian", "1"

    monkeypatch.setattr(composition, "parse_version_reference", lambda _text: Wanted)
    monkeypatch.setattr(composition, "rest_client", lambda *_how: contextlib.nullcontext(Client()))
    assert told("profile", "remove", "alice/debian@1", "desktop") == {"name": "desktop", "removed": removed}


def test_a_cleared_cache_is_counted(told):
    store = LocalStore(paths.cache_directory() / STORE_DIRECTORY)
    store.save(digest_of(b"block"), b"block")
    assert told("cache", "clear", "--yes") == {"removed_blocks": 1}
    assert told("cache", "clear", "--yes") == {"removed_blocks": 0}


def test_a_cache_is_not_cleared_without_a_yes_and_the_question_is_not_among_the_facts(monkeypatch, capsys):
    store = LocalStore(paths.cache_directory() / STORE_DIRECTORY)
    store.save(digest_of(b"block"), b"block")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: "n")
    assert main(["cache", "clear", "--json"]) == 130
    assert capsys.readouterr().out == ""
    assert store.has(digest_of(b"block"))


def test_where_nothing_was_mounted_that_is_the_outcome(told, tmp_path):
    assert told("umount", tmp_path) == {"mounts": [{"mountpoint": str(tmp_path), "outcome": "not_mounted"}]}
