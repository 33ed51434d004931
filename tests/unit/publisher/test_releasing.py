import json
import types
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from oscirc_blockstore import keys
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    NotFoundError,
    OversizedResponseError,
    RollbackError,
    ServerRefusedError,
    SignatureRefusedError,
    UnreachableError,
    UsageError,
)
from oscirc_blockstore.image_index import ImageIndex
from oscirc_publisher import changing, releasing
from oscirc_publisher.publishing import publish
from oscirc_publisher.releasing import Signatory, date_text
from oscirc_publisher.signing import PublisherKey

from .conftest import KIB, MIB, MemoryDisk, mixed_bytes
from .fake_repository import Once, problem


def release(signatory, version, seed=1, image="debian", **options):
    return publish(MemoryDisk(mixed_bytes(MIB, seed)), signatory, image, version, block_size=64 * KIB, **options)


@pytest.fixture
def released(repository, signatory):
    release(signatory, "1")
    release(signatory, "2", seed=2)
    return signatory


def role_path(repository):
    return f"metadata/{repository.publishers['alice'].role_version}.alice.json"


def index_path(repository):
    return next(path for path in reversed(repository.files) if path.startswith("targets/alice/"))


def test_a_publisher_without_a_role_has_an_empty_one(signatory):
    role = signatory.served_role()
    assert (role.version, role.targets) == (0, {})
    assert signatory.served_index(role, "debian") == ImageIndex("alice", "debian")


def test_what_was_signed_is_read_back(released):
    role = released.served_role()
    index = released.served_index(role, "debian")
    assert [version.label for version in index.versions] == ["1", "2"]
    assert role.version == 2


def test_a_server_that_rolls_back_is_refused(repository, released):
    repository.publishers["alice"].role_version = 1
    with pytest.raises(RollbackError, match=r"version 1 .* version 2"):
        release(released, "3", seed=3)
    assert repository.publishers["alice"].role_version == 1


def test_a_server_that_says_it_has_nothing_is_refused(repository, released):
    repository.publishers["alice"].role_version = 0
    with pytest.raises(RollbackError):
        changing.set_channel(released, "debian", "stable", "1")


def test_a_server_that_shows_an_older_role_as_the_newest_is_refused(repository, released):
    repository.files["metadata/2.alice.json"] = repository.files["metadata/1.alice.json"]
    with pytest.raises(SignatureRefusedError, match="version 1, not 2"):
        changing.resign(released)


def test_a_server_that_boasts_of_a_version_it_cannot_show_is_refused(repository, released):
    repository.publishers["alice"].role_version = 7
    impatient = Signatory(released.rest, "alice", released.key, pauses_s=(0.0, 0.0))
    with pytest.raises(SignatureRefusedError, match="does not show it"):
        changing.resign(impatient)


def test_a_release_whose_files_follow_a_moment_later_is_waited_for(repository, released, monkeypatch):
    """The server's commit comes before its files: whoever looks between the two must not give up."""
    late = repository.files.pop(role_path(repository))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            repository.files[role_path(repository)] = late

    # the module's own name, not the clock of other threads of this process
    monkeypatch.setattr(releasing, "time", types.SimpleNamespace(sleep=pause))
    assert released.served_role().version == 2
    assert pauses == list(releasing.SHOWING_PAUSES_S[:2])


def test_a_role_that_was_altered_is_refused(repository, released):
    path = role_path(repository)
    honest = repository.files[path]
    repository.files[path] = honest.replace(b'"length":', b'"length":1')
    assert repository.files[path] != honest
    with pytest.raises(SignatureRefusedError, match="altered"):
        changing.resign(released)


def test_an_index_that_was_altered_is_refused(repository, released):
    path = index_path(repository)
    honest = repository.files[path]
    repository.files[path] = honest.replace(b'"stable":"2"', b'"stable":"1"')
    assert repository.files[path] != honest
    with pytest.raises(SignatureRefusedError, match="not the one that you signed"):
        release(released, "3", seed=3)


