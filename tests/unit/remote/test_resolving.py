import shutil
import threading
from datetime import timedelta

import pytest
from support.repository_simulator import RepositorySimulator, tampered

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DigestMismatchError,
    DocumentRefusedError,
    ExpiredError,
    IntegrityError,
    NotFoundError,
    RollbackError,
    UnreachableError,
    UsageError,
    WithdrawnError,
)
from oscirc_blockstore.image_index import Yank
from oscirc_blockstore.manifest import manifest_path
from oscirc_remote.resolving import BOOT_S
from oscirc_remote.session import SESSION_S

from .conftest import DISK, HOME, MIRROR


def yank(world, label="1", *, security=False):
    index = world.repository.indexes["alice/debian.json"]
    world.repository.put_index(index.with_yank(label, Yank("it eats files", "2026-03-02T00:00:00Z", security)))


def offline(world):
    world.home.down = world.mirror.down = True


def expire(world):
    world.repository.timestamp.expires = world.repository.now - timedelta(days=400)
    world.repository.release()


class TestOnline:
    def test_the_default_channel_leads_to_a_verified_manifest(self, world):
        resolved = world.resolver().resolve("alice/debian")
        assert resolved.manifest == world.repository.manifests[resolved.manifest_digest]
        assert (resolved.version_label, resolved.fresh, resolved.warnings) == ("1", True, ())
        assert resolved.expires == world.repository.timestamp.expires
        assert resolved.remote.name == "home"

    @pytest.mark.parametrize("text", ["home:alice/debian", "alice/debian@1", "alice/debian#stable"])
    def test_each_form_of_reference_resolves(self, world, text):
        assert world.resolver().resolve(text).version_label == "1"

    def test_a_version_is_not_moved_by_a_later_release(self, world):
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        assert world.resolver().resolve("alice/debian@1").version_label == "1"
        assert world.resolver().resolve("alice/debian").version_label == "2"

    @pytest.mark.parametrize("text", ["alice/debian@9", "alice/debian#testing", "alice/arch", "bob/debian", "x:a/b"])
    def test_what_does_not_exist_is_not_found(self, world, text):
        with pytest.raises(NotFoundError):
            world.resolver().resolve(text)

    def test_a_publisher_in_two_remotes_must_be_told_apart(self, world):
        other = RepositorySimulator()
        other.publish("alice", "debian", "9", b"other".ljust(512))
        world.serve("http://work.example", other.files)
        world.add("work", "http://work.example", other)
        with pytest.raises(UsageError, match="home, work"):
            world.resolver().resolve("alice/debian")
        assert world.resolver().resolve("work:alice/debian").version_label == "9"

    def test_a_remote_that_is_down_does_not_hide_a_publisher_in_another(self, world):
        other = RepositorySimulator()
        world.serve("http://work.example", other.files)
        world.add("work", "http://work.example", other)
        other.publish("bob", "arch", "1", b"other".ljust(512))
        offline(world)
        assert world.resolver().resolve("bob/arch").remote.name == "work"

    def test_a_yanked_version_warns(self, world):
        yank(world)
        resolved = world.resolver().resolve("alice/debian")
        assert resolved.warnings == ("alice/debian@1 was yanked by its publisher on 2026-03-02: it eats files",)

    def test_a_version_yanked_for_security_is_refused_unless_allowed(self, world):
        yank(world, security=True)
        with pytest.raises(WithdrawnError, match="eats files") as refusal:
            world.resolver().resolve("alice/debian")
        assert "--allow-revoked" in refusal.value.hint
        assert world.resolver().resolve("alice/debian", allow_revoked=True).warnings

    def test_sources_that_were_passed_over_are_mentioned(self, world):
        world.home.down = True
        assert any("cannot reach" in warning for warning in world.resolver().resolve("alice/debian").warnings)

    def test_a_manifest_that_is_not_the_one_named_is_refused(self, world):
        path = next(path for path in world.repository.files if path.startswith("manifests/"))
        world.repository.files[path] += b" "
        with pytest.raises(DigestMismatchError):
            world.resolver().resolve("alice/debian")

    def test_a_manifest_that_is_not_canonical_is_refused_though_the_index_names_it(self, world):
        honest = world.repository.manifests.popitem()[1].serialise()
        crafted = honest.replace(b'","', b'", "', 1)
        digest = digest_of(crafted)
        world.repository.files[manifest_path(digest)] = crafted
        self._release(world, digest)
        with pytest.raises(DocumentRefusedError, match="canonical"):
            world.resolver().resolve("alice/debian@2")

    def test_another_images_manifest_is_refused(self, world):
        foreign = world.repository.publish("bob", "arch", "1", b"other".ljust(512))
        self._release(world, digest_of(foreign.serialise()))
        with pytest.raises(DocumentRefusedError, match="bob/arch"):
            world.resolver().resolve("alice/debian@2")

    @staticmethod
    def _release(world, digest):
        from oscirc_blockstore.image_index import ImageVersion

        index = world.repository.indexes["alice/debian.json"]
        world.repository.put_index(index.with_version(ImageVersion("2", digest, "2026-01-01T00:00:00Z")))

    def test_a_wrong_manifest_from_one_source_is_had_from_another(self, world):
        world.home.files = {
            path: b"junk" if path.startswith("manifests/") else raw for path, raw in world.repository.files.items()
        }
        assert world.resolver().resolve("alice/debian").version_label == "1"

    @pytest.mark.parametrize(
        ("attack", "error"), [("expired", ExpiredError), ("down", UnreachableError), ("rollback", RollbackError)]
    )
    def test_resolving_needs_freshness(self, world, attack, error):
        old = dict(world.repository.files)
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        world.resolver().resolve("alice/debian")
        if attack == "expired":
            expire(world)
        elif attack == "down":
            offline(world)
        else:
            world.home.files = world.mirror.files = old
        with pytest.raises(error):
            world.resolver().resolve("alice/debian")


