"""`oscirc user` and `oscirc robot`: who may use the server, and for which publisher."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from oscirc.administering import api_call, listed, remote_option
from oscirc.options import json_option, token_file_option
from oscirc.output import print_done, print_json, print_table, say

_password_file_option = click.option(
    "--password-file",
    type=click.Path(allow_dash=True, path_type=Path),
    help="File that holds the password (- is standard input; default: asked for).",
)


def _password(file: Path | None) -> str:
    from oscirc.options import secret_from_file
    from oscirc_blockstore.errors import UsageError

    if file is not None:
        return secret_from_file(file, "the password")
    if not sys.stdin.isatty():
        raise UsageError("no password was given", hint="give --password-file FILE, or run this in a terminal")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _checked(name: str, what: str) -> str:
    from oscirc_blockstore.names import check_local_name

    return check_local_name(name, what)


def _robot(name: str) -> tuple[str, str]:
    from oscirc_blockstore.errors import UsageError
    from oscirc_blockstore.names import check_publisher

    publisher, slash, robot = name.partition("/")
    if not slash:
        raise UsageError(f"{name[:130]!r} is no robot's name", hint="write PUBLISHER/NAME")
    return check_publisher(publisher), _checked(robot, "robot")


def _print_accounts(found: object) -> None:
    rows = [
        [
            str(item.get("name")),
            "yes" if item.get("admin") else "",
            ", ".join(f"{publisher}: {role}" for publisher, role in item.get("roles", {}).items()),
            "yes" if item.get("password") else "",
            str(item.get("disabled") or ""),
        ]
        for item in (found if isinstance(found, list) else [])
    ]
    print_table(("NAME", "ADMINISTRATOR", "ROLES", "PASSWORD", "DISABLED"), rows)


@click.group()
def user() -> None:
    """An administrator's: people who use the server, and what each may do at which publisher."""