def test_an_index_longer_than_signed_is_not_read(repository, released):
    repository.files[index_path(repository)] += b" " * 100
    with pytest.raises(OversizedResponseError):
        release(released, "3", seed=3)


def test_the_memory_is_what_the_server_has_shown_or_accepted(repository, released):
    assert released.key.remembered(released.rest.url, "alice") == 2
    fresh = PublisherKey("other", released.key.private, released.key._memory.with_name("other.json"))
    Signatory(released.rest, "alice", fresh).served_role()
    assert fresh.remembered(released.rest.url, "alice") == 2
    repository.faults.append(Once("PUT", ".*/role", problem(503, "BusyError", "later")))
    with pytest.raises(ServerRefusedError):
        changing.resign(released)
    assert released.key.remembered(released.rest.url, "alice") == 2  # not accepted, not remembered


def test_a_repository_may_be_named_by_something_steadier_than_its_address(released):
    named = Signatory(released.rest, "alice", released.key, repository="sha256=abc")
    named.served_role()
    assert released.key.remembered("sha256=abc", "alice") == 2


def test_another_publishers_key_is_told_apart_early(repository, released):
    stranger = PublisherKey("stranger", keys.generate(), released.key._memory.with_name("s.json"))
    with pytest.raises(SignatureRefusedError, match="another key than stranger") as caught:
        changing.resign(Signatory(released.rest, "alice", stranger))
    assert released.key.fingerprint in caught.value.hint


@pytest.mark.parametrize("version", [-1, "7", True, 1.5, 1 << 60, [1]])
def test_a_version_that_is_none_is_refused(repository, released, version):
    answer = httpx.Response(200, content=json.dumps({"role_version": version, "fingerprints": []}).encode())
    repository.faults.append(Once("GET", ".*/publishers/alice", answer))
    with pytest.raises(DocumentRefusedError):
        released.served_role()


def test_a_conflict_is_merged_and_both_changes_stand(repository, released):
    def first(request):
        if request.method == "PUT":
            repository.faults.clear()
            with repository.client() as rest:
                changing.yank(Signatory(rest, "alice", released.key), "debian", "1", "broken")

    repository.faults.append(first)
    outcome = changing.set_channel(released, "debian", "testing", "1")
    assert outcome.role_version == 4
    index = repository.index("alice", "debian")
    assert index.channels == {"stable": "2", "testing": "1"}
    assert index.version("1").yanked.why == "broken"


def test_conflicts_without_end_are_given_up(repository, released, monkeypatch):
    monkeypatch.setattr(releasing, "_LONGEST_ASIDE_S", 0.0)
    conflict = problem(409, "RoleConflictError", "always", current_version=2)
    repository.faults.append(Once("PUT", ".*/role", conflict, times=1000))
    with pytest.raises(ServerRefusedError, match="always"):
        changing.set_channel(released, "debian", "testing", "1")
    with pytest.raises(ServerRefusedError, match="always"):
        changing.resign(released)
    assert repository.count("PUT", ".*/role") <= 40


def test_what_another_program_of_the_same_key_releases_meanwhile_is_no_rollback(released, monkeypatch):
    real, known = released._stated_version, released.served_role().version

    def overtaken():
        version = real()
        released.key.remember(released.rest.url, "alice", version + 1)
        return version

    monkeypatch.setattr(released, "_stated_version", overtaken)
    assert released.served_role().version == known


def test_a_conflict_that_is_none_of_the_role_is_raised(repository, released):
    repository.faults.append(Once("PUT", ".*/role", problem(409, "ConflictError", "something else"), times=9))
    with pytest.raises(ServerRefusedError, match="something else"):
        changing.set_channel(released, "debian", "testing", "1")
    assert repository.count("PUT", ".*/role") == 1


def test_a_server_that_accepts_another_version_is_not_believed(repository, released):
    answer = httpx.Response(200, content=b'{"role_version": 9, "snapshot_version": 1}')
    repository.faults.append(Once("PUT", ".*/role", answer))
    with pytest.raises(DocumentRefusedError):
        changing.resign(released)


