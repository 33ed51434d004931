import json
import threading
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from support.repository_simulator import RepositorySimulator, tampered

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    BusyError,
    DigestMismatchError,
    DocumentRefusedError,
    ExpiredError,
    IntegrityError,
    NotFoundError,
    RollbackError,
    SignatureRefusedError,
    TrustError,
    UnreachableError,
)
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES
from oscirc_remote.deadlines import Deadline
from oscirc_remote.session import Session

from .conftest import HOME, MIRROR

DATE = "2026-01-01T00:00:00Z"


def index_of(world, publisher="alice", image="debian"):
    with world.session() as session:
        return session.image_index(publisher, image)


def refresh(world):
    with world.session() as session:
        session.refresh()


def alone(world):
    """Take the mirror away: what the repository itself does then decides."""
    world.mirror.down = True


def test_the_index_of_an_image_is_what_its_publisher_signed(world):
    index = index_of(world)
    assert index.channel("stable").label == "1"
    with world.session() as session:
        assert session.publishers() == {"alice"}
        assert session.repository_facts().mirrors == (MIRROR,)
        assert session.expires("alice") == world.repository.timestamp.expires


def test_a_release_is_seen_at_the_next_session(world):
    index_of(world)
    world.repository.publish("alice", "debian", "2", b"new".ljust(512))
    assert index_of(world).channel("stable").label == "2"


def test_an_unchanged_repository_costs_two_requests(world):
    index_of(world)
    world.home.asked.clear()
    index_of(world)
    assert world.home.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


@pytest.mark.parametrize("damage", ["malformed", "missing"])
def test_facts_that_cannot_be_read_are_noted_and_hold_up_nothing(world, damage):
    target = world.repository.targets.targets["repository.json"]
    for path in [path for path in world.repository.files if path.endswith("repository.json")]:
        del world.repository.files[path]
    if damage == "malformed":
        world.repository.files[f"targets/{target.hashes['sha256']}.repository.json"] = b"{}"
    (world.remotes.load("home").directory / "targets" / "repository.json").unlink()
    with world.session() as session:
        assert session.repository_facts() is None
        assert session.image_index("alice", "debian").versions
        assert any("repository.json" in note for note in session.notes)


class TestWhatIsNotThere:
    def test_an_unknown_publisher_is_answered_with_those_that_are_known(self, world):
        with pytest.raises(NotFoundError, match="no publisher 'bob'") as refusal:
            index_of(world, "bob")
        assert "alice" in refusal.value.hint

    def test_an_unknown_image_is_answered_with_those_that_are_known(self, world):
        with pytest.raises(NotFoundError, match="no image alice/arch") as refusal:
            index_of(world, "alice", "arch")
        assert "debian" in refusal.value.hint

    def test_a_publisher_who_released_nothing_yet_is_said_to_have_not(self, world):
        world.repository.add_publisher("bob")
        with pytest.raises(NotFoundError, match="released nothing yet"):
            index_of(world, "bob")

    def test_a_publisher_whose_delegation_is_gone_is_not_found(self, world):
        world.repository.remove_publisher("alice")
        with pytest.raises(NotFoundError, match="no publisher 'alice'"):
            index_of(world)


