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