def test_a_server_out_of_reach_is_said(repository, released):
    repository.faults.append(Once("GET", ".*", httpx.ConnectError("refused"), times=9))
    with pytest.raises(UnreachableError):
        changing.resign(released)


def test_a_channel_is_set_once(repository, released):
    assert changing.set_channel(released, "debian", "stable", "1").changed
    again = changing.set_channel(released, "debian", "stable", "1")
    assert not again.changed
    assert again.role_version == repository.publishers["alice"].role_version == 3
    with pytest.raises(NotFoundError):
        changing.set_channel(released, "debian", "stable", "9")
    with pytest.raises(NotFoundError, match="no released version"):
        changing.set_channel(released, "fedora", "stable", "1")


def test_a_channel_is_removed_and_its_version_stays(repository, released):
    changing.set_channel(released, "debian", "testing", "1")
    assert changing.remove_channel(released, "debian", "testing").changed
    index = repository.index("alice", "debian")
    assert (index.channels, index.version("1").label) == ({"stable": "2"}, "1")
    with pytest.raises(NotFoundError, match="no channel 'testing'"):
        changing.remove_channel(released, "debian", "testing")
    with pytest.raises(NotFoundError, match="no released version"):
        changing.remove_channel(released, "fedora", "stable")


def test_a_version_is_deleted_once_no_channel_points_at_it(repository, released):
    changing.set_channel(released, "debian", "old", "1")
    with pytest.raises(UsageError, match="points at 1"):
        changing.delete(released, "debian", ["1"])
    assert changing.delete_image(released, "debian", "no more").changed
    assert not changing.delete_image(released, "debian").changed
    index = repository.index("alice", "debian")
    assert index.closed
    assert {(gone.label, gone.why) for gone in index.deleted} >= {("1", "no more")}
    with pytest.raises(NotFoundError, match="never released"):
        changing.delete_image(released, "ubuntu")


def test_a_yank_is_made_changed_and_taken_back(repository, released):
    assert changing.yank(released, "debian", "1", "broken").changed
    assert not changing.yank(released, "debian", "1", "broken").changed
    assert changing.yank(released, "debian", "1", "hole", security=True).changed
    yanked = repository.index("alice", "debian").version("1").yanked
    assert (yanked.why, yanked.security) == ("hole", True)
    assert changing.restore(released, "debian", "1").changed
    assert not changing.restore(released, "debian", "1").changed
    assert repository.index("alice", "debian").version("1").yanked is None


def test_signing_again_keeps_everything_for_another_year(repository, released):
    release(released, "1", image="fedora")
    before = released.served_role()
    later = Signatory(
        released.rest, "alice", released.key, clock=lambda: datetime(2040, 1, 1, tzinfo=UTC)
    )  # long expired
    assert changing.resign(later) == before.version + 1
    after = later.served_role()
    assert after.targets == before.targets
    assert after.expires == datetime(2040, 12, 31, tzinfo=UTC)


def test_after_a_rotation_the_new_key_signs_what_the_old_one_signed(repository, released):
    new = PublisherKey("new", keys.generate(), released.key._memory.with_name("new.json"))
    repository.publishers["alice"].keys = [new.public]
    with pytest.raises(SignatureRefusedError):
        changing.resign(Signatory(released.rest, "alice", new))
    changing.resign(Signatory(released.rest, "alice", new, also_trusted=(released.key.public,)))
    role = Signatory(released.rest, "alice", new).served_role()
    assert role.index("debian") is not None


def test_a_merge_that_forgets_a_release_is_never_signed(released):
    with pytest.raises(DocumentRefusedError, match="forgets"):
        released.change("debian", lambda index: replace(index, versions=index.versions[:1], channels={}))


def test_dates_are_utc_to_the_second():
    assert date_text(datetime(2026, 3, 1, 12, 0, 5, 999_999, tzinfo=UTC)) == "2026-03-01T12:00:05Z"