class TestRefusals:
    """Every attack that a static mirror can make, refused with words that say what and what to do."""

    @pytest.fixture(autouse=True)
    def _alone(self, world):
        alone(world)

    @pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root", "alice"])
    def test_an_expired_role(self, world, role):
        repository = world.repository
        past = repository.now - timedelta(days=395)
        if role == "alice":
            repository.roles["alice"].expires = past
            repository.release("alice")
        elif role == "targets":
            repository.targets.expires = past
            repository.release("targets")
        elif role == "root":
            repository.root.expires = past
            repository.root.version = 2
            repository.sign_root()
        else:
            getattr(repository, role).expires = past
            repository.release()
        with pytest.raises(ExpiredError, match=f"expired on {past:%Y-%m-%d}.*your clock says") as refusal:
            index_of(world)
        assert "if the clock is right" in refusal.value.hint
        assert ("publisher resign" in refusal.value.hint) == (role == "alice")
        assert ("publisher alice" in str(refusal.value)) == (role == "alice")

    def test_a_rollback_of_everything(self, world):
        old = dict(world.repository.files)
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        index_of(world)
        seen = world.repository.timestamp.version
        world.home.files = old
        with pytest.raises(RollbackError, match=f"version {seen - 1} .* after {seen} was seen") as refusal:
            index_of(world)
        assert HOME in str(refusal.value)
        assert "still boots" in refusal.value.hint

    def test_a_rollback_of_one_role_inside_a_new_snapshot(self, world):
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        index_of(world)
        world.repository.snapshot.meta["alice.json"].version -= 1
        world.repository.release()
        with pytest.raises(RollbackError):
            index_of(world)

    def test_a_snapshot_that_forgets_a_publisher(self, world):
        index_of(world)
        del world.repository.snapshot.meta["alice.json"]
        world.repository.release()
        with pytest.raises(RollbackError, match=r"missing info for 'alice\.json'"):
            index_of(world)

    def test_mix_and_match_of_old_snapshot_and_new_timestamp(self, world):
        files = world.repository.files
        old = files[f"metadata/{world.repository.snapshot.version}.snapshot.json"]
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        files[f"metadata/{world.repository.snapshot.version}.snapshot.json"] = old
        with pytest.raises(TrustError):
            refresh(world)

    @pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "alice", "root"])
    def test_metadata_that_was_tampered_with(self, world, role):
        files, repository = world.repository.files, world.repository
        if role == "root":
            repository.root.version = 2
            repository.sign_root()
        elif role == "alice":
            repository.release("alice")
        else:
            repository.release("targets")
        path = {
            "timestamp": "metadata/timestamp.json",
            "root": "metadata/2.root.json",
            "snapshot": f"metadata/{repository.snapshot.version}.snapshot.json",
            "targets": f"metadata/{repository.targets.version}.targets.json",
            "alice": f"metadata/{repository.roles['alice'].version}.alice.json",
        }[role]
        files[path] = tampered(files[path], x_note="tampered")
        with pytest.raises(SignatureRefusedError, match="not signed by the keys") as refusal:
            index_of(world)
        assert "nothing of it was used" in refusal.value.hint

    def test_a_role_signed_by_another_publisher(self, world):
        world.repository.publish("mallory", "debian", "1", b"evil".ljust(512))
        world.repository.write_role("alice", world.repository.signers["mallory"])
        refresh(world)
        role = world.remotes.load("home").directory / "tuf" / "alice.json"
        role.unlink(missing_ok=True)
        with pytest.raises(SignatureRefusedError):
            index_of(world)

    def test_a_key_that_was_replaced_signs_no_more(self, world):
        index_of(world)
        repository = world.repository
        repository.targets.revoke_key(repository.signers["alice"].public_key.keyid, "alice")
        repository.targets.add_key(CryptoSigner.generate_ed25519().public_key, "alice")
        repository.release("targets")
        with pytest.raises(SignatureRefusedError):
            index_of(world)

    def test_a_target_that_only_mallory_signed_under_alices_name(self, world):
        world.repository.publish("mallory", "debian", "1", b"evil".ljust(512))
        index = ImageIndex("mallory", "debian").with_version(ImageVersion("1", digest_of(b"x"), DATE))
        world.repository.put_index(index, target="alice/trap.json")
        with pytest.raises(NotFoundError):
            index_of(world, "alice", "trap")

    def test_an_index_of_another_publisher_under_an_honest_name(self, world):
        foreign = ImageIndex("bob", "debian").with_version(ImageVersion("1", digest_of(b"x"), DATE)).serialise()
        world.repository.put_index(ImageIndex("alice", "debian"), raw=foreign)
        with pytest.raises(DocumentRefusedError, match="publisher"):
            index_of(world)

    def test_an_index_that_is_not_canonical(self, world):
        index = world.repository.indexes["alice/debian.json"]
        world.repository.put_index(index, raw=json.dumps(json.loads(index.serialise())).encode())
        with pytest.raises(DocumentRefusedError, match="canonical"):
            index_of(world)

    def test_an_index_whose_bytes_were_changed(self, world):
        path = next(path for path in world.repository.files if path.endswith(".debian.json") and "targets/" in path)
        raw = world.repository.files[path]
        world.repository.files[path] = raw.replace(b'"1"', b'"2"')
        with pytest.raises(DigestMismatchError):
            index_of(world)

    def test_an_index_signed_as_longer_than_any_may_be(self, world):
        world.repository.roles["alice"].targets["alice/debian.json"].length = 1 << 40
        world.repository.release("alice")
        with pytest.raises(IntegrityError, match="1099511627776"):
            index_of(world)

    @pytest.mark.parametrize("change", ["forgotten", "moved"])
    def test_an_index_that_forgets_or_changes_a_release(self, world, change):
        kept = index_of(world)
        versions = (ImageVersion("2", digest_of(b"x"), DATE),)
        if change == "moved":
            versions = (ImageVersion("1", digest_of(b"x"), kept.versions[0].released),)
        world.repository.put_index(ImageIndex("alice", "debian", versions))
        for _ in range(2):  # nor does it slip in the second time
            with pytest.raises(DocumentRefusedError, match=r"alice/debian.*released version 1") as refusal:
                index_of(world)
        assert "for ever" in refusal.value.hint

    def test_an_index_that_forgets_is_taken_from_other_keys_throughout(self, world):
        """Only the repository's offline keys give a publisher other keys: then what a thief released binds nobody."""
        index_of(world)
        repository = world.repository
        honest = ImageIndex("alice", "debian", (ImageVersion("2", digest_of(b"x"), DATE),))
        old = repository.signers["alice"]
        repository.targets.revoke_key(old.public_key.keyid, "alice")
        repository.signers["alice"] = CryptoSigner.generate_ed25519()
        repository.targets.add_key(repository.signers["alice"].public_key, "alice")
        repository.put_index(honest)
        repository.release("targets")
        with world.session() as session:
            assert session.image_index("alice", "debian") == honest
            assert any("other keys" in note for note in session.notes)
        repository.put_index(ImageIndex("alice", "debian"))  # and from then on the new keys bind as the old ones did
        with pytest.raises(DocumentRefusedError, match="released version 2"):
            index_of(world)

    def test_an_index_that_forgets_is_refused_while_one_key_is_still_the_same(self, world):
        index_of(world)
        repository = world.repository
        added = CryptoSigner.generate_ed25519()
        repository.targets.add_key(added.public_key, "alice")
        repository.signers["alice"] = added
        repository.put_index(ImageIndex("alice", "debian", (ImageVersion("2", digest_of(b"x"), DATE),)))
        repository.release("targets")
        with pytest.raises(DocumentRefusedError, match="released version 1"):
            index_of(world)

    def test_malformed_metadata(self, world):
        for junk in (b"", b"[]", b"{", b'{"signed":1,"signatures":[]}', b"\xff"):
            world.repository.files["metadata/timestamp.json"] = junk
            with pytest.raises(IntegrityError, match="malformed"):
                refresh(world)

    def test_metadata_that_is_over_long(self, world):
        world.repository.files["metadata/timestamp.json"] = bytes(20_000)
        with pytest.raises(Exception, match="more than the") as refusal:
            refresh(world)
        assert refusal.value.exit_code == 5

    def test_a_publisher_who_delegates_to_others_leads_nowhere(self, world):
        from tuf.api.metadata import DelegatedRole, Delegations

        role, helper = world.repository.roles["alice"], CryptoSigner.generate_ed25519()
        role.targets.clear()
        role.delegations = Delegations(
            {}, {"helper": DelegatedRole("helper", [], 1, terminating=True, paths=["alice/*"])}
        )
        role.add_key(helper.public_key, "helper")
        world.repository.release("alice")
        with pytest.raises(NotFoundError):
            index_of(world)
        assert not any("helper" in path for path in world.home.asked)

    def test_what_was_refused_leaves_the_trusted_state_usable(self, world):
        index_of(world)
        honest = world.repository.files["metadata/timestamp.json"]
        world.repository.files["metadata/timestamp.json"] = tampered(honest, version=99)
        with pytest.raises(SignatureRefusedError):
            index_of(world)
        world.repository.files["metadata/timestamp.json"] = honest
        assert index_of(world).versions


