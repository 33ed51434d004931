"""`oscirc yank | restore | delete`: what becomes of versions that are released. Signs with a key that stays here."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.options import json_option, key_option, passphrase_file_option, token_file_option
from oscirc.output import warn


@click.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.option("--why", help="The reason, shown to users.")
@click.option("--security", is_flag=True, help="Refuse to boot it, instead of warning only.")
@click.option("--restore", "takes_back", is_flag=True, help="Take the withdrawal back, as oscirc restore does.")
@key_option
@passphrase_file_option
@token_file_option
@json_option
def yank(
    reference: str,
    *,
    why: str | None,
    security: bool,
    takes_back: bool,
    key: str,
    passphrase_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Withdraw a released version, saying why. It stays where it is; workstations warn, or with --security refuse.

    \b
    Example:
      oscirc yank alice/debian@12.1 --why 'does not boot with 512 MiB' --key alice
    """
    from oscirc import composition
    from oscirc.publishing_text import say_change
    from oscirc_blockstore.errors import UsageError
    from oscirc_publisher import changing

    if takes_back == bool(why):
        raise UsageError("say why it is withdrawn (--why TEXT), or --restore to take that back")
    if takes_back:
        _restore(reference, key, passphrase_file, token_file, as_json=as_json)
        return
    wanted = composition.parse_version_reference(reference)
    with composition.signatory(wanted, key, passphrase_file, token_file) as signatory:
        released = changing.yank(signatory, wanted.image, wanted.version, why or "", security=security)
        if any(at == wanted.version for at in released.index.channels.values()):
            warn(f"a channel still points at {wanted.version}; move it with: oscirc channel set")
    say_change(released, f"{reference} is withdrawn", as_json=as_json)


@click.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@key_option
@passphrase_file_option
@token_file_option
@json_option
def restore(reference: str, *, key: str, passphrase_file: Path | None, token_file: Path | None, as_json: bool) -> None:
    """Offer a version again that was withdrawn (oscirc yank). What was deleted cannot be restored.

    \b
    Example:
      oscirc restore alice/debian@12.1 --key alice
    """
    _restore(reference, key, passphrase_file, token_file, as_json=as_json)


def _restore(reference: str, key: str, passphrase_file: Path | None, token_file: Path | None, *, as_json: bool) -> None:
    from oscirc import composition
    from oscirc.publishing_text import say_change
    from oscirc_publisher import changing

    wanted = composition.parse_version_reference(reference)
    with composition.signatory(wanted, key, passphrase_file, token_file) as signatory:
        released = changing.restore(signatory, wanted.image, wanted.version)
    say_change(released, f"{reference} is offered again", as_json=as_json)


@click.command()
@click.argument("references", metavar="[REMOTE:]PUBLISHER/IMAGE[@VERSION] …", nargs=-1, required=True)
@click.option("--why", default="", help="The reason, shown to users.")
@click.option("--whole-image", is_flag=True, help="The image itself: all of its versions, and its name for ever.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@key_option
@passphrase_file_option
@token_file_option
@json_option
def delete(
    references: tuple[str, ...],
    *,
    why: str,
    whole_image: bool,
    dry_run: bool,
    yes: bool,
    key: str,
    passphrase_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Delete released versions of one image for ever: their labels are never used again. To withdraw: oscirc yank.

    Who has one on a workstation can go on using it. The server serves its blocks for another month, then drops those
    that no other version needs. A version that a channel points at is refused: move the channel first.

    \b
    Example:
      oscirc delete alice/debian@12.1 alice/debian@12.2 --key alice
      oscirc delete alice/debian --whole-image --why 'see alice/trixie' --key alice
    """
    from oscirc import deleting

    wanted = deleting.parse(references, whole_image=whole_image)
    deleting.carry_out(
        wanted,
        deleting.Authority(key, passphrase_file, token_file),
        why,
        dry_run=dry_run,
        asks=not yes,
        as_json=as_json,
    )
