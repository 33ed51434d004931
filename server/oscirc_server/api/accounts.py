"""Users, robots and members: who there is, and what a user may do at a publisher."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, SecretStr

from oscirc_server.api.bodies import documented, json_body
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.document import refusals
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.security import Administrator, Caller, Manager, Reader, address_of
from oscirc_server.clock import date_text
from oscirc_server.services import accounts, sessions
from oscirc_server.services.accounts import AccountFacts

router = APIRouter(tags=["accounts"])


class NewUser(BaseModel):
    """A person; without a password there is no login to the pages, only tokens."""

    name: str
    password: SecretStr | None = None
    admin: bool = False


class UserChange(BaseModel):
    """What shall be different; what is left out stays. `password` null takes it away."""

    password: SecretStr | None = None
    admin: bool | None = None
    disabled: bool | None = None


class OwnPassword(BaseModel):
    """A user's present password, and what it shall be."""

    present: SecretStr
    password: SecretStr


class NewRobot(BaseModel):
    """A robot's name, without its publisher's."""

    name: str


class RobotChange(BaseModel):
    """Whether it may do anything."""

    disabled: bool


class MemberRole(BaseModel):
    """What a user may do at a publisher."""

    role: Literal["owner", "publisher", "reader"]


class AccountDocument(BaseModel):
    """A user or a robot (`publisher` is then set); `roles` by publisher."""

    name: str
    publisher: str | None
    admin: bool
    password: bool
    roles: dict[str, str]
    created: str
    disabled: str | None


class UserList(BaseModel):
    """Some users; `next` is the `after` of the following ones, null at the end."""

    users: list[AccountDocument]
    next: str | None


class RobotList(BaseModel):
    """Some robots of a publisher; `next` is the `after` of the following ones, null at the end."""

    robots: list[AccountDocument]
    next: str | None


class MemberList(BaseModel):
    """Roles by user."""

    members: dict[str, str]


class Myself(BaseModel):
    """Whose token it is (null: nobody's), its id, and what it may do now."""

    account: str | None
    token: str
    scopes: list[str]


def _document(facts: AccountFacts) -> AccountDocument:
    return AccountDocument(
        name=facts.name,
        publisher=facts.publisher,
        admin=facts.is_admin,
        password=facts.has_password,
        roles=facts.roles,
        created=date_text(facts.created_s),
        disabled=None if facts.disabled_s is None else date_text(facts.disabled_s),
    )


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@router.get("/whoami")
def who_am_i(principal: Caller) -> Myself:
    """Whose the token is and what it may do: for people and scripts that look after one."""
    return Myself(account=principal.account, token=principal.token_id, scopes=sorted(principal.scopes))


@router.put(
    "/whoami/password",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra=documented(OwnPassword),
    responses=refusals(HTTPStatus.TOO_MANY_REQUESTS),
)
def change_own_password(
    principal: Caller,
    body: Annotated[OwnPassword, Depends(json_body(OwnPassword))],
    installation: CurrentInstallation,
    request: Request,
) -> None:
    """Change the password of the token's own user, who says the present one; ends his logins, and no token."""
    address, guessing = address_of(request), context_of(request).guessing
    guessing.before_password(address, principal.account or "")
    present, wanted = body.present.get_secret_value(), body.password.get_secret_value()
    sessions.change_password(installation, principal, present, wanted)
    guessing.right_password(address, principal.account or "")


@router.post(
    "/users", status_code=HTTPStatus.CREATED, openapi_extra=documented(NewUser), responses=refusals(HTTPStatus.CONFLICT)
)
def create_user(
    principal: Administrator, body: Annotated[NewUser, Depends(json_body(NewUser))], installation: CurrentInstallation
) -> AccountDocument:
    """Make a user. Names are never used twice (409)."""
    made = accounts.create_user(
        installation, body.name, password=_text(body.password), is_admin=body.admin, actor=principal.actor
    )
    return _document(made)