class TestMirrors:
    def test_the_mirror_stands_in_when_the_repository_is_unreachable(self, world):
        world.home.down = True
        with world.session() as session:
            assert session.image_index("alice", "debian").versions
            assert any("cannot reach" in note for note in session.notes)
        assert "metadata/timestamp.json" in world.mirror.asked

    def test_a_mirror_that_is_behind_is_passed_over_for_one_that_is_not(self, world):
        world.remotes.set_mirrors("home", ("http://third.example",))
        world.serve("http://third.example", world.repository.files)
        world.mirror.files = dict(world.repository.files)
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        index_of(world)
        world.home.down = True
        assert index_of(world).channel("stable").label == "2"

    def test_rollback_is_reported_when_all_are_old(self, world):
        old = dict(world.repository.files)
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        index_of(world)
        world.home.files = world.mirror.files = old
        with pytest.raises(RollbackError, match="every source is older") as refusal:
            index_of(world)
        assert HOME in str(refusal.value)
        assert MIRROR in str(refusal.value)

    def test_an_unreachable_repository_and_a_mirror_that_is_behind_is_not_called_a_rollback(self, world):
        world.mirror.files = dict(world.repository.files)
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        index_of(world)
        world.home.down = True
        with pytest.raises(UnreachableError, match=r"other sources: .*was seen"):
            index_of(world)

    @pytest.mark.parametrize("fault", ["frozen", "unsigned", "incomplete"])
    def test_a_repository_under_attack_is_read_through_its_mirror(self, world, fault):
        world.home.files = dict(world.repository.files)
        world.repository.publish("alice", "debian", "2", b"new".ljust(512))
        if fault == "unsigned":
            timestamp = "metadata/timestamp.json"
            world.home.files[timestamp] = tampered(world.home.files[timestamp], version=77)
        elif fault == "incomplete":
            world.home.files = {path: raw for path, raw in world.repository.files.items() if ".debian.json" not in path}
        else:
            other = RepositorySimulator()
            world.home.files = other.files
        assert index_of(world).channel("stable").label == "2"

    def test_one_refresh_uses_one_source(self, world):
        world.home.files = {p: raw for p, raw in world.repository.files.items() if "targets/alice" not in p}
        index_of(world)
        asked = world.mirror.asked
        assert asked.index("metadata/timestamp.json") < len(asked) - 1  # the mirror was refreshed for itself
        assert any(path.startswith("targets/alice/") for path in asked)

    def test_each_source_is_asked_once_a_session(self, world):
        world.home.down = world.mirror.down = True
        with world.session() as session:
            for _ in range(3):
                with pytest.raises(UnreachableError):
                    session.refresh()
        assert len(world.home.asked) < 30
        assert len(world.mirror.asked) == 1


