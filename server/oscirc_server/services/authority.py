"""Who may do what: the one place that decides it, for tokens and for sessions of the pages alike.

A scope is `admin` or `<level>:<publisher>`. Each level includes those below it:

    admin           everything: users, issuers, quotas, roles above the publishers, and all that follows, of everybody
    manage:<p>      members, robots, their tokens and the claim rules of the publisher
    publish:<p>     drafts, uploads, releases, the role, accelerators and jobs of the publisher
    read:<p>        the publisher's usage, quota, drafts and members

No scope stands for a publisher's signature: what takes force is judged by the rules of TUF whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.names import check_publisher
from oscirc_server.errors import ScopeError

ADMIN = "admin"
MANAGE = "manage"
PUBLISH = "publish"
READ = "read"
LEVELS = (MANAGE, PUBLISH, READ)
"""From the one that includes the others down."""

ROLES = {"owner": MANAGE, "publisher": PUBLISH, "reader": READ}
"""What a member of a publisher may do there."""

MAX_SCOPES = 100

_REFUSALS = {
    MANAGE: "this token may not manage {publisher}",
    PUBLISH: "this token may not publish as {publisher}",
    READ: "this token may not look into {publisher}",
}


def scope(level: str, publisher: str) -> str:
    """The scope of a level at a publisher."""
    return f"{level}:{publisher}"


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """The scopes, sorted and without repetition, or `UsageError`."""
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise UsageError(f"a token has 1 to {MAX_SCOPES} scopes")
    for each in scopes:
        if each == ADMIN:
            continue
        level, colon, publisher = each.partition(":")
        if not colon or level not in LEVELS:
            hint = "scopes are admin, manage:PUBLISHER, publish:PUBLISHER and read:PUBLISHER"
            raise UsageError(f"unknown scope {each[:80]!r}", hint=hint)
        check_publisher(publisher)
    return tuple(sorted(set(scopes)))


def includes(held: Iterable[str], wanted: str) -> bool:
    """Whether whoever holds some scopes may do what another scope stands for."""
    known = frozenset(held)
    if ADMIN in known or wanted == ADMIN:
        return ADMIN in known
    level, _, publisher = wanted.partition(":")
    above = LEVELS[: LEVELS.index(level) + 1] if level in LEVELS else ()
    return any(scope(each, publisher) in known for each in above)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the token (or session) by its id, the account behind it if there is one, and what it may do now."""

    token_id: str
    scopes: frozenset[str]
    account: str | None = None
    is_session: bool = False

    @property
    def actor(self) -> str:
        """As the audit names it."""
        return self.token_id if self.account is None else f"{self.account} ({self.token_id})"

    def may(self, level: str, publisher: str | None = None) -> bool:
        """Whether this is allowed; every question of authority ends here."""
        return includes(self.scopes, level if publisher is None else scope(level, publisher))

    @property
    def publishers(self) -> tuple[str, ...] | None:
        """Those that the token may publish as; None for an administrator's: all."""
        if self.may(ADMIN):
            return None
        named = {each.partition(":")[2] for each in self.scopes}
        return tuple(sorted(publisher for publisher in named if self.may(PUBLISH, publisher)))

    def require_admin(self) -> None:
        """Raise `ScopeError` unless the token is an administrator's."""
        if not self.may(ADMIN):
            raise ScopeError("this needs an administrator's token")

    def require(self, level: str, publisher: str) -> None:
        """Raise `ScopeError` unless the token may do this at the publisher."""
        if not self.may(level, publisher):
            raise ScopeError(_REFUSALS[level].format(publisher=publisher[:80]))

    def require_publisher(self, publisher: str) -> None:
        """Raise `ScopeError` unless the token may publish as `publisher`."""
        self.require(PUBLISH, publisher)

    def require_grantable(self, scopes: Iterable[str]) -> None:
        """Raise `ScopeError` unless a token of these scopes may be made: nobody gives away what he may not do himself.

        A token makes others only where it may manage, so that a stolen upload token cannot outlive its end.
        """
        for each in scopes:
            publisher = each.partition(":")[2]
            if not includes(self.scopes, each):
                raise ScopeError(f"nobody can give away what he may not do: {each[:80]}")
            if not self.is_session and not self.may(MANAGE, publisher):
                raise ScopeError("only a token that may manage can make others", hint="log in to the pages to make one")


def effective(granted: Iterable[str], allowed: Iterable[str]) -> frozenset[str]:
    """Of a token's scopes, those that its account may use now."""
    known = frozenset(allowed)
    return frozenset(each for each in granted if includes(known, each))