@router.get("/users")
def list_users(
    _principal: Administrator,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
) -> UserList:
    """Users, by name."""
    with installation.database.read() as session:
        found, place = accounts.users(session, after=page.after, limit=page.limit)
    link_next(request, response, place)
    return UserList(users=[_document(facts) for facts in found], next=place)


@router.get("/users/{user}")
def get_user(user: str, _principal: Administrator, installation: CurrentInstallation) -> AccountDocument:
    """One user."""
    with installation.database.read() as session:
        return _document(accounts.get(session, user))


@router.patch("/users/{user}", openapi_extra=documented(UserChange))
def change_user(
    user: str,
    principal: Administrator,
    body: Annotated[UserChange, Depends(json_body(UserChange))],
    installation: CurrentInstallation,
) -> AccountDocument:
    """Another password, an administrator or not, disabled or not; a new password ends every session of the user."""
    with installation.database.read() as session:
        accounts.get(session, user)
    if "password" in body.model_fields_set:
        accounts.set_password(installation, user, _text(body.password), actor=principal.actor)
    if body.admin is not None:
        accounts.set_admin(installation, user, body.admin, actor=principal.actor)
    if body.disabled is not None:
        accounts.set_disabled(installation, user, body.disabled, actor=principal.actor)
    with installation.database.read() as session:
        return _document(accounts.get(session, user))


@router.get("/publishers/{publisher}/members")
def list_members(publisher: str, _principal: Reader, installation: CurrentInstallation) -> MemberList:
    """Who may do what at a publisher."""
    with installation.database.read() as session:
        return MemberList(members=accounts.members(session, publisher))


@router.put(
    "/publishers/{publisher}/members/{user}",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra=documented(MemberRole),
)
def set_member(
    publisher: str,
    user: str,
    principal: Manager,
    body: Annotated[MemberRole, Depends(json_body(MemberRole))],
    installation: CurrentInstallation,
) -> None:
    """Make a user a member of a publisher, or change his role."""
    accounts.set_role(installation, publisher, user, body.role, actor=principal.actor)


@router.delete("/publishers/{publisher}/members/{user}", status_code=HTTPStatus.NO_CONTENT)
def remove_member(publisher: str, user: str, principal: Manager, installation: CurrentInstallation) -> None:
    """Let a user be no member any more; his tokens can do nothing there from now on."""
    accounts.remove_member(installation, publisher, user, actor=principal.actor)


@router.post("/publishers/{publisher}/robots", status_code=HTTPStatus.CREATED, openapi_extra=documented(NewRobot))
def create_robot(
    publisher: str,
    principal: Manager,
    body: Annotated[NewRobot, Depends(json_body(NewRobot))],
    installation: CurrentInstallation,
) -> AccountDocument:
    """Make a robot of a publisher: it may publish there, with tokens."""
    return _document(accounts.create_robot(installation, publisher, body.name, actor=principal.actor))


@router.get("/publishers/{publisher}/robots")
def list_robots(
    publisher: str,
    _principal: Reader,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
) -> RobotList:
    """Robots of a publisher, by name."""
    with installation.database.read() as session:
        found, place = accounts.robots(session, publisher, after=page.after, limit=page.limit)
    link_next(request, response, place)
    return RobotList(robots=[_document(facts) for facts in found], next=place)


@router.patch("/publishers/{publisher}/robots/{robot}", openapi_extra=documented(RobotChange))
def change_robot(
    publisher: str,
    robot: str,
    principal: Manager,
    body: Annotated[RobotChange, Depends(json_body(RobotChange))],
    installation: CurrentInstallation,
) -> AccountDocument:
    """Disable a robot, or enable it again."""
    name = f"{publisher}/{robot}"
    accounts.set_disabled(installation, name, body.disabled, actor=principal.actor)
    with installation.database.read() as session:
        return _document(accounts.get(session, name))
