"""Delta packs as `publish` makes them: what goes wrong with one does not keep a version from its channel."""

from types import SimpleNamespace

import pytest

from oscirc import packing
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    NotServedError,
    ServerRefusedError,
    UnreachableError,
    UsageError,
)

WANTED = SimpleNamespace(publisher="alice", image="debian", version="3")
DISK = SimpleNamespace(size=1 << 20)


def server_that_says(**facts):
    return SimpleNamespace(call_json=lambda method, path: {"name": "alice", **facts})


@pytest.mark.parametrize("facts", [{}, {"deltas_made": 0}, {"deltas_made": "2"}, {"deltas_made": None}])
def test_a_server_that_does_not_say_that_it_makes_packs_is_left_none(capsys, facts):
    assert not packing.left_to_server(server_that_says(**facts), WANTED, ["2"], "stable", None)
    assert capsys.readouterr().err == ""


def test_a_server_that_makes_packs_is_left_them_and_the_user_is_told(capsys):
    assert packing.left_to_server(server_that_says(deltas_made=2), WANTED, ["2"], "stable", None)
    assert "the delta pack from 2 is left to the server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bases", "channel", "most"), [(["2"], "stable", 1), (["2"], None, None), ([], "stable", None), ([], "stable", 0)]
)
def test_the_server_is_not_asked_where_the_user_says_or_it_would_make_none(bases, channel, most):
    assert not packing.left_to_server(SimpleNamespace(), WANTED, bases, channel, most)


def add(monkeypatch, error):
    def add_packs(_client, _wanted, bases, **_options):
        if bases == ["1"]:
            raise error
        return list(bases)

    monkeypatch.setattr(packing, "add_packs", add_packs)
    monkeypatch.setattr(packing, "has_numpy", lambda: True)
    return packing.add_to_published(WANTED, SimpleNamespace(), ["1", "2"], DISK, 256 << 10, quiet=True)


@pytest.mark.parametrize(
    "error",
    [
        UsageError("more than 262144 blocks differ between these versions"),
        DocumentRefusedError("these versions differ in more than a delta pack can say"),
        NotServedError("an old block is lost"),
        ServerRefusedError("the pack is too large", status=413, problem={}),
    ],
)
def test_a_pack_that_cannot_be_made_or_is_not_taken_is_warned_of(monkeypatch, capsys, error):
    assert add(monkeypatch, error) == ["2"]
    assert f"no delta pack from 1: {error}" in capsys.readouterr().err


@pytest.mark.parametrize("error", [UnreachableError("nobody answers"), DeadlineExceededError("nor now")])
def test_where_nobody_answers_the_next_call_goes_on(monkeypatch, error):
    with pytest.raises(type(error)):
        add(monkeypatch, error)


def test_no_pack_is_made_from_the_same_disk(tmp_path, monkeypatch, capsys):
    """A disk that was published again under another label."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = SimpleNamespace(geometry=SimpleNamespace(block_size=256 << 10))
    same = SimpleNamespace(
        manifest_digest=b"1" * 32, manifest=manifest, remote=SimpleNamespace(sources=lambda: ["http://127.0.0.1:1"])
    )
    monkeypatch.setattr(packing, "has_numpy", lambda: True)
    monkeypatch.setattr(packing, "resolved_version", lambda _wanted, _label: same)
    assert packing.add_packs(SimpleNamespace(), WANTED, ["1"], quiet=True) == []
    assert "it is the same disk" in capsys.readouterr().err