@user.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="Make an administrator, who may do everything.")
@click.option("--no-password", is_flag=True, help="No login to the pages: tokens only.")
@_password_file_option
@remote_option
@token_file_option
@json_option
def create(
    name: str,
    *,
    admin: bool,
    no_password: bool,
    password_file: Path | None,
    remote_name: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make a user. The password is asked for.

    \b
    Example:
      oscirc user create alice
      oscirc user grant alice debian --role owner
    """
    document: dict[str, object] = {"name": _checked(name, "user"), "admin": admin}
    if not no_password:
        document["password"] = _password(password_file)
    made = api_call(remote_name, token_file, "POST", "users", document)
    if as_json:
        print_json(made)
    else:
        say(
            f"user {name} made"
            + ("" if admin else f"; let it work for a publisher: oscirc user grant {name} PUBLISHER")
        )


@user.command("list")
@remote_option
@token_file_option
@json_option
def list_users(*, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """List users and what they may do.

    \b
    Example:
      oscirc user list
    """
    answer = listed(remote_name, token_file, "users", "users")
    if as_json:
        print_json(answer)
    else:
        _print_accounts(answer.get("users"))


@user.command()
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take the password away: tokens only.")
@click.option("--own", is_flag=True, help="Your own: the present one is asked for.")
@click.option(
    "--present-file",
    type=click.Path(path_type=Path),
    help="With --own: file that holds the present password (default: asked for).",
)
@_password_file_option
@remote_option
@token_file_option
@json_option
def password(
    name: str,
    *,
    remove: bool,
    own: bool,
    present_file: Path | None,
    password_file: Path | None,
    remote_name: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Give a user another password; wherever it is logged in, it is so no more. For administrators.

    With --own NAME is the user of your token, who says the present password.

    \b
    Example:
      oscirc user password alice
      oscirc user password alice --own
    """
    if own:
        _change_own(name, present_file, password_file, remote_name, token_file, remove=remove)
        said = "your password is changed; your logins to the pages ended, your tokens did not"
        print_done({"user": name, "password": True}, said, as_json=as_json)
        return
    new = None if remove else _password(password_file)
    api_call(remote_name, token_file, "PATCH", f"users/{_checked(name, 'user')}", {"password": new})
    said = f"{name} has " + ("no password any more" if remove else "another password")
    print_done({"user": name, "password": not remove}, said, as_json=as_json)


def _change_own(
    name: str,
    present_file: Path | None,
    password_file: Path | None,
    remote_name: str | None,
    token_file: Path | None,
    *,
    remove: bool,
) -> None:
    from oscirc.options import secret_from_file
    from oscirc_blockstore.errors import UsageError

    if remove:
        raise UsageError("only an administrator takes a password away")
    mine = api_call(remote_name, token_file, "GET", "whoami").get("account")
    if mine != name:
        whose = f"{str(mine)[:130]!r}'s" if mine else "nobody's"
        raise UsageError(f"your token is {whose}, not {name}'s", hint="oscirc token whoami")
    if present_file is not None:
        present = secret_from_file(present_file, "the present password")
    elif sys.stdin.isatty():
        present = str(click.prompt("Present password", hide_input=True, err=True))
    else:
        raise UsageError("no present password was given", hint="give --present-file FILE, or run this in a terminal")
    document = {"present": present, "password": _password(password_file)}
    api_call(remote_name, token_file, "PUT", "whoami/password", document)


def _switch(name: str, remote_name: str | None, token_file: Path | None, *, disabled: bool, as_json: bool) -> None:
    api_call(remote_name, token_file, "PATCH", f"users/{_checked(name, 'user')}", {"disabled": disabled})
    said = f"{name} is {'disabled: its tokens and logins do nothing' if disabled else 'enabled'}"
    print_done({"user": name, "disabled": disabled}, said, as_json=as_json)


@user.command()
@click.argument("name")
@remote_option
@token_file_option
@json_option
def disable(name: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Make all tokens and logins of a user worthless, until it is enabled again.

    \b
    Example:
      oscirc user disable alice
    """
    _switch(name, remote_name, token_file, disabled=True, as_json=as_json)


@user.command()
@click.argument("name")
@remote_option
@token_file_option
@json_option
def enable(name: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Let a user work again.

    \b
    Example:
      oscirc user enable alice
    """
    _switch(name, remote_name, token_file, disabled=False, as_json=as_json)


@user.command()
@click.argument("name")
@click.argument("publisher")
@click.option(
    "--role",
    type=click.Choice(["owner", "publisher", "reader"]),
    default="publisher",
    show_default=True,
    help="owner also looks after members and robots; reader sees usage and drafts.",
)
@remote_option
@token_file_option
@json_option
def grant(
    name: str, publisher: str, *, role: str, remote_name: str | None, token_file: Path | None, as_json: bool
) -> None:
    """Make a user a member of a publisher, or change its role there. For administrators and the publisher's owners.

    \b
    Example:
      oscirc user grant alice debian --role owner
    """
    from oscirc_blockstore.names import check_publisher

    path = f"publishers/{check_publisher(publisher)}/members/{_checked(name, 'user')}"
    api_call(remote_name, token_file, "PUT", path, {"role": role})
    facts = {"user": name, "publisher": publisher, "role": role}
    print_done(facts, f"{name} is {role} of {publisher}", as_json=as_json)


@user.command()
@click.argument("name")
@click.argument("publisher")
@remote_option
@token_file_option
@json_option
def withdraw(name: str, publisher: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Let a user be no member of a publisher any more; its tokens can do nothing there from now on.

    \b
    Example:
      oscirc user withdraw alice debian
    """
    from oscirc_blockstore.names import check_publisher

    api_call(
        remote_name,
        token_file,
        "DELETE",
        f"publishers/{check_publisher(publisher)}/members/{_checked(name, 'user')}",
    )
    facts = {"user": name, "publisher": publisher, "role": None}
    print_done(facts, f"{name} is no member of {publisher} any more", as_json=as_json)


@user.command()
@click.argument("publisher")
@remote_option
@token_file_option
@json_option
def members(publisher: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """List the members of a publisher.

    \b
    Example:
      oscirc user members debian
    """
    from oscirc_blockstore.names import check_publisher

    answer = api_call(remote_name, token_file, "GET", f"publishers/{check_publisher(publisher)}/members")
    if as_json:
        print_json(answer)
        return
    found = answer.get("members")
    rows = [(str(name), str(role)) for name, role in found.items()] if isinstance(found, dict) else []
    print_table(("USER", "ROLE"), rows)


@click.group()
def robot() -> None:
    """Robots of a publisher: accounts of pipelines and machines, with tokens and without passwords."""


@robot.command("create")
@click.argument("name", metavar="PUBLISHER/NAME")
@remote_option
@token_file_option
@json_option
def create_robot(name: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Make a robot. For administrators and the publisher's owners.

    \b
    Example:
      oscirc robot create debian/nightly
      oscirc token create nightly-2026 --account debian/nightly
    """
    publisher, plain = _robot(name)
    made = api_call(remote_name, token_file, "POST", f"publishers/{publisher}/robots", {"name": plain})
    if as_json:
        print_json(made)
    else:
        say(f"robot {name} made; a token for it: oscirc token create NAME --account {name}")


@robot.command("list")
@click.argument("publisher")
@remote_option
@token_file_option
@json_option
def list_robots(publisher: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """List the robots of a publisher.

    \b
    Example:
      oscirc robot list debian
    """
    from oscirc_blockstore.names import check_publisher

    answer = listed(remote_name, token_file, f"publishers/{check_publisher(publisher)}/robots", "robots")
    if as_json:
        print_json(answer)
    else:
        _print_accounts(answer.get("robots"))


@robot.command("disable")
@click.argument("name", metavar="PUBLISHER/NAME")
@remote_option
@token_file_option
@json_option
def disable_robot(name: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Make all tokens of a robot worthless, until it is enabled again.

    \b
    Example:
      oscirc robot disable debian/nightly
    """
    publisher, plain = _robot(name)
    api_call(remote_name, token_file, "PATCH", f"publishers/{publisher}/robots/{plain}", {"disabled": True})
    print_done({"robot": name, "disabled": True}, f"{name} is disabled: its tokens do nothing", as_json=as_json)


@robot.command("enable")
@click.argument("name", metavar="PUBLISHER/NAME")
@remote_option
@token_file_option
@json_option
def enable_robot(name: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Let a robot work again.

    \b
    Example:
      oscirc robot enable debian/nightly
    """
    publisher, plain = _robot(name)
    api_call(remote_name, token_file, "PATCH", f"publishers/{publisher}/robots/{plain}", {"disabled": False})
    print_done({"robot": name, "disabled": False}, f"{name} is enabled", as_json=as_json)
