import stat
import threading

import pytest
from support.repository_simulator import RepositorySimulator, tampered

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    ExpiredError,
    LocalError,
    NameRefusedError,
    NotFoundError,
    SignatureRefusedError,
    UnreachableError,
    UsageError,
)
from oscirc_blockstore.repository_facts import RepositoryFacts
from oscirc_remote import remotes as remotes_module
from oscirc_remote.remotes import Remotes, parse_line

from .conftest import HOME, MIRROR

PIN = "ab" * 32


def test_a_line_has_an_address_and_a_pin():
    assert parse_line(f"https://host/repo/#sha256={PIN}\n") == ("https://host/repo", bytes.fromhex(PIN))
    assert parse_line(f"http://10.0.0.1:8080/x#sha256={PIN}")[0] == "http://10.0.0.1:8080/x"


@pytest.mark.parametrize(
    "line",
    [
        "https://host/repo",
        "https://host/repo#",
        f"https://host/repo#{PIN}",
        "https://host/repo#sha256=abc",
        f"https://host/repo#sha256={PIN.upper()}",
        f"https://host/repo#md5={PIN}",
        f"ftp://host/repo#sha256={PIN}",
        f"https://user:secret@host/repo#sha256={PIN}",
        f"https://host/repo?x=1#sha256={PIN}",
        "",
    ],
)
def test_any_other_line_is_refused_with_the_form_that_is_right(line):
    with pytest.raises(UsageError) as refusal:
        parse_line(line)
    assert "#sha256=" in refusal.value.hint


def test_adding_pins_the_root_and_refreshes(empty_world):
    remote = empty_world.add()
    assert remote.line == empty_world.repository.line(HOME)
    assert remote.root() == empty_world.repository.root_bytes
    assert remote.known_publishers() == {"alice"}
    assert remote.facts().name == "simulated"
    assert remote.sources() == (HOME, MIRROR)
    assert remote.api_url() == f"{HOME}/api/v1"
    assert empty_world.remotes.load("home") == remote
    assert empty_world.remotes.list() == (remote,)
    assert stat.S_IMODE(remote.directory.stat().st_mode) == 0o700


def test_the_api_may_be_elsewhere(empty_world):
    empty_world.repository.set_facts(RepositoryFacts("simulated", "https://api.example/v1"))
    empty_world.repository.release("targets")
    assert empty_world.add().api_url() == "https://api.example/v1"


def test_adding_the_same_again_changes_nothing_and_asks_nobody(empty_world):
    first = empty_world.add()
    empty_world.home.down = True
    assert empty_world.add() == first


def test_a_newer_line_of_the_same_repository_is_known_by_the_chain_that_was_followed(world):
    world.repository.rotate("timestamp")
    world.repository.release()
    with world.session() as session:
        session.refresh()
    assert world.add().root_digest != b""
    assert world.remotes.load("home").line != world.repository.line(HOME)


def test_another_root_under_a_used_name_is_refused(world):
    other = RepositorySimulator()
    world.serve("http://other.example", other.files)
    for url in (HOME, "http://other.example"):
        with pytest.raises(UsageError, match="already stands for") as refusal:
            world.add(url=url, repository=other)
        assert "remote remove home" in refusal.value.hint


