"""`oscirc retention show | set | plan | apply`: which versions of an image are kept, and the deletion of the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option, key_option, passphrase_file_option, token_file_option
from oscirc.output import print_json, print_table, say

if TYPE_CHECKING:
    from oscirc_blockstore.retention import Policy

_image = click.argument("image", metavar="[REMOTE:]PUBLISHER/IMAGE")


@click.group()
def retention() -> None:
    """Which versions are kept: policies of images, and the deletion of what they do not keep."""


def _told(policy: Policy) -> str:
    if policy.keeps_everything:
        return "everything is kept"
    kept = ["what channels point at"]
    if policy.keep_last is not None:
        kept.append(f"the last {policy.keep_last} versions")
    if policy.keep_days is not None:
        kept.append(f"what is younger than {policy.keep_days} days")
    return f"kept: {', '.join(kept)}"


@retention.command()
@_image
@token_file_option
@json_option
def show(image: str, *, token_file: Path | None, as_json: bool) -> None:
    """The policy of an image, as its server keeps it.

    \b
    Example:
      oscirc retention show alice/debian
    """
    from oscirc import composition, deleting

    wanted = deleting.parse([image], whole_image=True)
    with composition.rest_client(wanted.reference.remote, token_file) as rest:
        policy = deleting.policy_of(rest, wanted)
    if as_json:
        print_json({"keep_last": policy.keep_last, "keep_days": policy.keep_days})
    else:
        click.echo(_told(policy))


@retention.command("set")
@_image
@click.option("--keep-last", type=click.IntRange(0), help="Keep so many versions that were not withdrawn.")
@click.option("--keep-days", type=click.IntRange(0), help="Keep what was released in so many days.")
@token_file_option
@json_option
def set_policy(
    image: str, *, keep_last: int | None, keep_days: int | None, token_file: Path | None, as_json: bool
) -> None:
    """Set the policy of an image; without options everything is kept. Nothing is deleted before `apply`.

    What a channel points at is always kept, and where that was withdrawn for security the version to go back to.

    \b
    Example:
      oscirc retention set alice/debian --keep-last 5 --keep-days 90
    """
    from oscirc import composition, deleting
    from oscirc_blockstore.retention import Policy

    wanted, policy = deleting.parse([image], whole_image=True), Policy(keep_last, keep_days)
    facts = {"keep_last": policy.keep_last, "keep_days": policy.keep_days}
    with composition.rest_client(wanted.reference.remote, token_file) as rest:
        rest.call_json("PUT", f"images/{wanted.name}/retention", facts)
    if as_json:
        print_json(facts)
    else:
        say(f"{wanted.name}: {_told(policy)}")


@retention.command()
@_image
@token_file_option
@json_option
def plan(image: str, *, token_file: Path | None, as_json: bool) -> None:
    """Which versions the policy would delete now, and what that would free. Changes nothing.

    \b
    Example:
      oscirc retention plan alice/debian
    """
    from oscirc import composition, deleting
    from oscirc_remote.session import Session

    wanted = deleting.parse([image], whole_image=True)
    with Session(wanted.reference.remote) as session:
        index = session.image_index(wanted.reference.publisher, wanted.reference.image)
    with composition.rest_client(wanted.reference.remote, token_file) as rest:
        policy = deleting.policy_of(rest, wanted)
        choices = deleting.choices_of(index, policy)
        going = deleting.going(wanted, choices)
        freed = deleting.freed_by(rest, going) if going.versions else deleting.Freed(0, is_exact=True)
    if as_json:
        print_json(
            {
                "policy": {"keep_last": policy.keep_last, "keep_days": policy.keep_days},
                "choices": [
                    {"version": each.version.label, "keep": each.is_kept, "reasons": list(each.reasons)}
                    for each in choices
                ],
                "freed_bytes": None if freed is None else freed.freed_bytes,
                "is_exact": None if freed is None else freed.is_exact,
            }
        )
        return
    click.echo(_told(policy))
    rows = [(each.version.label, each.version.released[:10], ", ".join(each.reasons) or "DELETE") for each in choices]
    print_table(("version", "released", "why it is kept"), rows)
    if going.versions and freed is not None:
        click.echo(f"{len(going.versions)} to delete, which frees {freed.text()} about a month later")


@retention.command()
@_image
@key_option
@click.option("--why", default="retention", show_default=True, help="The reason, shown to users.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@passphrase_file_option
@token_file_option
@json_option
def apply(
    image: str,
    *,
    key: str,
    why: str,
    dry_run: bool,
    yes: bool,
    passphrase_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Delete for ever what the policy does not keep, signed with your key. The choice is made here, not by the server.

    \b
    Example:
      oscirc retention apply alice/debian --key alice --dry-run
    """
    from oscirc import composition, deleting

    wanted = deleting.parse([image], whole_image=True)
    authority = deleting.Authority(key, passphrase_file, token_file)
    with composition.rest_client(wanted.reference.remote, token_file) as rest:
        policy = deleting.policy_of(rest, wanted)
    deleting.carry_out(wanted, authority, why, policy=policy, dry_run=dry_run, asks=not yes, as_json=as_json)
