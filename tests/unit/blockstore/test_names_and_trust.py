"""Names that climb or glob, and roles that say more than they may, are refused."""

import pytest

from oscirc_blockstore import names, trust
from oscirc_blockstore.errors import NameRefusedError, RollbackError, SignatureRefusedError, TrustError
from oscirc_blockstore.trust import RoleFacts, TargetFacts

NOW = 1_800_000_000.0
TARGET = TargetFacts(100, {"sha256": "ab" * 32})


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "?lice",
        "al*ce",
        "[a]",
        "Alice",
        "a b",
        "a\n",
        "é",
        "-a",
        ".a",
        "a" * 64,
        "a%2f",
        "a\0",
        "a_b",
        "a+b",
    ],
)
def test_bad_names_are_refused(name):
    for check in (names.check_publisher, names.check_image, names.check_channel):
        with pytest.raises(NameRefusedError):
            check(name)


@pytest.mark.parametrize("name", ["a", "0", "a.b-c", "a" * 63, "debian-12", "a..b"])
def test_good_names_pass(name):
    assert names.check_publisher(name) == names.check_image(name) == name


def test_versions_may_also_hold_plus_and_underscore():
    assert names.check_version("12.5+deb_1") == "12.5+deb_1"
    for label in ("+1", "_1", "1/2", "1@2", "1#2"):
        with pytest.raises(NameRefusedError):
            names.check_version(label)


@pytest.mark.parametrize("name", ["root", "targets", "snapshot", "timestamp"])
def test_the_framework_s_own_role_names_are_reserved(name):
    with pytest.raises(NameRefusedError, match="reserved"):
        names.check_publisher(name)


def role(**changes):
    facts = {
        "publisher": "alice",
        "version": 4,
        "expires_s": NOW + 1000,
        "targets": {"alice/debian.json": TARGET},
        "delegates": False,
    }
    return RoleFacts(**{**facts, **changes})


def check(**changes):
    trust.check_role(role(**changes), current_version=3, now_s=NOW)


def test_the_next_version_of_one_s_own_role_is_accepted():
    check()


@pytest.mark.parametrize("version", [3, 2, 0])
def test_an_older_or_equal_role_is_a_rollback(version):
    with pytest.raises(RollbackError):
        check(version=version)


def test_a_skipped_version_is_refused():
    with pytest.raises(TrustError, match="4 comes next"):
        check(version=5)


@pytest.mark.parametrize(
    "path",
    [
        "bob/debian.json",
        "alice/debian",
        "alice/../bob/x.json",
        "alice/a/b.json",
        "alice.json",
        "alice/*.json",
        "repository.json",
    ],
)
def test_targets_that_are_not_its_own_are_refused(path):
    with pytest.raises(SignatureRefusedError):
        check(targets={path: TARGET})


def test_delegating_expired_and_eternal_roles_are_refused():
    for change in ({"delegates": True}, {"expires_s": NOW}, {"expires_s": NOW + 400 * 86400}):
        with pytest.raises(TrustError):
            check(**change)


@pytest.mark.parametrize(
    "target",
    [
        TargetFacts(0, TARGET.hashes),
        TargetFacts(5 << 20, TARGET.hashes),
        TargetFacts(9, {"md5": "00"}),
        TargetFacts(9, {"sha256": "xx"}),
        TargetFacts(9, {**TARGET.hashes, "sha512": "00"}),
    ],
)
def test_targets_without_one_sha256_and_a_bounded_length_are_refused(target):
    with pytest.raises(TrustError):
        check(targets={"alice/debian.json": target})
