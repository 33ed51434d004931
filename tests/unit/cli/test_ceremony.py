"""`oscirc ceremony` as a holder meets it: what is shown, what is asked, what is refused with which exit code."""

import json
import time

import pytest

from oscirc.__main__ import main
from oscirc_blockstore import keys
from oscirc_publisher.signing import KeyRing
from oscirc_server.online_keys import OnlineKeys

PASSPHRASE = "a passphrase for tests"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with two holders' public keys and a server's online keys; both private keys are here."""
    monkeypatch.setenv("OSCIRC_KEY_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    ring = KeyRing()
    for name in ("anna", "boris"):
        ring.create(name, PASSPHRASE)
        (tmp_path / f"{name}.pub").write_bytes(ring.export(name))
    made = [keys.generate().public_key() for _ in range(2)]
    (tmp_path / "online.json").write_bytes(OnlineKeys(*made).serialise())
    return tmp_path


def new(*more, out="first.request"):
    both = ["--root", "anna.pub", "--root", "boris.pub", "--targets", "anna.pub"]
    url = ["--public-url", "https://images.example/repo"]
    return main(["ceremony", "new", "online.json", *both, "--root-threshold", "2", *url, "-o", out, *more])


def fingerprint(name):
    return KeyRing().show(name).fingerprint


def test_a_request_shows_keys_whole_and_who_must_sign(desk, capsys):
    assert new() == 0
    shown = capsys.readouterr().out
    assert "root: 2 of 2 keys must sign" in shown
    assert shown.count(fingerprint("boris")) == 2  # among the changes, and among those who must sign
    assert "root: none yet  ->  version 1" in shown
    assert main(["ceremony", "sign", "first.request", "--key", "anna", "--yes"]) == 0
    capsys.readouterr()
    signature = f"first.{fingerprint('anna')[:8]}.signature"
    assert main(["ceremony", "show", "first.request", signature, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["complete"] is False
    assert {item["role"]: len(item["signed"]) for item in facts["needed"]} == {"root": 1, "targets": 1}
    assert main(["ceremony", "publish", "first.request", signature, "--dry-run"]) == 4
    assert "1 of 2 signatures" in capsys.readouterr().err
    assert main(["ceremony", "sign", "first.request", "--key", "boris", "--yes", "-o", "second"]) == 0
    assert main(["ceremony", "publish", "first.request", signature, "second", "--dry-run", "--json"]) == 0


def test_the_same_signature_again_is_the_same_file(desk):
    assert new() == 0
    for _ in range(2):
        assert main(["ceremony", "sign", "first.request", "--key", "anna", "--yes"]) == 0
    assert len(list(desk.glob("*.signature"))) == 1


def test_another_file_is_never_replaced(desk, capsys):
    (desk / "first.request").write_text("something else")
    assert new() == 2
    assert "exists already" in capsys.readouterr().err
    assert (desk / "first.request").read_text() == "something else"


def test_nobody_signs_unseen(desk, capsys, monkeypatch):
    assert new() == 0
    assert main(["ceremony", "sign", "first.request", "--key", "anna"]) == 2
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code in ((False, 2), (True, 0)):
        monkeypatch.setattr("click.confirm", lambda *_args, answer=answer, **_options: answer)
        assert main(["ceremony", "sign", "first.request", "--key", "anna"]) == code
        assert bool(list(desk.glob("*.signature"))) is answer


def test_keys_that_are_not_asked_or_not_named_sign_nothing(desk, capsys):
    assert new() == 0
    KeyRing().create("carla", PASSPHRASE)
    assert main(["ceremony", "sign", "first.request", "--key", "carla", "--yes"]) == 2
    assert "not asked" in capsys.readouterr().err
    assert main(["ceremony", "sign", "first.request", "--yes"]) == 2
    assert main(["ceremony", "sign", "first.request", "--key", "nobody", "--yes"]) == 3
    assert main(["ceremony", "sign", "first.request", "--keys", str(desk), "--yes"]) == 3


@pytest.mark.parametrize("change", [b"{}", b"", b"x" * 100, None])
def test_a_request_that_was_changed_is_refused(desk, change):
    assert new() == 0
    raw = (desk / "first.request").read_bytes()
    other = change if change is not None else raw.replace(b'"targets"', b'"targetz"')
    (desk / "bad.request").write_bytes(other)
    assert main(["ceremony", "show", "bad.request"]) in (4, 7)
    assert main(["ceremony", "sign", "bad.request", "--key", "anna", "--yes"]) in (4, 7)
    assert not list(desk.glob("*.signature"))


def test_an_old_request_asks_for_nothing_any_more(desk, monkeypatch):
    assert new() == 0
    later = time.time() + 6 * 365 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert main(["ceremony", "sign", "first.request", "--key", "anna", "--yes"]) == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["--root", "anna.pub", "--targets", "anna.pub", "--public-url", "ftp://images.example"],
        ["--root", "anna.pub", "--public-url", "https://images.example/repo"],
        [
            "--root",
            "anna.pub",
            "--root",
            "boris.pub",
            "--targets",
            "anna.pub",
            "--public-url",
            "https://images.example",
        ],
        ["--root", "online.json", "--targets", "anna.pub", "--public-url", "https://images.example/repo"],
        ["--root", "anna.pub", "--root-threshold", "2", "--targets", "anna.pub", "--public-url", "https://i.example"],
    ],
)
def test_what_makes_no_repository_is_said(desk, arguments, capsys):
    assert main(["ceremony", "new", "online.json", *arguments, "-o", "first.request"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (desk / "first.request").exists()
