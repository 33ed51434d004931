"""Administrators' pages that change things: users and their roles, robots, quotas. Forms over the API's own services.

A password set here is the user's until he or an administrator sets another; it is never shown. Nobody takes his own
administration or account away by a slip: that is refused here, and possible with a token or on the server's machine.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from oscirc_blockstore.errors import UsageError
from oscirc_server import delegations, repository
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.services import accounts, authority, catalog, pages, quotas, recounting
from oscirc_server.services.authority import Principal
from oscirc_server.services.quotas import EVERYBODY, Limits
from oscirc_server.web import inner, rendering
from oscirc_server.web.inner import PAGE_ROWS, Administrator, InnerRoute, Place
from oscirc_server.web.protection import Form

_MIB: Final = 1 << 20
_MAX_DIGITS: Final = 12

router = APIRouter(prefix="/admin", include_in_schema=False, route_class=InnerRoute)


@router.get("/users")
def users_page(
    request: Request,
    principal: Administrator,
    installation: CurrentInstallation,
    after: Place = "",
    robots_after: Place = "",
) -> Response:
    """Users and robots, a page of each, and forms for them."""
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        users, next_user = accounts.users(session, after=after, limit=PAGE_ROWS)
        robots, next_robot = accounts.robots(session, None, after=robots_after, limit=PAGE_ROWS)
        publishers, _ = catalog.publisher_page(session, after="", limit=PAGE_ROWS)
    shown = {
        "users": users,
        "robots": robots,
        "publishers": [facts.name for facts in publishers],
        "more_users": next_user and _link(after=next_user, robots_after=robots_after),
        "more_robots": next_robot and _link(after=after, robots_after=next_robot) + "#robots",
        "levels": list(authority.ROLES),
    }
    return rendering.page("admin_users.html", {**values, **shown})


def _link(**places: str | None) -> str:
    """This very page from other places on."""
    return "?" + urlencode({name: place for name, place in places.items() if place})


@router.post("/users")
def add_user(form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """A new user; without a password there is no login to the pages."""
    accounts.create_user(
        installation,
        form.get("name", ""),
        password=form.get("password") or None,
        is_admin="admin" in form,
        actor=principal.actor,
    )
    return inner.done("users", "added")


@router.post("/robots")
def add_robot(form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """A new robot of a publisher."""
    accounts.create_robot(installation, form.get("publisher", ""), form.get("name", ""), actor=principal.actor)
    return inner.done("users", "added")


def _not_oneself(principal: Principal, name: str) -> None:
    if name == principal.account:
        raise UsageError("nobody takes this away from himself here", hint="ask another administrator")


@router.post("/users/disabled")
def set_disabled(form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """Disable a user or robot (its logins and tokens are worthless), or enable it again."""
    name = form.get("name", "")
    _not_oneself(principal, name)
    accounts.set_disabled(installation, name, form.get("disabled") == "yes", actor=principal.actor)
    return inner.done("../users", "saved")


@router.post("/users/admin")
def set_admin(form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """Make a user an administrator, or no longer one."""
    name = form.get("name", "")
    _not_oneself(principal, name)
    accounts.set_admin(installation, name, form.get("admin") == "yes", actor=principal.actor)
    return inner.done("../users", "saved")


@router.post("/users/role")
def set_role(form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """What a user may do at a publisher; `none` ends his membership."""
    name, publisher, role = form.get("name", ""), form.get("publisher", ""), form.get("role", "")
    if role == "none":
        accounts.remove_member(installation, publisher, name, actor=principal.actor)
        return inner.done("../users", "removed")
    accounts.set_role(installation, publisher, name, role, actor=principal.actor)
    return inner.done("../users", "saved")


@router.get("/quotas")
def quotas_page(
    request: Request, principal: Administrator, installation: CurrentInstallation, after: Place = ""
) -> Response:
    """What publishers keep and may keep."""
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        targets = repository.current_targets(session).signed
        known = sorted({*recounting.publishers(session), *delegations.publishers(targets)})
        names, place = pages.of_names(known, after, PAGE_ROWS)
        usages = [quotas.usage(session, name) for name in names]
        default = quotas.limits_of(session, EVERYBODY)
    shown = {"usages": usages, "default": default, "mib": _MIB, "next": place and _link(after=place)}
    return rendering.page("admin_quotas.html", {**values, **shown})


def _limit(text: str) -> int | None:
    """A number of MiB as bytes; None where nothing was filled in."""
    digits = text.strip()
    if not digits:
        return None
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
        raise UsageError("a limit is a whole number of MiB, or empty for none")
    return int(digits) * _MIB


@router.post("/quotas")
def set_quota(form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """A publisher's limits, or those of whoever has none of its own (`*`)."""
    name = form.get("publisher", "")
    if form.get("what") == "default":
        quotas.drop_limits(installation, name, actor=principal.actor)
        return inner.done("quotas", "removed")
    limits = Limits(_limit(form.get("unique", "")), _limit(form.get("logical", "")))
    quotas.set_limits(installation, name, limits, actor=principal.actor)
    return inner.done("quotas", "saved")