def test_two_who_add_the_same_at_once_both_have_it(empty_world):
    results = []
    threads = [threading.Thread(target=lambda: results.append(empty_world.add())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert [path.name for path in empty_world.remotes.base.iterdir()] == ["home"]


def _nothing_is_left(world):
    return not world.remotes.base.exists() or list(world.remotes.base.iterdir()) == []


def test_a_server_with_another_root_than_the_line_names_is_refused(empty_world):
    path = next(path for path in empty_world.repository.files if path.startswith("roots/"))
    empty_world.repository.files[path] = RepositorySimulator().root_bytes
    with pytest.raises(SignatureRefusedError, match="another root of trust"):
        empty_world.add()
    assert _nothing_is_left(empty_world)


def test_a_root_that_is_not_served_may_be_a_typing_error(empty_world):
    with pytest.raises(NotFoundError) as refusal:
        empty_world.remotes.add("home", f"{HOME}#sha256={PIN}", open_documents=empty_world.open)
    assert "typing error" in refusal.value.hint
    assert _nothing_is_left(empty_world)


def test_a_pinned_document_that_is_no_root_is_refused(empty_world):
    empty_world.repository.root_bytes = b'{"signed":{}}'
    empty_world.repository.files[f"roots/{digest_of(empty_world.repository.root_bytes).hex()}.json"] = b'{"signed":{}}'
    with pytest.raises(DocumentRefusedError, match="malformed"):
        empty_world.add()
    assert _nothing_is_left(empty_world)


@pytest.mark.parametrize("fault", ["down", "unsigned", "expired"])
def test_a_repository_that_cannot_be_refreshed_is_not_added(empty_world, fault):
    repository = empty_world.repository
    if fault == "down":
        empty_world.home.down = True
        error = UnreachableError
    elif fault == "unsigned":
        repository.files["metadata/timestamp.json"] = tampered(repository.files["metadata/timestamp.json"], version=9)
        error = SignatureRefusedError
    else:
        repository.timestamp.expires = repository.now.replace(year=2020)
        repository.write_timestamp()
        error = ExpiredError
    with pytest.raises(error):
        empty_world.add()
    assert _nothing_is_left(empty_world)


@pytest.mark.parametrize("name", ["", "..", "a/b", "UPPER", "a" * 64, ".hidden"])
def test_names_that_climb_are_refused(empty_world, name):
    with pytest.raises(NameRefusedError):
        empty_world.add(name)
    with pytest.raises(NameRefusedError):
        empty_world.remotes.load(name)


def test_a_removed_remote_leaves_nothing(world):
    world.remotes.load("home").store_token("secret")
    world.remotes.remove("home")
    assert world.remotes.list() == ()
    assert _nothing_is_left(world)
    with pytest.raises(NotFoundError, match="no remote 'home'"):
        world.remotes.remove("home")


def test_a_remote_that_is_removed_while_they_are_listed_is_none(world, monkeypatch):
    monkeypatch.setattr(world.remotes, "_names", lambda: ("gone", "home"))
    assert [remote.name for remote in world.remotes.list()] == ["home"]


def test_an_unknown_remote_is_answered_with_those_that_are_known(world):
    with pytest.raises(NotFoundError) as refusal:
        world.remotes.load("work")
    assert "home" in refusal.value.hint


def test_a_damaged_remote_says_what_to_do(world):
    directory = world.remotes.load("home").directory
    (directory / "root.json").write_bytes(b"{}")
    with pytest.raises(LocalError, match="root of trust") as refusal:
        world.remotes.load("home").root()
    assert "remote remove home" in refusal.value.hint
    for damage in (b"{", b'{"format":"oscirc-remote-1"}'):
        (directory / "remote.json").write_bytes(damage)
        with pytest.raises(LocalError) as refusal:
            world.remotes.load("home")
        assert refusal.value.hint


def test_tokens_are_private_files(world):
    remote = world.remotes.load("home")
    assert remote.token() is None
    remote.store_token("  oscirc_abc123\n")
    assert remote.token() == "oscirc_abc123"
    assert stat.S_IMODE((remote.directory / "token").stat().st_mode) == 0o600
    for bad in ("", " ", "tök", "a\nb"):
        with pytest.raises(UsageError):
            remote.store_token(bad)


def test_a_users_own_mirrors_are_kept(world):
    world.remotes.set_mirrors("home", ("http://near.example/r/", MIRROR))
    assert world.remotes.load("home").sources() == (HOME, MIRROR, "http://near.example/r")
    with pytest.raises(UsageError):
        world.remotes.set_mirrors("home", ("near.example",))


def _second_remote(world, *publishers):
    other = RepositorySimulator()
    for publisher in publishers:
        other.publish(publisher, "debian", "1", b"other".ljust(512))
    world.serve("http://work.example", other.files)
    world.add("work", "http://work.example", other)
    return other


def test_the_one_remote_that_has_a_publisher_is_found(world):
    _second_remote(world, "bob")
    assert world.remotes.find_publisher("bob").name == "work"
    assert world.remotes.find_publisher("alice").name == "home"


def test_a_publisher_in_several_remotes_is_an_error_that_names_them(world):
    _second_remote(world, "alice")
    with pytest.raises(UsageError, match="home, work") as refusal:
        world.remotes.find_publisher("alice")
    assert "home:alice/" in refusal.value.hint


def test_unknown_publishers_are_looked_for_anew_once(world):
    other = _second_remote(world)
    other.publish("carol", "debian", "1", b"other".ljust(512))
    asked = []

    def refresh(remote):
        asked.append(remote.name)
        with world.session(remote.name) as session:
            session.refresh()

    assert world.remotes.find_publisher("carol", refresh=refresh).name == "work"
    assert asked == ["home", "work"]
    with pytest.raises(NotFoundError, match="no remote has a publisher 'dave'"):
        world.remotes.find_publisher("dave")


def test_without_remotes_the_user_is_told_how_to_add_one(tmp_path):
    with pytest.raises(NotFoundError) as refusal:
        Remotes(tmp_path / "none").find_publisher("alice")
    assert "oscirc remote add" in refusal.value.hint


def test_damaged_state_that_a_refresh_replaces_is_ignored(world):
    remote = world.remotes.load("home")
    for name in ("repository.json", "tuf/targets.json"):
        (remote.directory / name).write_bytes(b"damaged")
    assert remote.facts() is None
    assert remote.known_publishers() is None
    with world.session() as session:
        session.repository_facts()
    assert remote.facts().name == "simulated"
    assert remote.known_publishers() == {"alice"}


def test_this_module_does_not_load_tuf():
    import subprocess
    import sys

    probe = (
        "import sys, oscirc_remote.remotes, oscirc_remote.references, oscirc_remote.image, oscirc_remote.opening\n"
        "slow = {'tuf', 'httpx', 'obstore', 'cryptography', 'securesystemslib'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
    assert remotes_module.__doc__