class TestBooting:
    @pytest.mark.parametrize("attack", ["expired", "down", "rollback", "tampered"])
    def test_what_was_verified_before_boots_with_a_warning(self, world, attack):
        old = dict(world.repository.files)
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        expected = world.resolver().resolve("alice/debian")
        if attack == "expired":
            expire(world)
        elif attack == "down":
            offline(world)
        elif attack == "rollback":
            world.home.files = world.mirror.files = old
        else:
            path = "metadata/timestamp.json"
            world.repository.files[path] = tampered(world.repository.files[path], version=99)
        resolved = world.resolver(days_later=40).resolve_for_boot("alice/debian")
        assert (resolved.version_label, resolved.fresh) == ("2", False)
        assert resolved.manifest == expected.manifest
        assert "40 days ago" in resolved.warnings[0]
        words = {"expired": "expired", "down": "cannot reach", "rollback": "older", "tampered": "not signed"}
        assert words[attack] in resolved.warnings[0]

    def test_with_the_network_at_hand_it_boots_what_is_new(self, world):
        world.resolver().resolve("alice/debian")
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        resolved = world.resolver().resolve_for_boot("alice/debian")
        assert (resolved.version_label, resolved.fresh) == ("2", True)

    def test_a_deleted_version_is_used_where_it_was_used_before_and_by_nobody_else(self, world):
        world.resolver().resolve("alice/debian@1")
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        index = world.repository.indexes["alice/debian.json"]
        world.repository.put_index(index.without_versions(["1"], date="2026-03-03T00:00:00Z", why="old"))
        resolved = world.resolver().resolve_for_boot("alice/debian@1")
        assert (resolved.version_label, resolved.leaving) == ("1", True)
        assert "deleted by its publisher on 2026-03-03: old" in resolved.warnings[0]
        shutil.rmtree(world.remotes.load("home").directory / "receipts")
        with pytest.raises(NotFoundError, match="deleted by its publisher"):
            world.resolver().resolve("alice/debian@1")

    def test_what_was_withdrawn_for_security_and_then_deleted_is_refused(self, world):
        world.resolver().resolve("alice/debian@1")
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        index = world.repository.indexes["alice/debian.json"]
        yanked = index.with_yank("1", Yank("a hole", "2026-03-02T00:00:00Z", security=True))
        world.repository.put_index(yanked.without_versions(["1"], date="2026-03-03T00:00:00Z"))
        with pytest.raises(WithdrawnError, match="security"):
            world.resolver().resolve_for_boot("alice/debian@1")

    def test_without_a_receipt_the_refusal_stands(self, world):
        offline(world)
        with pytest.raises(UnreachableError):
            world.resolver().resolve_for_boot("alice/debian")
        expire(world)
        world.home.down = False
        with pytest.raises(ExpiredError):
            world.resolver().resolve_for_boot("alice/debian")

    def test_offline_a_channel_is_the_last_version_resolved_through_it(self, world):
        world.resolver().resolve("alice/debian#stable")
        world.repository.publish("alice", "debian", "2", b"new".ljust(512), channel="testing")
        world.resolver().resolve("alice/debian#testing")
        world.repository.publish("alice", "debian", "3", b"newer".ljust(512))
        world.resolver().resolve("alice/debian@2")
        resolver = world.resolver()
        for text, label in (("#stable", "1"), ("#testing", "2"), ("@1", "1")):
            assert resolver.resolve(f"alice/debian{text}", offline=True).version_label == label
        with pytest.raises(NotFoundError, match="never resolved"):
            resolver.resolve("alice/debian@3", offline=True)

    def test_a_publisher_whose_key_was_revoked_is_refused_unless_allowed_and_stays_so_offline(self, world):
        world.resolver().resolve("alice/debian")
        world.repository.remove_publisher("alice")
        for _ in range(2):
            with pytest.raises(WithdrawnError) as refusal:
                world.resolver().resolve_for_boot("alice/debian")
            assert "--allow-revoked" in refusal.value.hint
            allowed = world.resolver().resolve_for_boot("alice/debian", allow_revoked=True)
            assert allowed.manifest.publisher == "alice"
            assert allowed.warnings
            offline(world)

    def test_an_image_that_its_publisher_took_away_is_refused_unless_allowed(self, world):
        world.resolver().resolve("alice/debian")
        world.repository.roles["alice"].targets.clear()
        world.repository.release("alice")
        with pytest.raises(WithdrawnError):
            world.resolver().resolve_for_boot("alice/debian")
        assert world.resolver().resolve_for_boot("alice/debian", allow_revoked=True).version_label == "1"

    def test_a_security_yank_that_was_seen_holds_offline_too(self, world):
        world.resolver().resolve("alice/debian")
        yank(world, security=True)
        for _ in range(2):
            with pytest.raises(WithdrawnError):
                world.resolver().resolve_for_boot("alice/debian")
            offline(world)
        assert world.resolver().resolve("alice/debian", offline=True, allow_revoked=True).warnings

    def test_a_name_that_does_not_exist_is_not_masked(self, world):
        with pytest.raises(NotFoundError):
            world.resolver().resolve_for_boot("alice/debian@9")

    def test_a_damaged_kept_manifest_is_fetched_again(self, world):
        resolved = world.resolver().resolve("alice/debian")
        file = resolved.remote.directory / "manifests" / f"{resolved.manifest_digest.hex()}.json"
        file.write_bytes(b"damaged")
        assert world.resolver().resolve("alice/debian").manifest == resolved.manifest
        file.write_bytes(b"damaged")
        with pytest.raises(NotFoundError):
            world.resolver().resolve("alice/debian", offline=True)


