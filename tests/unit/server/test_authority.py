"""The one place that says who may do what."""

import pytest

from oscirc_blockstore.errors import UsageError
from oscirc_server.errors import ScopeError
from oscirc_server.services import authority
from oscirc_server.services.authority import ADMIN, MANAGE, PUBLISH, READ, Principal


def who(*scopes, **facts):
    return Principal("t", frozenset(scopes), **facts)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ([], set()),
        (["read:p"], {READ}),
        (["publish:p"], {PUBLISH, READ}),
        (["manage:p"], {MANAGE, PUBLISH, READ}),
        (["admin"], {ADMIN, MANAGE, PUBLISH, READ}),
        (["manage:q", "publish:pp", "read:P"], set()),
    ],
)
def test_each_level_includes_those_below_it_at_the_same_publisher(scopes, allowed):
    principal = who(*scopes)
    assert {level for level in (MANAGE, PUBLISH, READ) if principal.may(level, "p")} == allowed - {ADMIN}
    assert principal.may(ADMIN) == (ADMIN in allowed)


def test_a_refusal_is_an_error_that_names_the_publisher():
    for level in (MANAGE, PUBLISH, READ):
        with pytest.raises(ScopeError, match="alice"):
            who("manage:bob").require(level, "alice")
    with pytest.raises(ScopeError):
        who("manage:bob").require_admin()


@pytest.mark.parametrize(
    "scope", ["", "root", "publish", "publish:", "publish:*", "publish:?lice", "admin:x", "admin "]
)
def test_odd_scopes_are_refused(scope):
    with pytest.raises(UsageError):
        authority.check_scopes([scope])


def test_scopes_are_sorted_and_said_once():
    assert authority.check_scopes(["read:b", "admin", "read:b"]) == ("admin", "read:b")


def test_a_token_may_do_what_its_account_may_do_now_and_no_more():
    granted = ["admin", "manage:p", "publish:p", "read:q"]
    assert authority.effective(granted, ["publish:p"]) == {"publish:p"}
    assert authority.effective(granted, ["manage:p", "read:q"]) == {"manage:p", "publish:p", "read:q"}
    assert authority.effective(granted, ["admin"]) == set(granted)
    assert authority.effective(granted, []) == set()


def test_nobody_gives_away_what_he_may_not_do():
    who("admin").require_grantable(["admin", "manage:p"])
    who("manage:p").require_grantable(["manage:p", "publish:p"])
    who("publish:p", is_session=True).require_grantable(["publish:p", "read:p"])
    for principal, scope in (
        (who("manage:p"), "admin"),
        (who("manage:p"), "publish:q"),
        (who("publish:p", is_session=True), "manage:p"),
        (who("publish:p"), "publish:p"),
    ):
        with pytest.raises(ScopeError):
            principal.require_grantable([scope])


def test_the_audit_names_the_account_and_the_token():
    assert who("admin").actor == "t"
    assert who("admin", account="alice").actor == "alice (t)"