class TestRotation:
    def test_new_online_keys_are_followed(self, world):
        index_of(world)
        for role in ("timestamp", "snapshot", "targets", "root"):
            world.repository.rotate(role)
        world.repository.release("targets")
        assert index_of(world).versions

    def test_a_version_that_a_stolen_key_fast_forwarded_is_recovered_by_new_keys(self, world):
        repository = world.repository
        repository.timestamp.version = 1 << 30
        repository.snapshot.version = 1 << 30
        repository.release()
        refresh(world)
        repository.timestamp.version = repository.snapshot.version = 10
        repository.rotate("timestamp")
        repository.rotate("snapshot")
        repository.release()
        assert index_of(world).versions

    def test_a_root_that_the_old_root_did_not_sign_is_refused(self, world):
        alone(world)
        repository = world.repository
        repository.signers["root"] = CryptoSigner.generate_ed25519()
        repository.root.version += 1
        repository.sign_root()
        with pytest.raises(SignatureRefusedError):
            refresh(world)


class TestDocuments:
    def test_a_document_comes_from_any_source_whose_bytes_are_right(self, world):
        world.home.files = {**world.repository.files, "manifests/x.json": b"wrong"}
        world.repository.files["manifests/x.json"] = b"right"

        def accept(raw):
            if raw != b"right":
                raise DigestMismatchError("wrong bytes")
            return raw

        with world.session() as session:
            assert session.fetch_document("manifests/x.json", MAX_MANIFEST_BYTES, accept) == b"right"
            world.mirror.down = True
            with pytest.raises(UnreachableError):
                session.fetch_document("manifests/x.json", MAX_MANIFEST_BYTES, accept)


class TestTheLock:
    def test_sessions_of_many_threads_take_turns(self, world):
        errors = []

        def work():
            try:
                for _ in range(5):
                    index_of(world)
            except Exception as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    def test_a_lock_that_is_not_given_back_is_not_waited_for_beyond_the_deadline(self, world):
        remote = world.remotes.load("home")
        with world.session(), pytest.raises(BusyError, match="another oscirc"):
            Session(remote, open_documents=world.open, deadline=Deadline.after(0.01)).__enter__()