class TestByDigest:
    def test_a_digest_needs_nobodys_word(self, world):
        digest = next(iter(world.repository.manifests))
        expire(world)
        resolved = world.resolver().resolve(f"alice/debian@sha256:{digest.hex()}")
        assert resolved.manifest == world.repository.manifests[digest]
        assert (resolved.version_label, resolved.fresh, resolved.expires) == ("", False, None)
        offline(world)
        assert world.resolver().resolve(f"alice/debian@sha256:{digest.hex()}").manifest == resolved.manifest

    def test_a_digest_that_was_resolved_by_name_knows_its_version(self, world):
        digest = world.resolver().resolve("alice/debian").manifest_digest
        assert world.resolver().resolve(f"alice/debian@sha256:{digest.hex()}").version_label == "1"

    def test_a_digest_of_another_image_is_refused(self, world):
        digest = next(iter(world.repository.manifests))
        with pytest.raises(IntegrityError, match="alice/debian"):
            world.resolver().resolve(f"alice/arch@sha256:{digest.hex()}")

    def test_a_yank_that_is_known_here_is_obeyed(self, world):
        digest = world.resolver().resolve("alice/debian").manifest_digest
        yank(world, security=True)
        with pytest.raises(WithdrawnError):
            world.resolver().resolve("alice/debian")
        with pytest.raises(WithdrawnError):
            world.resolver().resolve(f"alice/debian@sha256:{digest.hex()}")

    def test_offline_an_unknown_digest_is_not_found(self, world):
        with pytest.raises(NotFoundError):
            world.resolver().resolve(f"alice/debian@sha256:{'ab' * 32}", offline=True)


def test_many_who_resolve_at_once_all_succeed(world):
    errors = []

    def work(number):
        try:
            for _ in range(4):
                world.resolver().resolve_for_boot("alice/debian" if number % 2 else "alice/debian@1")
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_the_same_disk_under_a_new_version_keeps_its_digest(world):
    first = world.resolver().resolve("alice/debian")
    world.repository.publish("alice", "debian", "2", DISK)
    second = world.resolver().resolve("alice/debian")
    assert (second.version_label, second.manifest_digest) == ("2", first.manifest_digest)


def test_a_boot_waits_shortly_for_news_when_it_can_do_without(world):
    left = []

    class Slow:
        name = "slow"

        def fetch_document(self, path, max_bytes, deadline):
            left.append(deadline.remaining_s())
            raise UnreachableError("cannot reach it")

        def close(self):
            pass

    def boot():
        left.clear()
        world.resolver().resolve_for_boot("alice/debian")

    world.places.clear()
    world.open = lambda url: Slow()
    with pytest.raises(UnreachableError):
        boot()
    assert BOOT_S < left[-1] <= SESSION_S
    del world.open
    world.home = world.serve(HOME, world.repository.files)
    world.mirror = world.serve(MIRROR, world.repository.files)
    world.resolver().resolve("alice/debian")
    world.open = lambda url: Slow()
    boot()
    assert 0 < left[-1] <= BOOT_S
